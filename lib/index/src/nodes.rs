//! All nodes, from their `NodeNetwork` objects.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use netkeel_core::{
    address::Addresses,
    ipam::{Layout, Pool, Releasing},
    name::ObjectName,
    node::{Encapsulation, Node, NodeConfig},
};
use netkeel_crds::{
    DEFAULT,
    node_network::{self, BlockRelease, NodeNetwork, NodeNetworkSpec, NodePool, State},
};

use crate::{Invalid, Problems, convert::policy::selector};

const KIND: &str = "NodeNetwork";
/// The port that Linux uses for VXLAN by default.
const DEFAULT_PORT: u16 = 8472;

/// All nodes by name, with the objects that they come from.
#[derive(Debug, Default)]
pub struct Nodes {
    nodes: BTreeMap<ObjectName, (Node, NodeNetworkSpec)>,
    problems: Problems,
}

impl Nodes {
    /// A node was made or changed. Returns whether that means anything new; a status alone does not.
    pub fn apply(&mut self, object: &NodeNetwork) -> bool {
        let name = name(object.metadata.name.as_deref().unwrap_or_default());
        match node(&name, &object.spec) {
            Ok(node) => {
                self.problems.clear(KIND, &name);
                let old = self.nodes.insert(name, (node.clone(), object.spec.clone()));
                old.is_none_or(|(old, _)| old != node)
            }
            Err(reason) => {
                self.problems.add(Invalid { kind: KIND, name, reason });
                false
            }
        }
    }

    /// A node is gone. Returns whether it was known.
    pub fn delete(&mut self, node: &str) -> bool {
        let name = name(node);
        self.problems.clear(KIND, &name);
        self.nodes.remove(&name).is_some()
    }

    /// These are all nodes that there are. `unread` are names of objects that exist but could not be decoded.
    /// Returns whether anything changed.
    pub fn reset(&mut self, objects: &[NodeNetwork], unread: &[ObjectName]) -> bool {
        let present = |known: &ObjectName| {
            unread.iter().any(|name| name.name == known.name)
                || objects.iter().any(|object| object.metadata.name.as_deref() == Some(&*known.name))
        };
        self.problems.retain(KIND, present);
        let before = self.nodes.len();
        self.nodes.retain(|name, _| present(name));
        let gone = self.nodes.len() < before;
        objects.iter().fold(gone, |changed, object| self.apply(object) | changed)
    }

    /// An object could not be decoded: what was known of it stays in force.
    pub fn undecodable(&mut self, invalid: Invalid) {
        self.problems.add(invalid);
    }

    /// A node by name.
    #[must_use]
    pub fn get(&self, node: &str) -> Option<&Node> {
        self.nodes.get(&name(node)).map(|(node, _)| node)
    }

    /// All nodes, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().map(|(node, _)| node)
    }

    /// Addresses on the overlay of all nodes but this one, by name.
    #[must_use]
    pub fn overlay_of_others(&self, own: &str) -> BTreeMap<Arc<str>, Addresses> {
        let others = self.iter().filter(|node| *node.name != *own && !node.removing);
        others.map(|node| (node.name.clone(), node.overlay_addresses())).collect()
    }

    /// The objects again, as far as [`Nodes::reset`] needs them: what an agent keeps for a start without the API.
    #[must_use]
    pub fn objects(&self) -> Vec<NodeNetwork> {
        self.nodes.iter().map(|(name, (_, spec))| NodeNetwork::new(&name.name, spec.clone())).collect()
    }

    /// The objects that cannot be used now.
    #[must_use]
    pub fn problems(&self) -> &Problems {
        &self.problems
    }
}

fn name(node: &str) -> ObjectName {
    ObjectName::new("", node)
}

fn node(name: &ObjectName, spec: &NodeNetworkSpec) -> Result<Node, String> {
    let config = &spec.config;
    let masquerade = &config.masquerade;
    Ok(Node {
        name: name.name.clone(),
        addresses: Addresses::of(spec.node_addresses.iter().copied()),
        blocks: whole(&spec.blocks)?,
        layout: Arc::new(layout(spec)?),
        config: NodeConfig {
            pods: whole(&config.pod_cidrs)?,
            encapsulation: match config.encapsulation {
                node_network::Encapsulation::Vxlan => Encapsulation::Vxlan,
                node_network::Encapsulation::VxlanCrossSubnet => Encapsulation::VxlanCrossSubnet,
                node_network::Encapsulation::None => Encapsulation::None,
            },
            vxlan_port: if config.vxlan_port == 0 { DEFAULT_PORT } else { config.vxlan_port },
            mtu: (config.mtu > 0).then_some(u32::from(config.mtu)),
            masqueraded: masqueraded(config),
            not_masqueraded: masquerade.excluded_cidrs.iter().map(IpNet::trunc).collect(),
            traces_endpoint: config.traces_endpoint.clone(),
        },
        revision: spec.revision.clone(),
        traceparent: spec.traceparent.clone(),
        removing: spec.state == State::Removing,
    })
}

