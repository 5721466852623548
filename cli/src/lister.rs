//! Lists objects as the API server has them, in time or not at all.

use std::{fmt::Debug, time::Duration};

use anyhow::{Context, Result, anyhow};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Client, Resource,
    api::{Api, ApiResource, DynamicObject, ListParams},
};
use serde::de::DeserializeOwned;

/// How long one list may take: the client itself tries for minutes with an API server that is on its way up or down.
const PATIENCE: Duration = Duration::from_secs(15);

/// Lists objects of the cluster behind one client.
pub(crate) struct Lister {
    client: Client,
    patience: Duration,
    /// Kinds that this user may not list.
    pub(crate) forbidden: Vec<String>,
}

impl Lister {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, patience: PATIENCE, forbidden: Vec::new() }
    }

    /// With less patience.
    #[cfg(test)]
    pub(crate) fn impatient(client: Client) -> Self {
        Self { patience: Duration::from_millis(300), ..Self::new(client) }
    }

    /// All objects of a kind with these labels; none when the API server does not know the kind. A kind that may not be
    /// listed is noted, and has no objects.
    pub(crate) async fn list<K>(&mut self, labels: &str) -> Result<Option<Vec<DynamicObject>>>
    where
        K: Resource<DynamicType = ()>,
    {
        let answer = self.ask::<K>(labels).await;
        match answer {
            Err(kube::Error::Api(refused)) if refused.code == 403 => {
                self.forbidden.push(K::plural(&()).into_owned());
                Ok(Some(Vec::new()))
            }
            other => known::<K>(other),
        }
    }

    /// All objects of a kind without which there is no answer.
    pub(crate) async fn needed<K: Resource<DynamicType = ()>>(&self) -> Result<Vec<DynamicObject>> {
        known::<K>(self.ask::<K>("").await).map(Option::unwrap_or_default)
    }

    /// One object, where it is there.
    pub(crate) async fn get<K>(&self, namespace: &str, name: &str) -> Result<Option<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let what = || format!("get {} {namespace}/{name}", K::kind(&()));
        match tokio::time::timeout(self.patience, api.get_opt(name)).await {
            Ok(answer) => answer.with_context(what),
            Err(_) => {
                Err(anyhow!("no usable answer within {} s", self.patience.as_secs_f32())).with_context(what)
            }
        }
    }

    async fn ask<K>(&self, labels: &str) -> Result<Vec<DynamicObject>, kube::Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &ApiResource::erase::<K>(&()));
        let parameters = ListParams::default().labels(labels);
        match tokio::time::timeout(self.patience, api.list(&parameters)).await {
            Ok(answer) => answer.map(|list| list.items),
            Err(_) => Err(kube::Error::Service(
                anyhow!("no usable answer within {} s", self.patience.as_secs_f32()).into(),
            )),
        }
    }
}

/// The objects of a kind that the API server knows.
fn known<K>(answer: Result<Vec<DynamicObject>, kube::Error>) -> Result<Option<Vec<DynamicObject>>>
where
    K: Resource<DynamicType = ()>,
{
    match answer {
        Ok(objects) => Ok(Some(objects)),
        Err(kube::Error::Api(refused)) if refused.code == 404 => Ok(None),
        Err(error) => Err(error).with_context(|| {
            format!(
                "list {}: does the API server answer? Nodes go on without it; kubectl get --raw /readyz",
                K::plural(&())
            )
        }),
    }
}
