//! What this node's kernel has to hold, from what the API says of all nodes. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use netkeel_core::{
    address::{Address, Addresses},
    ipam::Layout,
    node::Node,
};
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
    /// The object has no address of the node.
    #[error("NodeNetwork {node} has no address in spec.nodeAddresses: check the InternalIP of the Node")]
    NoAddress {
        /// Name of the node.
        node: String,
    },
    /// The node has no block.
    #[error(
        "NodeNetwork {node} has no block in spec.blocks: the operator assigns it, or the pool is used up"
    )]
    NoBlock {
        /// Name of the node.
        node: String,
    },
}

/// What this node's kernel has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The node's addresses on the underlay.
    pub node: Addresses,
    /// The node's own addresses inside the overlay.
    pub overlay: Addresses,
    /// Those that it may have had before.
    pub former: Vec<IpAddr>,
    /// Blocks of the node's own pods.
    pub blocks: Vec<IpNet>,
    /// The pools, and the node's blocks of them, from which its pods get addresses.
    pub layout: Arc<Layout>,
    /// MTU of pods, when it is not taken from the underlay; bytes.
    pub mtu: Option<u32>,
    /// Blocks of other nodes' pods, and where those nodes are.
    pub tunnels: HashMap<Block, Tunnel>,
    /// Blocks that are reached over the overlay.
    pub remote: Vec<IpNet>,
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
    mine.addresses.first().ok_or_else(|| Waiting::NoAddress { node: node() })?;
    mine.blocks.first().ok_or_else(|| Waiting::NoBlock { node: node() })?;
    let (mut tunnels, mut remote) = (HashMap::new(), Vec::new());
    for (block, node) in others.into_iter().flat_map(|other| {
        let met = mine.addresses.meet(&other.addresses);
        other.blocks.iter().map(move |block| (*block, met))
    }) {
        let Some(node) = node.filter(|_| !mine.blocks.contains(&block)) else { continue };
        tunnels.insert(Block::new(block.network(), block.prefix_len()), Tunnel { node: Address::from(node) });
        remote.push(block);
    }
    Ok(Desired {
        node: mine.addresses,
        overlay: mine.overlay_addresses(),
        former: mine.former_overlay_addresses().collect(),
        blocks: mine.blocks.clone(),
        layout: mine.layout.clone(),
        mtu: mine.config.mtu,
        tunnels,
        remote,
        masquerade: masquerade::Wanted {
            vxlan_port: mine.config.vxlan_port,
            pods: mine.config.pods.clone(),
            masqueraded: mine.config.masqueraded.clone(),
            excluded: mine.config.not_masqueraded.clone(),
        },
        revision: mine.revision.clone(),
    })
}

impl Desired {
    /// The overlay's device over an underlay with this MTU.
    #[must_use]
    pub fn device(&self, underlay_mtu: u32) -> overlay::Wanted {
        let over_ipv6 = self.node.ipv4.is_none() || self.tunnels.values().any(|tunnel| !tunnel.node.is_v4());
        let overhead = if over_ipv6 { overlay::OVERHEAD_IPV6 } else { overlay::OVERHEAD };
        let mtu = self.mtu.unwrap_or_else(|| underlay_mtu.saturating_sub(overhead));
        let port = self.masquerade.vxlan_port;
        overlay::Wanted { port, mtu, node: self.node, addresses: self.overlay, over_ipv6 }
    }

