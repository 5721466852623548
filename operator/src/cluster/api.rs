//! The real cluster. Every write is either fenced (UID, resource version, create-only) or idempotent.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Mutex,
};

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
    core::{ApiResource, GroupVersionKind},
};
use netkeel_crds::{
    AddressBlock, AddressBlockSpec, CLEANUP, ClusterNetwork, ClusterNetworkStatus, DEFAULT, NodeNetwork,
    NodeNetworkSpec, block_name,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Cluster, Effect, Error};
use crate::{
    observed::{Observed, Unreadable},
    plan::{Part, PartName, Step},
    settings::Settings,
};

/// Field manager of all that the operator writes.
pub const MANAGER: &str = "netkeel-operator";
/// Annotation of a claim: UID and version of the NodeNetwork that it came into last.
const ENTERED: &str = "netkeel.io/entered";

/// The cluster behind a client.
pub struct ApiCluster {
    pub(super) client: Client,
    pub(super) settings: Settings,
    pub(super) parts: Mutex<Parts>,
}

/// What is known of rendered objects: those that were applied and are as they were then need no write.
#[derive(Default)]
pub(super) struct Parts {
    /// Version at the last look.
    pub(super) seen: HashMap<PartName, String>,
    /// Hash of what was applied last, and the version that came of it.
    applied: HashMap<PartName, (u64, String)>,
}

pub(crate) fn api_error(
    verb: &'static str,
    kind: &'static str,
    name: &str,
) -> impl FnOnce(kube::Error) -> Error {
    let name = name.to_owned();
    move |source| Error::Api { verb, kind, name, source: Box::new(source) }
}

/// A lost race is no error.
fn raced<T>(result: Result<T, kube::Error>) -> Result<Effect, kube::Error> {
    match result {
        Ok(_) => Ok(Effect::Done),
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(Effect::Stale),
        Err(error) => Err(error),
    }
}

/// Changes with every edit of the object's spec. A Service has no generation.
pub(crate) fn version(metadata: &ObjectMeta) -> String {
    metadata
        .generation
        .map_or_else(|| metadata.resource_version.clone().unwrap_or_default(), |g| g.to_string())
}

fn hash(body: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.to_string().hash(&mut hasher);
    hasher.finish()
}

impl ApiCluster {
    /// The cluster behind `client`. `settings` are those of the rendered objects.
    #[must_use]
    pub fn new(client: Client, settings: Settings) -> Self {
        Self { client, settings, parts: Mutex::default() }
    }

    pub(super) fn known(&self) -> std::sync::MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn of_name(&self, name: &PartName) -> Api<DynamicObject> {
        let (group, version) = name.api_version.rsplit_once('/').unwrap_or(("", name.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, name.kind));
        Api::namespaced_with(self.client.clone(), &name.namespace, &resource)
    }

    async fn apply_part(&self, part: &Part) -> Result<Effect, Error> {
        let parameters = PatchParams::apply(MANAGER).force();
        let api = self.of_name(&part.name);
        let applied = api.patch(part.name.name, &parameters, &Patch::Apply(&part.body)).await;
        let object = applied.map_err(api_error("applying", part.name.kind, part.name.name))?;
        let version = version(&object.metadata);
        let mut known = self.known();
        known.seen.insert(part.name.clone(), version.clone());
        known.applied.insert(part.name.clone(), (hash(&part.body), version));
        Ok(Effect::Done)
    }

    /// Server-side apply leaves the ports of others in the list, so what there is gets replaced, if it still is as it was read.
    async fn take_over(&self, part: &Part) -> Result<Effect, Error> {
        let api = self.of_name(&part.name);
        let failed = |error| api_error("taking over", part.name.kind, part.name.name)(error);
        let Some(mut object) = api.get_opt(part.name.name).await.map_err(failed)? else {
            return Ok(Effect::Stale);
        };
        let (label, ours) = crate::render::PART_OF;
        if object.labels().get(label).is_none_or(|value| value != ours) {
            return Ok(Effect::Stale);
        }
        for field in ["ports", "selector"] {
            object.data["spec"][field] = part.body["spec"][field].clone();
        }
        object.data["spec"].as_object_mut().map(|spec| spec.remove("trafficDistribution"));
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        raced(api.replace(part.name.name, &parameters, &object).await).map_err(failed)
    }

