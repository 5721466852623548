//! A cluster in memory with the API server's rules that fencing rests on: names exist once, UIDs and resource versions
//! never come back. Before every call of the API it yields, so that a test decides who goes next.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use netkeel_crds::{
    AddressBlock, AddressBlockSpec, CLEANUP, ClusterNetwork, ClusterNetworkSpec, ClusterNetworkStatus,
    NodeNetwork, NodeNetworkSpec, NodeNetworkStatus, block_name,
};
use serde_json::Value;

use super::{Cluster, Effect, Error};
use crate::{
    observed::{DnsSeen, DnsService, Node, Observed, Unreadable, Workload},
    plan::{PartName, Step},
    render::dns::daemon_set_name,
};

/// What the API server holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) network: Option<ClusterNetwork>,
    pub(crate) blocks: BTreeMap<String, AddressBlock>,
    pub(crate) node_networks: BTreeMap<String, NodeNetwork>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) parts: Vec<PartName>,
    versions: u64,
}

impl State {
    fn next(&mut self) -> String {
        self.versions += 1;
        self.versions.to_string()
    }

    /// A node joins; its object is a new one, whatever its name.
    pub(crate) fn join(&mut self, name: &str) {
        let uid = format!("node-{}", self.next());
        let address = format!("192.0.2.{}", self.nodes.len() + 1).parse().unwrap();
        self.nodes.push(Node {
            name: name.to_owned(),
            uid,
            labels: BTreeMap::new(),
            addresses: vec![address],
            pod_cidrs: Vec::new(),
            ready: true,
            reachable: true,
        });
    }

    /// A Node object is deleted.
    pub(crate) fn leave(&mut self, name: &str) {
        self.nodes.retain(|node| node.name != name);
    }

    /// What the garbage collector does some time after.
    pub(crate) fn collect_garbage(&mut self) {
        let nodes = &self.nodes;
        self.node_networks.retain(|_, network| {
            network.owner_references().iter().all(|owner| nodes.iter().any(|node| node.uid == owner.uid))
        });
    }

    /// Deletion as the API server does it: an object with finalizers stays until they are gone.
    pub(crate) fn delete_network(&mut self) {
        let held = self.network.as_ref().is_some_and(|network| !network.finalizers().is_empty());
        if let Some(network) = self.network.as_mut().filter(|_| held) {
            network.metadata.deletion_timestamp = serde_json::from_str("\"2026-01-01T00:00:00Z\"").ok();
        } else {
            self.network = None;
        }
    }

    fn claim(&mut self, spec: AddressBlockSpec) -> Effect {
        let name = block_name(&spec.cidr);
        if self.blocks.contains_key(&name) {
            return Effect::Stale;
        }
        let mut block = AddressBlock::new(&name, spec);
        block.metadata.uid = Some(self.next());
        block.metadata.resource_version = Some(self.next());
        self.blocks.insert(name, block);
        Effect::Done
    }

    fn renew(&mut self, name: &str, uid: &str) -> Effect {
        let next = self.next();
        match self.blocks.get_mut(name) {
            Some(block) if block.uid().as_deref() == Some(uid) => {
                block.metadata.resource_version = Some(next);
                Effect::Done
            }
            _ => Effect::Stale,
        }
    }

    fn return_block(&mut self, name: &str, uid: &str, version: &str) -> Effect {
        let same = self.blocks.get(name).is_some_and(|block| {
            block.uid().as_deref() == Some(uid) && block.resource_version().as_deref() == Some(version)
        });
        if same && self.blocks.remove(name).is_some() { Effect::Done } else { Effect::Stale }
    }

    fn create(&mut self, node: &str, node_uid: &str) -> Effect {
        if self.node_networks.contains_key(node) {
            return Effect::Stale;
        }
        let mut network = NodeNetwork::new(node, NodeNetworkSpec::default());
        let owner =
            OwnerReference { kind: "Node".to_owned(), uid: node_uid.to_owned(), ..OwnerReference::default() };
        network.metadata.owner_references = Some(vec![owner]);
        network.metadata.uid = Some(self.next());
        network.metadata.resource_version = Some(self.next());
        self.node_networks.insert(node.to_owned(), network);
        Effect::Done
    }

    fn write(&mut self, node: &str, uid: &str, version: &str, spec: &NodeNetworkSpec) -> Effect {
        let next = self.next();
        match self.node_networks.get_mut(node) {
            Some(network)
                if network.uid().as_deref() == Some(uid)
                    && network.resource_version().as_deref() == Some(version) =>
            {
                network.spec = spec.clone();
                network.metadata.resource_version = Some(next);
                Effect::Done
            }
            _ => Effect::Stale,
        }
    }

    /// An agent writes its status, whatever the operators do.
    pub(crate) fn report(&mut self, node: &str, status: NodeNetworkStatus) {
        let next = self.next();
        if let Some(network) = self.node_networks.get_mut(node) {
            network.status = Some(status);
            network.metadata.resource_version = Some(next);
        }
    }

    fn is_owned_by(&self, node: &str, node_uid: &str) -> bool {
        let owners = self.node_networks.get(node).map(ResourceExt::owner_references);
        owners.is_some_and(|owners| owners.iter().any(|owner| owner.uid == node_uid))
    }
}

/// One client of the cluster. Clones see the same state.
#[derive(Clone, Default)]
pub(crate) struct FakeCluster(Arc<Mutex<State>>);