    /// The routes to blocks, through the overlay's device. A block of a family in which the node has none of its own is not reached:
    /// nobody could answer.
    #[must_use]
    pub fn routes(&self, ifindex: u32) -> BTreeMap<IpNet, Way> {
        let own = self.blocks.iter().map(|block| (*block, Way::Unreachable));
        let remote = self.remote.iter().filter_map(|block| {
            let source = self.overlay.like(block.network())?;
            Some((*block, Way::Overlay { ifindex, source }))
        });
        remote.chain(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use netkeel_core::node::NodeConfig;

    use super::*;

    fn node(number: u8) -> Node {
        Node {
            name: format!("node-{number}").into(),
            addresses: Addresses::of([IpAddr::from([172, 18, 0, number])]),
            blocks: vec![format!("10.244.{number}.0/26").parse().unwrap()],
            layout: Arc::default(),
            config: NodeConfig {
                pods: vec!["10.244.0.0/16".parse().unwrap()],
                vxlan_port: 8472,
                mtu: None,
                masqueraded: vec!["10.244.0.0/16".parse().unwrap()],
                not_masqueraded: vec![],
                traces_endpoint: None,
            },
            revision: "r1".to_owned(),
            traceparent: None,
            removing: false,
        }
    }

    /// The same with both families, or with IPv6 alone.
    fn with_ipv6(number: u8, only: bool) -> Node {
        let mut node = node(number);
        if only {
            node.addresses.ipv4 = None;
            node.blocks.clear();
        }
        node.addresses.ipv6 = Some(format!("fd00:18::{number}").parse().unwrap());
        node.blocks.push(format!("fd00:10:244::{number}00/122").parse().unwrap());
        node
    }

    fn tunnel(desired: &Desired, block: &str) -> String {
        let block: IpNet = block.parse().unwrap();
        desired.tunnels[&Block::new(block.network(), block.prefix_len())].node.to_string()
    }

    #[test]
    fn other_nodes_blocks_become_tunnels_and_routes_and_the_own_are_unreachable() {
        let nodes = [node(1), node(2), node(3)];
        let desired = desired("node-2", nodes.iter()).unwrap();
        assert_eq!(desired.overlay.to_string(), "10.244.2.0");
        assert_eq!(tunnel(&desired, "10.244.3.0/26"), "172.18.0.3");
        assert_eq!(desired.tunnels.len(), 2);
        let overlay = Way::Overlay { ifindex: 7, source: Ipv4Addr::new(10, 244, 2, 0).into() };
        let ways: Vec<_> = desired.routes(7).into_values().collect();
        assert_eq!(ways, [overlay, Way::Unreachable, overlay]);
    }

    #[test]
    fn both_families_travel_over_ipv4_where_both_nodes_have_it() {
        let nodes = [with_ipv6(1, false), with_ipv6(2, false)];
        let desired = desired("node-1", nodes.iter()).unwrap();
        assert_eq!(desired.overlay.to_string(), "10.244.1.0, fd00:10:244::100");
        for block in ["10.244.2.0/26", "fd00:10:244::200/122"] {
            assert_eq!(tunnel(&desired, block), "172.18.0.2", "{block}");
        }
        let routes = desired.routes(7);
        let source = "fd00:10:244::100".parse().unwrap();
        let way = routes[&"fd00:10:244::200/122".parse().unwrap()];
        assert_eq!(way, Way::Overlay { ifindex: 7, source });
        assert_eq!(routes[&"fd00:10:244::100/122".parse().unwrap()], Way::Unreachable);
        assert_eq!((desired.device(1500).mtu, desired.device(1500).over_ipv6), (1450, false));
    }

    #[test]
    fn nodes_with_ipv6_alone_meet_over_it_with_a_smaller_mtu() {
        let nodes = [with_ipv6(1, true), with_ipv6(2, true), with_ipv6(3, false)];
        let alone = desired("node-1", nodes.iter()).unwrap();
        assert_eq!(tunnel(&alone, "fd00:10:244::200/122"), "fd00:18::2");
        assert_eq!(tunnel(&alone, "fd00:10:244::300/122"), "fd00:18::3");
        assert_eq!((alone.device(1500).mtu, alone.device(1500).over_ipv6), (1430, true));
        assert!(!alone.routes(7).contains_key(&"10.244.3.0/26".parse().unwrap()), "nobody could answer");
        let both = desired("node-3", nodes.iter()).unwrap();
        assert_eq!(both.device(1500).mtu, 1430, "some packets travel over IPv6");
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
        nodes[0].addresses = Addresses::default();
        assert_eq!(desired("node-1", nodes.iter()), Err(Waiting::NoAddress { node: "node-1".to_owned() }));
    }

    #[test]
    fn a_node_without_an_address_is_left_out_and_a_block_of_two_nodes_stays_ours() {
        let mut nodes = [node(1), node(2), node(3)];
        nodes[1].addresses = Addresses::default();
        nodes[2].blocks = nodes[0].blocks.clone();
        let desired = desired("node-1", nodes.iter()).unwrap();
        assert!(desired.tunnels.is_empty() && desired.remote.is_empty());
    }
}
