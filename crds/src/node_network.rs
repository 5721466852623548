//! `NodeNetwork`: what one node has to do, from the operator, and what it does, from its agent.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

pub use crate::cluster_network::{Encapsulation, Masquerade, PoolState, Usage};
use crate::text::{CidrText, IpText};

/// What one node has to do. Written by the operator alone.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "netkeel.io",
    version = "v1alpha1",
    kind = "NodeNetwork",
    status = "NodeNetworkStatus",
    shortname = "nnet",
    category = "netkeel",
    derive = "PartialEq",
    doc = "The network of one node, named after it: `spec` from the operator, `status` from the node's agent.",
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name": "State", "type": "string", "jsonPath": ".spec.state"}"#,
    printcolumn = r#"{"name": "Address", "type": "string", "jsonPath": ".spec.nodeAddresses[0]"}"#,
    printcolumn = r#"{"name": "Blocks", "type": "string", "jsonPath": ".spec.blocks"}"#,
    printcolumn = r#"{"name": "Used", "type": "integer", "jsonPath": ".status.addresses.used"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].message", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkSpec {
    /// Addresses of the node itself, the primary one first; overlay packets to the node's pods go there.
    #[serde(default)]
    #[schemars(with = "Vec<IpText>", length(max = 16))]
    pub node_addresses: Vec<IpAddr>,
    /// Blocks of addresses for the node's pods. The first address of the first block of a family is the node's own on the overlay.
    #[serde(default)]
    #[schemars(with = "Vec<CidrText>", length(max = 256))]
    pub blocks: Vec<IpNet>,
    /// Blocks that the node gives back: pods get no address of them any more. One that `blocks` lacks is the node's no longer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["cidr"]))]
    pub releasing: Vec<BlockRelease>,
    /// What is the same on all nodes.
    #[serde(default)]
    pub config: NodeConfig,
    /// Hash of `nodeAddresses`, `blocks`, `releasing`, `config` and `state`; the agent repeats it in `status.appliedRevision`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub revision: String,
    /// W3C traceparent of the change that led to this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub traceparent: Option<String>,
    /// Removing asks the agent to leave the node as it was before.
    #[serde(default)]
    pub state: State,
}

/// A block on its way back to its pool.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BlockRelease {
    /// The block.
    #[schemars(with = "CidrText")]
    pub cidr: IpNet,
    /// Another one each time that the block is marked: what an agent said of an earlier time does not count.
    #[schemars(length(min = 1, max = 64))]
    pub ticket: String,
}

/// Whether the node is to have a network.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The agent serves the node's pods.
    #[default]
    Active,
    /// The agent takes everything away and reports `Removed`.
    Removing,
}

/// What is the same on all nodes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeConfig {
    /// Addresses of all pods of the cluster.
    #[serde(rename = "podCIDRs")]
    #[schemars(with = "Vec<CidrText>", length(max = 64))]
    pub pod_cidrs: Vec<IpNet>,
    /// The pools that these addresses are in, in the order in which they are used.
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub pools: Vec<NodePool>,
    /// How packets of pods travel to other nodes.
    pub encapsulation: Encapsulation,
    /// UDP port of the overlay.
    pub vxlan_port: u16,
    /// Largest packet of pods in bytes; 0 takes that of the node's link, less the overlay's header unless `encapsulation` is None.
    pub mtu: u16,
    /// Hiding pods behind the node's address.
    pub masquerade: Masquerade,
    /// Collector of traces, OTLP over gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub traces_endpoint: Option<String>,
}

/// What an agent has to know of a pool.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodePool {
    /// Name of the pool.
    pub name: String,
    /// Where its addresses lie, at most one network of each family.
    #[schemars(with = "Vec<CidrText>", length(max = 2))]
    pub cidrs: Vec<IpNet>,
    /// Networks in it that no pod is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<CidrText>", length(max = 64))]
    pub reserved: Vec<IpNet>,
    /// Namespaces whose pods may have its addresses; all where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Whether its pods are hidden behind the node's address; left out: as `config.masquerade.enabled` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masquerade: Option<bool>,
    /// Draining gives no pod an address.
    #[serde(default, skip_serializing_if = "PoolState::is_active")]
    pub state: PoolState,
}

/// What the node's agent did and found. Written by that agent alone.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeNetworkStatus {
    /// `spec.revision` that is in force on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_revision: Option<String>,
    /// Ready, `PolicyReady`, `AddressesAvailable`, `PathsReady`, and Removed once the node is as before; each message says what to do.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Use of the node's blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Usage>,
    /// Use of each block of `spec.blocks` as `appliedRevision` has them.
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["cidr"]))]
    pub blocks: Vec<BlockUsage>,
    /// Where pods wait for addresses that no block of the node has: CIDRs of pools that need another block here, or single addresses.
    #[schemars(with = "Vec<CidrText>", length(max = 64))]
    pub wanted: Vec<IpNet>,
    /// Those of `spec.releasing`, each as it is marked there, in which no address is in use or at rest: the agent gives none of them to
    /// a pod as long as they are marked so, not even after a restart.
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["cidr"]))]
    pub released: Vec<BlockRelease>,
    /// What the agent found and loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datapath: Option<Datapath>,
    /// W3C traceparent of the agent's span that applied `appliedRevision`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Use of one block.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BlockUsage {
    /// The block.
    #[schemars(with = "CidrText")]
    pub cidr: IpNet,
    /// Addresses of pods in use, those at rest included.
    pub used: u32,
    /// Addresses that pods can have.
    pub capacity: u32,
    /// No pod has had an address of it for a minute.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idle: bool,
}

/// What the agent found and loaded.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Datapath {
    /// Release of the running kernel, as `uname -r` prints it.
    pub kernel: String,
    /// Largest packet of pods in bytes that is in force.
    pub mtu: u16,
    /// Kernel programs that are attached.
    pub programs: Vec<String>,
    /// Device of the overlay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vxlan: Option<Overlay>,
}

/// Device of the overlay.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Overlay {
    /// Name of the device.
    pub device: String,
    /// UDP port in force.
    pub port: u16,
    /// The node's own address on the overlay.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IpText>")]
    pub address: Option<IpAddr>,
}