/// The pools, best first. An operator that names none has one.
fn pools(config: &node_network::NodeConfig) -> Cow<'_, [NodePool]> {
    if config.pools.is_empty() {
        let cidrs = config.pod_cidrs.clone();
        return vec![NodePool { name: DEFAULT.to_owned(), cidrs, ..NodePool::default() }].into();
    }
    config.pools.as_slice().into()
}

/// The addresses of pods that are masqueraded.
fn masqueraded(config: &node_network::NodeConfig) -> Vec<IpNet> {
    let (pools, enabled) = (pools(config), config.masquerade.enabled);
    let pools = pools.iter().filter(|pool| pool.masquerade.unwrap_or(enabled));
    pools.flat_map(|pool| pool.cidrs.iter().copied()).collect()
}

/// The pools and the node's blocks.
fn layout(spec: &NodeNetworkSpec) -> Result<Layout, String> {
    let pool = |pool: &NodePool| {
        let (cidrs, reserved) = (whole(&pool.cidrs)?, whole(&pool.reserved)?);
        let field = format!("spec.config.pools[{}].namespaceSelector", pool.name);
        let select = |of| selector(Some(of), &field);
        let namespaces = pool.namespace_selector.as_ref().map(select).transpose()?;
        let draining = !pool.state.is_active();
        Ok(Pool { name: pool.name.as_str().into(), cidrs, reserved, namespaces, draining })
    };
    let pools = pools(&spec.config).iter().map(pool).collect::<Result<_, String>>()?;
    let releasing = |BlockRelease { cidr, ticket }: &BlockRelease| Releasing {
        block: *cidr,
        ticket: ticket.as_str().into(),
    };
    let releasing = spec.releasing.iter().map(releasing).collect();
    Ok(Layout { pools, blocks: whole(&spec.blocks)?, releasing })
}