impl FakeCluster {
    /// A cluster with a network of this spec and these nodes.
    pub(crate) fn new(spec: ClusterNetworkSpec, nodes: &[&str]) -> Self {
        let fake = Self::default();
        fake.change(|state| {
            let mut network = ClusterNetwork::new("default", spec);
            network.metadata.uid = Some(state.next());
            state.network = Some(network);
            for name in nodes {
                state.join(name);
            }
        });
        fake
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state behind the operators' back.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.lock())
    }

    /// One call of the API: others may go first, then it happens at once.
    async fn call<T>(&self, call: impl FnOnce(&mut State) -> T) -> T {
        Yield(false).await;
        call(&mut self.lock())
    }

    async fn finalizer(&self, hold: bool) -> Effect {
        self.call(|state| {
            let Some(network) = state.network.as_mut() else { return Effect::Stale };
            let finalizers = network.finalizers_mut();
            finalizers.retain(|finalizer| finalizer != CLEANUP);
            if hold {
                finalizers.push(CLEANUP.to_owned());
            } else if network.metadata.deletion_timestamp.is_some() {
                state.network = None;
            }
            Effect::Done
        })
        .await
    }

    async fn release(&self, name: &str, uid: &str, node: &str, node_uid: &str) -> Effect {
        if self.call(|state| state.is_owned_by(node, node_uid)).await {
            return Effect::Stale;
        }
        self.call(|state| {
            let same = state.blocks.get(name).is_some_and(|block| block.uid().as_deref() == Some(uid));
            if same && state.blocks.remove(name).is_some() { Effect::Done } else { Effect::Stale }
        })
        .await
    }
}

impl Cluster for FakeCluster {
    async fn observe(&self) -> Result<Observed, Error> {
        let network = self.call(|state| state.network.clone()).await;
        let blocks = self.call(|state| state.blocks.values().cloned().collect()).await;
        let node_networks = self.call(|state| state.node_networks.values().cloned().collect()).await;
        let nodes = self.call(|state| state.nodes.clone()).await;
        let parts = self.call(|state| state.parts.clone()).await;
        let has = |kind: &str| parts.iter().any(|part| part.kind == kind);
        let has_set = |dns: bool| {
            parts.iter().any(|part| part.kind == "DaemonSet" && (*part == daemon_set_name()) == dns)
        };
        let service = has("Service").then(|| DnsService {
            ours: true,
            leads_to_us: true,
            cluster_ip: "10.96.0.10".parse().ok(),
        });
        Ok(Observed {
            network,
            blocks,
            node_networks,
            nodes,
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            agents: has_set(false).then(Workload::default),
            dns: DnsSeen {
                servers: has("Deployment").then(Workload::default),
                node_servers: has_set(true).then(Workload::default),
                service,
                policy: has("NetworkPolicy"),
            },
            ..Observed::default()
        })
    }

    fn is_done(&self, step: &Step) -> bool {
        matches!(step, Step::Apply(part) if self.lock().parts.contains(&part.name))
    }

    async fn apply(&self, step: &Step) -> Result<Effect, Error> {
        Ok(match step {
            Step::HoldNetwork => self.finalizer(true).await,
            Step::LetNetworkGo => self.finalizer(false).await,
            Step::CreateNodeNetwork { node, node_uid } => {
                self.call(|state| state.create(node, node_uid)).await
            }
            Step::DeleteNodeNetwork { name, uid } => {
                self.call(|state| {
                    state
                        .node_networks
                        .retain(|key, network| key != name || network.uid().as_ref() != Some(uid));
                    Effect::Done
                })
                .await
            }
            Step::ClaimBlock { cidr, node, node_uid } => {
                let spec = AddressBlockSpec { cidr: *cidr, node: node.clone(), node_uid: node_uid.clone() };
                self.call(|state| state.claim(spec)).await
            }
            Step::ReleaseBlock { name, uid, node, node_uid } => self.release(name, uid, node, node_uid).await,
            Step::ReturnBlock { name, uid, resource_version } => {
                self.call(|state| state.return_block(name, uid, resource_version)).await
            }
            Step::WriteNodeNetwork { node, uid, resource_version, entering, spec } => {
                for (name, claim) in entering {
                    if self.call(|state| state.renew(name, claim)).await == Effect::Stale {
                        return Ok(Effect::Stale);
                    }
                }
                self.call(|state| state.write(node, uid, resource_version, spec)).await
            }
            Step::TakeOver(_) => self.call(|_| Effect::Done).await,
            Step::Apply(part) => {
                self.call(|state| state.parts.push(part.name.clone())).await;
                Effect::Done
            }
            Step::Delete(name) => {
                self.call(|state| state.parts.retain(|part| part != name)).await;
                Effect::Done
            }
        })
    }

    async fn report(&self, _: &ClusterNetwork, status: &ClusterNetworkStatus) -> Result<(), Error> {
        self.call(|state| {
            if let Some(network) = &mut state.network {
                network.status = Some(status.clone());
            }
        })
        .await;
        Ok(())
    }

    /// What this cluster holds is typed, so that all of it can be read.
    async fn report_unreadable(&self, _: &Unreadable, _: &[Value]) -> Result<(), Error> {
        Ok(())
    }
}

/// Pending once.
struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        Poll::Pending
    }
}