    async fn delete_part(&self, name: &PartName) -> Result<Effect, Error> {
        self.known().applied.remove(name);
        let deleted = self.of_name(name).delete(name.name, &DeleteParams::background()).await;
        raced(deleted).map_err(api_error("deleting", name.kind, name.name))
    }

    /// Adds or takes away our finalizer. Nothing else of the object is touched.
    async fn finalizer(&self, hold: bool) -> Result<Effect, Error> {
        let api: Api<ClusterNetwork> = Api::all(self.client.clone());
        let failed = |error| api_error("holding", "ClusterNetwork", DEFAULT)(error);
        let Some(network) = api.get_opt(DEFAULT).await.map_err(failed)? else { return Ok(Effect::Stale) };
        let mut finalizers = network.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != CLEANUP);
        if hold {
            finalizers.push(CLEANUP.to_owned());
        }
        let change =
            json!({"metadata": {"resourceVersion": network.resource_version(), "finalizers": finalizers}});
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        raced(api.patch(DEFAULT, &parameters, &Patch::Merge(change)).await).map_err(failed)
    }

    async fn create<K>(&self, kind: &'static str, object: &K) -> Result<Effect, Error>
    where
        K: Resource<DynamicType = ()> + Serialize + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
        K: Resource<Scope = kube::core::ClusterResourceScope>,
    {
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let api: Api<K> = Api::all(self.client.clone());
        raced(api.create(&parameters, object).await).map_err(api_error("creating", kind, &object.name_any()))
    }

    async fn create_node_network(&self, node: &str, node_uid: &str) -> Result<Effect, Error> {
        let mut network = NodeNetwork::new(node, NodeNetworkSpec::default());
        network.metadata.owner_references = serde_json::from_value(json!([
            {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid},
        ]))
        .ok();
        self.create("NodeNetwork", &network).await
    }

    async fn claim(&self, spec: AddressBlockSpec) -> Result<Effect, Error> {
        self.create("AddressBlock", &AddressBlock::new(&block_name(&spec.cidr), spec)).await
    }

    /// The look at the NodeNetwork comes after the one at the Node, which planning found gone.
    async fn release(&self, name: &str, uid: &str, node: &str, node_uid: &str) -> Result<Effect, Error> {
        let networks: Api<NodeNetwork> = Api::all(self.client.clone());
        let network =
            networks.get_metadata_opt(node).await.map_err(api_error("reading", "NodeNetwork", node))?;
        let still_owned = network
            .is_some_and(|network| network.owner_references().iter().any(|owner| owner.uid == node_uid));
        if still_owned {
            return Ok(Effect::Stale);
        }
        self.delete::<AddressBlock>("AddressBlock", name, (uid, None)).await
    }

    /// Writes the claim, so that nobody deletes it who has seen it before. It must still be there.
    async fn renew(&self, name: &str, uid: &str, entered: &str) -> Result<Effect, Error> {
        let api: Api<AddressBlock> = Api::all(self.client.clone());
        let failed = |error| api_error("renewing", "AddressBlock", name)(error);
        let found = api.get_metadata_opt(name).await.map_err(failed)?;
        let Some(block) = found.filter(|block| block.uid().as_deref() == Some(uid)) else {
            return Ok(Effect::Stale);
        };
        let change = json!({"metadata": {
            "resourceVersion": block.resource_version(), "annotations": {ENTERED: entered},
        }});
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        raced(api.patch_metadata(name, &parameters, &Patch::Merge(change)).await).map_err(failed)
    }

    async fn delete<K>(
        &self,
        kind: &'static str,
        name: &str,
        (uid, resource_version): (&str, Option<&str>),
    ) -> Result<Effect, Error>
    where
        K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>,
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let resource_version = resource_version.map(str::to_owned);
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api: Api<K> = Api::all(self.client.clone());
        raced(api.delete(name, &parameters).await).map_err(api_error("deleting", kind, name))
    }

    async fn write(
        &self,
        node: &str,
        (uid, resource_version): (&str, &str),
        entering: &[(String, String)],
        spec: &NodeNetworkSpec,
    ) -> Result<Effect, Error> {
        for (name, claim) in entering {
            if self.renew(name, claim, &format!("{uid}/{resource_version}")).await? == Effect::Stale {
                return Ok(Effect::Stale);
            }
        }
        let body = json!({
            "apiVersion": NodeNetwork::api_version(&()),
            "kind": NodeNetwork::kind(&()),
            "metadata": {"name": node, "uid": uid, "resourceVersion": resource_version},
            "spec": spec,
        });
        let api: Api<NodeNetwork> = Api::all(self.client.clone());
        let applied = api.patch(node, &PatchParams::apply(MANAGER).force(), &Patch::Apply(body)).await;
        raced(applied).map_err(api_error("writing", "NodeNetwork", node))
    }
}

