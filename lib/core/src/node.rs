//! Nodes as the data path sees them: what each node's own agent has to do, and where the others' pods are.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{address::Addresses, ipam::Layout};

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name of the Node object.
    pub name: Arc<str>,
    /// Its primary addresses on the underlay.
    pub addresses: Addresses,
    /// Blocks of its pods' addresses, in the order given.
    pub blocks: Vec<IpNet>,
    /// The pools of the cluster and the node's blocks, as its own agent gives them to pods.
    pub layout: Arc<Layout>,
    /// Its configuration.
    pub config: NodeConfig,
    /// Revision of all that.
    pub revision: String,
    /// Trace of the change that led to the revision, W3C `traceparent`.
    pub traceparent: Option<String>,
    /// The agent has to take everything away.
    pub removing: bool,
}

/// How packets of pods travel to other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encapsulation {
    /// Through the tunnel.
    #[default]
    Vxlan,
    /// As they are to nodes on a subnet of this one, through the tunnel to all others.
    VxlanCrossSubnet,
    /// As they are; to nodes on no subnet of this one by somebody else's routes.
    None,
}

/// What is the same on all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Where the addresses of all pods lie.
    pub pods: Vec<IpNet>,
    /// How packets travel to other nodes.
    pub encapsulation: Encapsulation,
    /// UDP port of the overlay.
    pub vxlan_port: u16,
    /// MTU of pods, bytes; `None` takes the underlay's, less the overlay's headers where there may be some.
    pub mtu: Option<u32>,
    /// Pods that are hidden behind their node's address when they talk to the outside.
    pub masqueraded: Vec<IpNet>,
    /// Destinations that see pods' own addresses all the same.
    pub not_masqueraded: Vec<IpNet>,
    /// Collector of traces.
    pub traces_endpoint: Option<String>,
}

impl Node {
    /// The node's own addresses inside the overlay: of each family the first of its first block.
    #[must_use]
    pub fn overlay_addresses(&self) -> Addresses {
        Addresses::of(self.blocks.iter().map(IpNet::network))
    }

    /// Those that it may have had, in blocks that it gives back: connections from there go on until the block goes.
    pub fn former_overlay_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.blocks.iter().filter(|block| self.layout.is_releasing(block)).map(IpNet::network)
    }
}
