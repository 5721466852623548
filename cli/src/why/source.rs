//! The objects that policy depends on, from the API server or from a file.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service},
    networking::v1::NetworkPolicy,
};
use kube::api::DynamicObject;
use netkeel_crds::NodeNetwork;
use serde::Deserialize as _;
use serde_json::Value;

use crate::lister::Lister;

/// Objects as they are stored, before anybody understands them.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(super) pods: Vec<DynamicObject>,
    pub(super) namespaces: Vec<DynamicObject>,
    pub(super) policies: Vec<DynamicObject>,
    pub(super) node_networks: Vec<DynamicObject>,
    pub(super) nodes: Vec<DynamicObject>,
    pub(super) services: Vec<DynamicObject>,
    /// Kinds that this user may not list, of those that an answer does not hang on.
    pub(super) forbidden: Vec<String>,
}

impl Objects {
    /// All that the API server has.
    pub(crate) async fn of_cluster(mut lister: Lister) -> Result<Self> {
        let ask = "without an API server, ask a file: --from-file";
        Ok(Self {
            pods: lister.needed::<Pod>().await.context(ask)?,
            namespaces: lister.needed::<Namespace>().await?,
            policies: lister.needed::<NetworkPolicy>().await?,
            node_networks: lister.list::<NodeNetwork>("").await?.unwrap_or_default(),
            nodes: lister.list::<Node>("").await?.unwrap_or_default(),
            services: lister.list::<Service>("").await?.unwrap_or_default(),
            forbidden: lister.forbidden,
        })
    }

    /// What `kubectl get … -A -o yaml` (or json) wrote: lists and single objects, in any number of documents.
    pub(crate) fn of_file(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::of_text(&text).with_context(|| format!("read objects from {}", path.display()))
    }

    pub(super) fn of_text(text: &str) -> Result<Self> {
        let mut objects = Self::default();
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            objects.take(Value::deserialize(document)?)?;
        }
        let hint =
            "kubectl get pods,namespaces,networkpolicies,nodenetworks,nodes,services -A -o yaml > FILE";
        ensure!(!objects.pods.is_empty(), "there is no Pod in it: {hint}");
        ensure!(!objects.namespaces.is_empty(), "there is no Namespace in it: {hint}");
        Ok(objects)
    }

    fn take(&mut self, mut value: Value) -> Result<()> {
        if let Some(items) = value.get_mut("items").and_then(Value::as_array_mut) {
            return std::mem::take(items).into_iter().try_for_each(|item| self.take(item));
        }
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        let list = match kind.as_str() {
            "Pod" => &mut self.pods,
            "Namespace" => &mut self.namespaces,
            "NetworkPolicy" => &mut self.policies,
            "NodeNetwork" => &mut self.node_networks,
            "Node" => &mut self.nodes,
            "Service" => &mut self.services,
            _ => return Ok(()),
        };
        list.push(serde_json::from_value(value).with_context(|| format!("a {kind} without metadata"))?);
        Ok(())
    }
}
