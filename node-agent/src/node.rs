//! What the agent knows of its own node, as the CNI server needs it.
//! Published whole through a watch channel; `None` until the node's first `NodeNetwork` was seen, from the API or from disk.

use std::sync::Arc;

use netkeel_core::{address::Addresses, ipam::Layout};

/// The node as its `NodeNetwork` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Programs are loaded, routes and tunnels stand, Services are in the kernel: a pod that is added now works.
    pub ready: bool,
    /// The pools, and this node's blocks of them.
    pub layout: Arc<Layout>,
    /// The node's addresses, from which it talks to its pods; an interface had the first when the node was set up last.
    pub addresses: Addresses,
    /// MTU of pod links, bytes.
    pub mtu: u32,
    /// Revision of the configuration that is in force.
    pub revision: String,
}

/// How the CNI server learns of changes.
pub type NodeWatch = tokio::sync::watch::Receiver<Option<Arc<NodeState>>>;
