//! What this node's kernel has to hold, from what the API says of all nodes. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnet::Ipv4Net;
use netkeel_core::{address::Address, ipam::Layout, node::Node};
use netkeel_dataplane_common::tunnels::{Block, Tunnel};

use crate::{masquerade, overlay, route::Way};

/// Why there is nothing to do for this node yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Waiting {
    /// The operator has not written the node's object, or it could not be read yet.
    #[error("NodeNetwork {node} is not known yet: the operator writes it")]
    NoObject {
        /// Name of the node.
        node: String,
    },
    /// The object has no IPv4 address of the node.
    #[error("NodeNetwork {node} has no IPv4 address in spec.nodeAddresses: check the InternalIP of the Node")]
    NoAddress {
        /// Name of the node.
        node: String,
    },
    /// The node has no block.
    #[error(
        "NodeNetwork {node} has no IPv4 block in spec.blocks: the operator assigns it, or the pool is used up"
    )]
    NoBlock {
        /// Name of the node.
        node: String,
    },
}

/// What this node's kernel has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The node's address on the underlay.
    pub node: Ipv4Addr,
    /// The node's own address inside the overlay.
    pub overlay: Ipv4Addr,
    /// Blocks of the node's own pods.
    pub blocks: Vec<Ipv4Net>,
    /// The pools, and the node's blocks of them, from which its pods get addresses.
    pub layout: Arc<Layout>,
    /// MTU of pods, when it is not taken from the underlay; bytes.
    pub mtu: Option<u32>,
    /// Blocks of other nodes' pods, and where those nodes are.
    pub tunnels: HashMap<Block, Tunnel>,
    /// Blocks that are reached over the overlay.
    pub remote: Vec<Ipv4Net>,
    /// The nftables table.
    pub masquerade: masquerade::Wanted,
    /// Revision of the node's configuration.
    pub revision: String,
}

/// What a node has to hold.
///
/// # Errors
/// What is still missing, when the node cannot be set up yet.
pub fn desired<'a>(own: &str, nodes: impl Iterator<Item = &'a Node>) -> Result<Desired, Waiting> {
    let node = || own.to_owned();
    let (mut mine, mut others) = (None, Vec::new());
    for each in nodes {
        if *each.name == *own { mine = Some(each) } else { others.push(each) }
    }
    let mine = mine.ok_or_else(|| Waiting::NoObject { node: node() })?;
    let address = mine.address.ok_or_else(|| Waiting::NoAddress { node: node() })?;
    let overlay = mine.overlay_address().ok_or_else(|| Waiting::NoBlock { node: node() })?;
    let (mut tunnels, mut remote) = (HashMap::new(), Vec::new());
    for (block, node) in
        others.into_iter().flat_map(|other| other.blocks.iter().map(|block| (*block, other.address)))
    {
        let Some(node) = node.filter(|_| !mine.blocks.contains(&block)) else { continue };
        tunnels.insert(Block::new(block.network(), block.prefix_len()), Tunnel { node: Address::from(node) });
        remote.push(block);
    }
    Ok(Desired {
        node: address,
        overlay,
        blocks: mine.blocks.clone(),
        layout: mine.layout.clone(),
        mtu: mine.config.mtu,
        tunnels,
        remote,
        masquerade: masquerade::Wanted {
            vxlan_port: mine.config.vxlan_port,
            pods: mine.config.pods.clone(),
            excluded: mine.config.not_masqueraded.clone(),
        },
        revision: mine.revision.clone(),
    })
}

impl Desired {
    /// The overlay's device over an underlay with this MTU.
    #[must_use]
    pub fn device(&self, underlay_mtu: u32) -> overlay::Wanted {
        let mtu = self.mtu.unwrap_or_else(|| underlay_mtu.saturating_sub(overlay::OVERHEAD));
        overlay::Wanted { port: self.masquerade.vxlan_port, mtu, node: self.node, address: self.overlay }
    }

    /// The routes to blocks, through the overlay's device.
    #[must_use]
    pub fn routes(&self, ifindex: u32) -> BTreeMap<Ipv4Net, Way> {
        let own = self.blocks.iter().map(|block| (*block, Way::Unreachable));
        let remote = self.remote.iter().map(|block| (*block, Way::Overlay { ifindex, source: self.overlay }));
        remote.chain(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use netkeel_core::node::NodeConfig;

    use super::*;

    fn node(number: u8) -> Node {
        let pods = vec![Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16)];
        Node {
            name: format!("node-{number}").into(),
            address: Some(Ipv4Addr::new(172, 18, 0, number)),
            blocks: vec![Ipv4Net::new_assert(Ipv4Addr::new(10, 244, number, 0), 26)],
            layout: Arc::default(),
            config: NodeConfig {
                pods,
                vxlan_port: 8472,
                mtu: None,
                not_masqueraded: Some(vec![]),
                traces_endpoint: None,
            },
            revision: "r1".to_owned(),
            traceparent: None,
            removing: false,
        }
    }

    #[test]
    fn other_nodes_blocks_become_tunnels_and_routes_and_the_own_are_unreachable() {
        let nodes = [node(1), node(2), node(3)];
        let desired = desired("node-2", nodes.iter()).unwrap();
        assert_eq!(desired.overlay, Ipv4Addr::new(10, 244, 2, 0));
        let tunnel = desired.tunnels[&Block::new(Ipv4Addr::new(10, 244, 3, 0), 26)];
        assert_eq!(tunnel.node, Ipv4Addr::new(172, 18, 0, 3).into());
        assert_eq!(desired.tunnels.len(), 2);
        let overlay = Way::Overlay { ifindex: 7, source: desired.overlay };
        let ways: Vec<_> = desired.routes(7).into_values().collect();
        assert_eq!(ways, [overlay, Way::Unreachable, overlay]);
    }

    #[test]
    fn the_mtu_is_the_underlays_less_the_headers_unless_it_is_given() {
        let mut nodes = [node(1)];
        assert_eq!(desired("node-1", nodes.iter()).unwrap().device(1500).mtu, 1450);
        nodes[0].config.mtu = Some(1400);
        assert_eq!(desired("node-1", nodes.iter()).unwrap().device(1500).mtu, 1400);
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut nodes = [node(1), node(2)];
        let missing = desired("node-3", nodes.iter()).unwrap_err();
        assert_eq!(missing, Waiting::NoObject { node: "node-3".to_owned() });
        nodes[0].blocks.clear();
        assert_eq!(desired("node-1", nodes.iter()), Err(Waiting::NoBlock { node: "node-1".to_owned() }));
        nodes[0].address = None;
        assert_eq!(desired("node-1", nodes.iter()), Err(Waiting::NoAddress { node: "node-1".to_owned() }));
    }

    #[test]
    fn a_node_without_an_address_is_left_out_and_a_block_of_two_nodes_stays_ours() {
        let mut nodes = [node(1), node(2), node(3)];
        nodes[1].address = None;
        nodes[2].blocks = nodes[0].blocks.clone();
        let desired = desired("node-1", nodes.iter()).unwrap();
        assert!(desired.tunnels.is_empty() && desired.remote.is_empty());
    }
}
