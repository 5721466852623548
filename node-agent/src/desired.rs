//! What this node's kernel has to hold, from what the API says of all nodes. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use netkeel_core::{
    address::{Address, Addresses},
    ipam::Layout,
    node::{Encapsulation, Node},
};
use netkeel_dataplane_common::tunnels::{Block, Tunnel};

use crate::{
    masquerade, overlay,
    reach::{Reach, Subnet, reach},
    route::Way,
};

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
    /// How packets travel to other nodes.
    pub encapsulation: Encapsulation,
    /// Blocks of other nodes' pods.
    pub remote: Vec<Remote>,
    /// The nftables table.
    pub masquerade: masquerade::Wanted,
    /// Revision of the node's configuration.
    pub revision: String,
}

/// A block of another node's pods, and where that node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The block.
    pub block: IpNet,
    /// Name of the node.
    pub name: Arc<str>,
    /// Where the two nodes meet on the underlay: the other end of the tunnel.
    pub node: IpAddr,
    /// The node's address of the block's family, where both nodes have one.
    pub gateway: Option<IpAddr>,
    /// How that node is told to send its packets.
    pub encapsulation: Encapsulation,
}

/// The ways to other nodes from the interfaces as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// For the programs.
    pub tunnels: HashMap<Block, Tunnel>,
    /// For the host stack: blocks of other nodes, and the own ones.
    pub routes: BTreeMap<IpNet, Way>,
    /// Indices of the interfaces behind which nodes are the next hops.
    pub devices: BTreeSet<u32>,
    /// Nodes to whose blocks somebody else has to provide routes.
    pub elsewhere: BTreeSet<Arc<str>>,
    /// Nodes that are reached through the tunnel.
    pub tunnelled: BTreeSet<Arc<str>>,
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
    let remote = |other: &Node, block: IpNet| {
        let node = mine.addresses.meet(&other.addresses).filter(|_| !mine.blocks.contains(&block))?;
        let like = |addresses: &Addresses| addresses.like(block.network());
        let gateway = like(&other.addresses).filter(|_| like(&mine.addresses).is_some());
        Some(Remote {
            block,
            name: other.name.clone(),
            node,
            gateway,
            encapsulation: other.config.encapsulation,
        })
    };
    let remote = others
        .into_iter()
        .flat_map(|other| other.blocks.iter().filter_map(move |block| remote(other, *block)));
    Ok(Desired {
        node: mine.addresses,
        overlay: mine.overlay_addresses(),
        former: mine.former_overlay_addresses().collect(),
        blocks: mine.blocks.clone(),
        layout: mine.layout.clone(),
        mtu: mine.config.mtu,
        encapsulation: mine.config.encapsulation,
        remote: remote.collect(),
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
    /// The overlay's device over an underlay with this MTU. It is there whatever the encapsulation: it carries the node's own addresses among
    /// pods, and lets in what nodes send that are told otherwise.
    #[must_use]
    pub fn device(&self, underlay_mtu: u32) -> overlay::Wanted {
        let over_ipv6 = self.over_ipv6();
        let fits = underlay_mtu.saturating_sub(overhead(over_ipv6));
        let mtu = self.mtu.filter(|_| self.encapsulation != Encapsulation::None).unwrap_or(fits);
        let port = self.masquerade.vxlan_port;
        overlay::Wanted { port, mtu, node: self.node, addresses: self.overlay, over_ipv6 }
    }

    /// MTU of pods over an underlay with this MTU, and where nodes are next hops behind interfaces, over those with their smallest; bytes.
    /// Where there may be a tunnel to some node its headers have room.
    #[must_use]
    pub fn pod_mtu(&self, underlay: u32, direct: Option<u32>) -> u32 {
        let fits = underlay.saturating_sub(self.overhead());
        self.mtu.unwrap_or_else(|| direct.map_or(fits, |direct| direct.min(fits)))
    }

    /// What outer headers may take of the underlay's MTU, bytes.
    #[must_use]
    pub fn overhead(&self) -> u32 {
        if self.encapsulation == Encapsulation::None { 0 } else { overhead(self.over_ipv6()) }
    }

    fn over_ipv6(&self) -> bool {
        self.node.ipv4.is_none() || self.remote.iter().any(|remote| remote.node.is_ipv6())
    }

    /// The ways to other nodes' blocks, the tunnel's through the overlay's device `ifindex`, and none to what of the own blocks is not in use.
    /// The host stack does not reach a block of a family in which the node has none of its own: nobody could answer.
    #[must_use]
    pub fn paths(&self, ifindex: u32, subnets: &[Subnet]) -> Paths {
        let mut paths = Paths::default();
        for remote in &self.remote {
            let key = Block::new(remote.block.network(), remote.block.prefix_len());
            let node = Tunnel::to(Address::from(remote.node));
            let source = self.overlay.like(remote.block.network());
            let (tunnel, way) =
                match reach((self.encapsulation, remote.encapsulation), remote.gateway, subnets) {
                    Reach::Tunnel => {
                        paths.tunnelled.insert(remote.name.clone());
                        (node, source.map(|source| Way::Overlay { ifindex, source }))
                    }
                    Reach::Direct { ifindex, gateway } => {
                        paths.devices.insert(ifindex);
                        let way = source.map(|source| Way::Direct { ifindex, gateway, source });
                        (node.direct(gateway.into(), ifindex), way)
                    }
                    Reach::Elsewhere => {
                        paths.elsewhere.insert(remote.name.clone());
                        (node.by_stack(), None)
                    }
                };
            paths.tunnels.insert(key, tunnel);
            paths.routes.extend(way.map(|way| (remote.block, way)));
        }
        paths.routes.extend(self.blocks.iter().map(|block| (*block, Way::Unreachable)));
        paths
    }
}

/// What the tunnel's outer headers take, bytes.
fn overhead(over_ipv6: bool) -> u32 {
    if over_ipv6 { overlay::OVERHEAD_IPV6 } else { overlay::OVERHEAD }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use netkeel_core::node::NodeConfig;
    use netkeel_dataplane_common::tunnels;

    use super::*;

    fn node(number: u8) -> Node {
        Node {
            name: format!("node-{number}").into(),
            addresses: Addresses::of([IpAddr::from([172, 18, 0, number])]),
            blocks: vec![format!("10.244.{number}.0/26").parse().unwrap()],
            layout: Arc::default(),
            config: NodeConfig {
                pods: vec!["10.244.0.0/16".parse().unwrap()],
                encapsulation: Encapsulation::Vxlan,
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
        let tunnel = desired.paths(7, &[]).tunnels[&Block::new(block.network(), block.prefix_len())];
        assert_eq!(tunnel.way, tunnels::TUNNEL, "{block}");
        tunnel.node.to_string()
    }

    #[test]
    fn other_nodes_blocks_become_tunnels_and_routes_and_the_own_are_unreachable() {
        let nodes = [node(1), node(2), node(3)];
        let desired = desired("node-2", nodes.iter()).unwrap();
        assert_eq!(desired.overlay.to_string(), "10.244.2.0");
        assert_eq!(tunnel(&desired, "10.244.3.0/26"), "172.18.0.3");
        assert_eq!(desired.remote.len(), 2);
        let overlay = Way::Overlay { ifindex: 7, source: Ipv4Addr::new(10, 244, 2, 0).into() };
        let ways: Vec<_> = desired.paths(7, &[]).routes.into_values().collect();
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
        let routes = desired.paths(7, &[]).routes;
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
        assert!(
            !alone.paths(7, &[]).routes.contains_key(&"10.244.3.0/26".parse().unwrap()),
            "nobody could answer"
        );
        let both = desired("node-3", nodes.iter()).unwrap();
        assert_eq!(both.device(1500).mtu, 1430, "some packets travel over IPv6");
    }

    #[test]
    fn the_mtu_is_the_underlays_less_the_headers_unless_it_is_given() {
        let mut nodes = [node(1)];
        let mut mtus = |encapsulation, given| {
            nodes[0].config.encapsulation = encapsulation;
            nodes[0].config.mtu = given;
            let desired = desired("node-1", nodes.iter()).unwrap();
            (desired.pod_mtu(1500, Some(1480)), desired.pod_mtu(1500, None), desired.device(1500).mtu)
        };
        for (encapsulation, auto) in [
            (Encapsulation::Vxlan, (1450, 1450, 1450)),
            (Encapsulation::VxlanCrossSubnet, (1450, 1450, 1450)),
            (Encapsulation::None, (1480, 1500, 1450)),
        ] {
            assert_eq!(mtus(encapsulation, None), auto, "{encapsulation:?}");
        }
        assert_eq!(mtus(Encapsulation::Vxlan, Some(1400)), (1400, 1400, 1400));
        assert_eq!(
            mtus(Encapsulation::None, Some(1500)),
            (1500, 1500, 1450),
            "the tunnel's headers still need room"
        );
    }

    #[test]
    fn nodes_on_a_subnet_are_next_hops_in_each_family_and_the_others_are_tunnelled_or_somebody_elses() {
        let mut nodes = [with_ipv6(1, false), with_ipv6(2, false), node(3)];
        nodes[2].addresses = Addresses::of([IpAddr::from([198, 51, 100, 3])]);
        let nets = [(4, "172.18.0.1/16"), (5, "fd00:18::1/64")];
        let subnets = nets.map(|(ifindex, net)| Subnet { ifindex, net: net.parse().unwrap() });
        let mut paths = |encapsulation, others| {
            for node in &mut nodes {
                node.config.encapsulation = others;
            }
            nodes[0].config.encapsulation = encapsulation;
            let paths = desired("node-1", nodes.iter()).unwrap().paths(7, &subnets);
            let [four, six, far] = ["10.244.2.0/26", "fd00:10:244::200/122", "10.244.3.0/26"].map(|block| {
                let block: IpNet = block.parse().unwrap();
                let key = Block::new(block.network(), block.prefix_len());
                (paths.tunnels[&key], paths.routes.get(&block).copied())
            });
            (paths, four, six, far)
        };
        let node_2 = Tunnel::to(Address::v4([172, 18, 0, 2]));
        let node_3 = Tunnel::to(Address::v4([198, 51, 100, 3]));
        let source = IpAddr::from([10, 244, 1, 0]);
        let over = Some(Way::Overlay { ifindex: 7, source });
        let gateway = IpAddr::from([172, 18, 0, 2]);
        let hop = (node_2.direct(gateway.into(), 4), Some(Way::Direct { ifindex: 4, gateway, source }));
        let (gateway, source): (IpAddr, IpAddr) =
            ("fd00:18::2".parse().unwrap(), "fd00:10:244::100".parse().unwrap());
        let hop6 = (node_2.direct(gateway.into(), 5), Some(Way::Direct { ifindex: 5, gateway, source }));

        let (native, four, six, far) = paths(Encapsulation::None, Encapsulation::None);
        assert_eq!((four, six, far), (hop, hop6, (node_3.by_stack(), None)));
        assert_eq!(native.devices, BTreeSet::from([4, 5]));
        assert_eq!(native.elsewhere.iter().map(|name| &**name).collect::<Vec<_>>(), ["node-3"]);
        assert_eq!(native.routes[&"10.244.1.0/26".parse().unwrap()], Way::Unreachable);

        let (cross, four, six, far) = paths(Encapsulation::VxlanCrossSubnet, Encapsulation::VxlanCrossSubnet);
        assert_eq!((four, six, far), (hop, hop6, (node_3, over)));
        assert!(cross.elsewhere.is_empty());
        let names = |paths: &Paths| paths.tunnelled.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!((names(&native), names(&cross)), (vec![], vec!["node-3".to_owned()]));

        for modes in
            [(Encapsulation::None, Encapsulation::Vxlan), (Encapsulation::Vxlan, Encapsulation::None)]
        {
            let (switching, four, _, far) = paths(modes.0, modes.1);
            assert_eq!((four, far), ((node_2, over), (node_3, over)), "{modes:?}: one is not told yet");
            assert!(switching.devices.is_empty() && switching.elsewhere.is_empty());
            assert_eq!(names(&switching), ["node-2", "node-3"]);
        }
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
        assert!(desired.remote.is_empty());
    }
}