/// These networks; one with host bits is a mistake that must not be guessed away.
fn whole(nets: &[IpNet]) -> Result<Vec<IpNet>, String> {
    match nets.iter().find(|net| net.addr() != net.network()) {
        Some(net) => Err(format!("{net} is not the first address of its block")),
        None => Ok(nets.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use netkeel_core::ipam::Family;
    use serde_json::json;

    use super::*;

    fn object(name: &str, blocks: &[&str], revision: &str) -> NodeNetwork {
        let spec = json!({"nodeAddresses": ["fd00::2", "172.18.0.2"], "blocks": blocks, "revision": revision,
            "config": {"podCIDRs": ["10.244.0.0/16", "fd00:10:244::/56"], "vxlanPort": 4789, "encapsulation": "VXLANCrossSubnet",
                       "masquerade": {"enabled": true, "excludedCIDRs": ["192.168.1.7/16"]}}});
        NodeNetwork::new(name, serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn a_node_is_read_in_both_families() {
        let mut nodes = Nodes::default();
        let blocks = ["fd00:10:244::40/122", "10.244.0.64/26", "10.244.0.128/26"];
        assert!(nodes.apply(&object("a", &blocks, "1")));
        let node = nodes.get("a").unwrap();
        assert_eq!(node.addresses.to_string(), "172.18.0.2, fd00::2");
        assert_eq!(node.overlay_addresses().to_string(), "10.244.0.64, fd00:10:244::40");
        assert_eq!(node.config.pods, ["10.244.0.0/16", "fd00:10:244::/56"].map(|net| net.parse().unwrap()));
        assert_eq!(node.config.masqueraded, node.config.pods);
        assert_eq!(node.config.not_masqueraded, ["192.168.0.0/16".parse().unwrap()]);
        assert_eq!((node.config.vxlan_port, node.config.mtu), (4789, None));
        assert_eq!(node.config.encapsulation, Encapsulation::VxlanCrossSubnet);
        assert_eq!(
            NodeNetworkSpec::default().config.encapsulation,
            node_network::Encapsulation::Vxlan,
            "what an older operator, which does not say it, means"
        );
    }

    #[test]
    fn the_same_again_or_a_new_status_is_nothing_new() {
        let mut nodes = Nodes::default();
        nodes.apply(&object("a", &["10.244.0.64/26"], "1"));
        let mut reported = object("a", &["10.244.0.64/26"], "1");
        reported.status = Some(netkeel_crds::NodeNetworkStatus::default());
        assert!(!nodes.apply(&reported));
        assert!(!nodes.reset(&[reported], &[]));
        assert!(nodes.apply(&object("a", &["10.244.0.64/26"], "2")));
    }

    #[test]
    fn a_reset_forgets_who_is_gone_and_keeps_who_could_not_be_read() {
        let mut nodes = Nodes::default();
        for name in ["a", "b", "c"] {
            nodes.apply(&object(name, &[], "1"));
        }
        assert!(nodes.reset(&[object("b", &[], "1")], &[name("c")]));
        assert_eq!(nodes.iter().map(|node| &*node.name).collect::<Vec<_>>(), ["b", "c"]);
        assert!(nodes.delete("c") && !nodes.delete("c"));
    }

    #[test]
    fn an_impossible_block_is_named_and_the_last_good_ones_stay() {
        let mut nodes = Nodes::default();
        nodes.apply(&object("a", &["10.244.0.64/26"], "1"));
        assert!(!nodes.apply(&object("a", &["10.244.0.65/26"], "2")));
        assert_eq!(nodes.get("a").unwrap().revision, "1");
        let problem = nodes.problems().iter().next().unwrap().to_string();
        assert_eq!(problem, "NodeNetwork a is ignored: 10.244.0.65/26 is not the first address of its block");
    }

    #[test]
    fn blocks_of_both_families_and_pools_go_to_the_nodes_own_agent() {
        let mut nodes = Nodes::default();
        let mut object = object("a", &["10.244.0.64/26", "fd00:10:244::40/122"], "1");
        nodes.apply(&object);
        let old = nodes.get("a").unwrap().layout.clone();
        assert_eq!((&*old.pools[0].name, old.blocks.len()), ("default", 2), "of an operator without pools");
        let cidrs = object.spec.config.pod_cidrs.clone();
        object.spec.config.pools = serde_json::from_value(json!([
            {"name": "fast", "cidrs": ["10.1.0.0/16"], "reserved": ["10.1.0.7/32"]}, {"name": "default", "cidrs": cidrs},
        ]))
        .unwrap();
        nodes.apply(&object);
        let layout = nodes.get("a").unwrap().layout.clone();
        assert_eq!(layout.pools.iter().map(|pool| &*pool.name).collect::<Vec<_>>(), ["fast", "default"]);
        assert_eq!(layout.pools[0].reserved, ["10.1.0.7/32".parse().unwrap()]);
        assert_eq!(layout.overlay_address(Family::V6).unwrap().to_string(), "fd00:10:244::40");
    }

    #[test]
    fn a_pool_is_masqueraded_as_it_says_else_as_all_are() {
        for (enabled, own, expected) in [
            (true, None, &["10.1.0.0/16", "10.2.0.0/16"][..]),
            (true, Some(false), &["10.2.0.0/16"]),
            (false, None, &[]),
            (false, Some(true), &["10.1.0.0/16"]),
        ] {
            let mut object = object("a", &[], "1");
            let config = &mut object.spec.config;
            config.masquerade.enabled = enabled;
            config.pools = serde_json::from_value(json!([
                {"name": "one", "cidrs": ["10.1.0.0/16"], "masquerade": own}, {"name": "two", "cidrs": ["10.2.0.0/16"]},
            ]))
            .unwrap();
            let mut nodes = Nodes::default();
            nodes.apply(&object);
            let found: Vec<_> =
                nodes.get("a").unwrap().config.masqueraded.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{enabled} {own:?}");
        }
    }

    #[test]
    fn the_kept_objects_give_the_same_nodes_again() {
        let mut nodes = Nodes::default();
        nodes.apply(&object("a", &["10.244.0.64/26"], "1"));
        let text = serde_json::to_string(&nodes.objects()).unwrap();
        let mut again = Nodes::default();
        again.reset(&serde_json::from_str::<Vec<NodeNetwork>>(&text).unwrap(), &[]);
        assert_eq!(again.get("a"), nodes.get("a"));
    }
}