impl Cluster for ApiCluster {
    async fn observe(&self) -> Result<Observed, Error> {
        self.look().await
    }

    fn is_done(&self, step: &Step) -> bool {
        let Step::Apply(part) = step else { return false };
        let known = self.known();
        let applied = known.applied.get(&part.name);
        applied.is_some_and(|(body, version)| {
            *body == hash(&part.body) && known.seen.get(&part.name) == Some(version)
        })
    }

    async fn apply(&self, step: &Step) -> Result<Effect, Error> {
        match step {
            Step::HoldNetwork => self.finalizer(true).await,
            Step::LetNetworkGo => self.finalizer(false).await,
            Step::CreateNodeNetwork { node, node_uid } => self.create_node_network(node, node_uid).await,
            Step::DeleteNodeNetwork { name, uid } => {
                self.delete::<NodeNetwork>("NodeNetwork", name, (uid, None)).await
            }
            Step::ClaimBlock { cidr, node, node_uid } => {
                let (node, node_uid) = (node.clone(), node_uid.clone());
                self.claim(AddressBlockSpec { cidr: *cidr, node, node_uid }).await
            }
            Step::ReleaseBlock { name, uid, node, node_uid } => self.release(name, uid, node, node_uid).await,
            Step::ReturnBlock { name, uid, resource_version } => {
                self.delete::<AddressBlock>("AddressBlock", name, (uid, Some(resource_version))).await
            }
            Step::WriteNodeNetwork { node, uid, resource_version, entering, spec } => {
                self.write(node, (uid, resource_version), entering, spec).await
            }
            Step::TakeOver(part) => self.take_over(part).await,
            Step::Apply(part) => self.apply_part(part).await,
            Step::Delete(name) => self.delete_part(name).await,
        }
    }

    async fn report(&self, network: &ClusterNetwork, status: &ClusterNetworkStatus) -> Result<(), Error> {
        if network.status.as_ref() == Some(status) {
            return Ok(());
        }
        let body = json!({
            "apiVersion": ClusterNetwork::api_version(&()),
            "kind": ClusterNetwork::kind(&()),
            "metadata": {"name": DEFAULT, "uid": network.metadata.uid},
            "status": status,
        });
        let api: Api<ClusterNetwork> = Api::all(self.client.clone());
        let parameters = PatchParams::apply(MANAGER).force();
        let reported = api.patch_status(DEFAULT, &parameters, &Patch::Apply(body)).await;
        raced(reported).map_err(api_error("reporting", "ClusterNetwork", DEFAULT)).map(|_| ())
    }

    /// Merged, since an apply would take away all other fields of a status that is as little understood.
    async fn report_unreadable(&self, network: &Unreadable, conditions: &[Value]) -> Result<(), Error> {
        let metadata = &network.object["metadata"];
        let change = json!({
            "metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
            "status": {"conditions": conditions},
        });
        let api: Api<DynamicObject> =
            Api::all_with(self.client.clone(), &ApiResource::erase::<ClusterNetwork>(&()));
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let reported = api.patch_status(DEFAULT, &parameters, &Patch::Merge(change)).await;
        raced(reported).map_err(api_error("reporting", "ClusterNetwork", DEFAULT)).map(|_| ())
    }
}
