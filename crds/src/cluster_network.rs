//! `ClusterNetwork`: the one object that a user edits. Every field has a default, so `spec: {}` is a network.

pub mod dns;
mod observability;
mod pod_network;
mod status;

pub use crate::text::{Mtu, Upstream};
pub use dns::{Dns, EmptyServices, PodRecords, RateLimit, SearchPath, Tls};
pub use observability::{COLLECTOR, Observability, SamplingRatios, Traces};
pub use pod_network::{
    AddressPool, BlockSizes, Encapsulation, Ipam, Masquerade, PodNetwork, PoolState, Vxlan,
};
pub use status::{ClusterNetworkStatus, Effective, PoolPhase, PoolStatus, Rollout, Usage};

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A pool goes only when the status says that nothing of it is in use.
const POOLS_STAY: &str = "oldSelf.spec.podNetwork.pools.all(p, self.spec.podNetwork.pools.exists(q, q.name == p.name) || \
    (p.state == 'Draining' && has(self.status) && has(self.status.pools) && \
    self.status.pools.exists(s, s.name == p.name) && self.status.pools.all(s, s.name != p.name || s.state == 'Removable')))";
const POOLS_STAY_MESSAGE: &str = "a pool that may be in use cannot be removed: set its state to Draining, delete or restart its pods, and \
    remove it when status.pools says Removable";

/// What the user wants of the cluster's network. The operator never writes it.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "netkeel.io",
    version = "v1alpha1",
    kind = "ClusterNetwork",
    status = "ClusterNetworkStatus",
    shortname = "cnet",
    category = "netkeel",
    derive = "PartialEq",
    doc = "The network of the whole cluster. There is one, named `default`.",
    validation = Rule::new("self.metadata.name == 'default'").message("the one ClusterNetwork is named default"),
    validation = Rule::new(POOLS_STAY).message(POOLS_STAY_MESSAGE),
    printcolumn = r#"{"name": "Available", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Available')].status"}"#,
    printcolumn = r#"{"name": "Progressing", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Progressing')].status"}"#,
    printcolumn = r#"{"name": "Degraded", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Degraded')].status"}"#,
    printcolumn = r#"{"name": "Pods", "type": "string", "jsonPath": ".status.effective.podCIDRs"}"#,
    printcolumn = r#"{"name": "Nodes", "type": "string", "jsonPath": ".status.rollout.summary"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Available')].message", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkSpec {
    /// Addresses of pods and the way packets travel between nodes.
    #[serde(default)]
    pub pod_network: PodNetwork,
    /// Names of the cluster, and the way to names outside it.
    #[serde(default)]
    pub dns: Dns,
    /// What the network's own programs tell about their work.
    #[serde(default)]
    pub observability: Observability,
}
