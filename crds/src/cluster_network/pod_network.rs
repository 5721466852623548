//! `spec.podNetwork`: pools, overlay, masquerading.

use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

use crate::{
    rule::{DISJOINT, rules},
    text::{CidrText, Mtu},
};

/// No two pools have an address in common.
const POOLS_DISJOINT: &str = "self.all(p, self.all(q, p.name == q.name || p.cidrs.all(a, q.cidrs.all(b, \
    !(cidr(a).containsIP(cidr(b).ip()) || cidr(b).containsIP(cidr(a).ip()))))))";

/// Addresses of pods and the way packets travel between nodes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.ipam == 'Pools' || (self.pools.size() == 1 && !has(self.pools[0].nodeSelector) && !has(self.pools[0].namespaceSelector))",
     "with ipam NodePodCIDRs there is one pool, without selectors: its CIDRs are the --cluster-cidr of kube-controller-manager"),
])))]
pub struct PodNetwork {
    /// Where pods' addresses come from. Pools must not overlap; those of higher priority are used first.
    #[schemars(length(min = 1, max = 16))]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["name"],
        "x-kubernetes-validations" = rules(&[
            (POOLS_DISJOINT, "pools must not overlap"),
            ("oldSelf.all(p, self.all(q, p.name != q.name || p.cidrs.all(o, q.cidrs.exists(n, cidr(n).containsCIDR(cidr(o))))))",
             "a pool may grow, it never shrinks or moves: the new CIDR must contain the old one"),
            ("self.exists(p, p.state == 'Active')", "one pool at least must be Active, or no pod gets an address"),
            ("oldSelf.all(p, self.all(q, p.name != q.name || p.blockSizes == q.blockSizes))",
             "block sizes cannot be changed while the pool exists"),
        ]),
    ))]
    pub pools: Vec<AddressPool>,
    /// Who gives nodes their blocks: Netkeel, from the pools, or `NodePodCIDRs`: whoever writes `spec.podCIDRs` of the Node objects, out of
    /// the CIDRs of the one pool. It cannot be changed.
    #[schemars(extend("x-kubernetes-validations" = rules(&[
        ("self == oldSelf", "ipam cannot be changed while the network exists: uninstall Netkeel and install it anew"),
    ])))]
    pub ipam: Ipam,
    /// How packets of pods travel between nodes. May be changed at any time; connections go on.
    pub encapsulation: Encapsulation,
    /// The overlay between nodes.
    pub vxlan: Vxlan,
    /// Largest packet of pods in bytes, 1280 to 9216; Auto takes that of each node's link, less the overlay's header unless `encapsulation` is
    /// None.
    pub mtu: Mtu,
    /// Hiding pods behind their node's address when they talk to the outside.
    pub masquerade: Masquerade,
}

impl Default for PodNetwork {
    fn default() -> Self {
        Self {
            pools: vec![AddressPool::default()],
            ipam: Ipam::Pools,
            encapsulation: Encapsulation::default(),
            vxlan: Vxlan::default(),
            mtu: Mtu::Auto,
            masquerade: Masquerade::default(),
        }
    }
}

/// Who gives nodes their blocks of addresses.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ipam {
    /// The operator, from the pools.
    #[default]
    Pools,
    /// Whoever writes `spec.podCIDRs` of the Node objects.
    NodePodCIDRs,
}

/// A range of addresses for pods, given to nodes in blocks.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.cidrs.all(c, cidr(c).prefixLength() <= (cidr(c).ip().family() == 4 ? self.blockSizes.ipv4 : self.blockSizes.ipv6))",
     "a block must not be larger than the pool's CIDR"),
    ("self.reserved.all(r, self.cidrs.exists(c, cidr(c).containsCIDR(cidr(r))))",
     "what is reserved must lie in the pool's CIDRs"),
])))]
pub struct AddressPool {
    /// Name of the pool, unique among pools.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// One block in CIDR notation, or one of each family. It may grow, never shrink, and must not overlap Services or nodes.
    #[serde(rename = "cidrs")]
    #[schemars(with = "Vec<CidrText>", length(min = 1, max = 2))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[
        ("self.all(c, cidr(c).ip().isGlobalUnicast())", "a pool cannot lie in loopback, link-local or multicast addresses"),
        ("self.filter(c, cidr(c).ip().family() == 4).size() <= 1 && self.filter(c, cidr(c).ip().family() == 6).size() <= 1",
         "a pool has at most one CIDR of each family: make it larger, or make another pool"),
    ])))]
    pub cidrs: Vec<IpNet>,
    /// How many addresses a node gets at a time.
    pub block_sizes: BlockSizes,
    /// Nodes whose pods get addresses of the pool; all nodes where it is left out. A node keeps the blocks that its pods use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Namespaces whose pods may have addresses of the pool; all where it is left out. A node gets its first block of a pool with this
    /// selector when a pod there wants an address of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Of several pools for a pod the one of highest priority gives its addresses; of equal ones the first by name.
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// Networks inside the pool, `/32` or `/128` for single addresses, that no pod and no node is ever given.
    #[schemars(with = "Vec<CidrText>", length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules(&[
        (DISJOINT, "reserved networks must not overlap: leave out the smaller one"),
    ])))]
    pub reserved: Vec<IpNet>,
    /// Whether its pods are hidden behind their node's address when they talk to the outside. Left out: as `podNetwork.masquerade.enabled`
    /// says. `excludedCIDRs` hold for every pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masquerade: Option<bool>,
    /// Draining gives no pod an address any more and takes back blocks as they empty; pods that run keep theirs. When `status.pools` says
    /// Removable, the pool can be taken out of the list.
    pub state: PoolState,
}

/// Whether pods get addresses of a pool.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolState {
    /// They do.
    #[default]
    Active,
    /// They do not any more.
    Draining,
}

impl PoolState {
    /// Whether it is [`PoolState::Active`].
    #[must_use]
    pub fn is_active(&self) -> bool {
        *self == Self::Active
    }
}

impl Default for AddressPool {
    fn default() -> Self {
        Self {
            name: crate::DEFAULT.to_owned(),
            cidrs: vec![IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16))],
            block_sizes: BlockSizes::default(),
            node_selector: None,
            namespace_selector: None,
            priority: 0,
            reserved: Vec::new(),
            masquerade: None,
            state: PoolState::Active,
        }
    }
}

/// Prefix lengths of the blocks that nodes get.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockSizes {
    /// Prefix length of an IPv4 block: 26 is 64 addresses, of which one is the node's own on the overlay.
    #[schemars(range(min = 20, max = 30))]
    pub ipv4: u8,
    /// Prefix length of an IPv6 block: 122 is 64 addresses, of which one is the node's own on the overlay.
    #[schemars(range(min = 112, max = 126))]
    pub ipv6: u8,
}

impl BlockSizes {
    /// The prefix length of blocks of this network's family.
    #[must_use]
    pub fn of(self, net: &IpNet) -> u8 {
        match net {
            IpNet::V4(_) => self.ipv4,
            IpNet::V6(_) => self.ipv6,
        }
    }
}

impl Default for BlockSizes {
    fn default() -> Self {
        Self { ipv4: 26, ipv6: 122 }
    }
}

/// How packets of pods travel between nodes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encapsulation {
    /// Inside UDP packets of the nodes, whatever lies between them.
    #[default]
    #[serde(rename = "VXLAN")]
    Vxlan,
    /// As they are to nodes on a subnet of this node, inside UDP packets to all others.
    #[serde(rename = "VXLANCrossSubnet")]
    VxlanCrossSubnet,
    /// As they are: straight to nodes on a subnet of this node; to all others by routes that somebody else provides.
    None,
}

/// The overlay between nodes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Vxlan {
    /// UDP port of the overlay, the same on all nodes.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

impl Default for Vxlan {
    fn default() -> Self {
        Self { port: 8472 }
    }
}

/// Hiding pods behind their node's address when they talk to the outside.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Masquerade {
    /// Off where the outside has routes to pods. A pool may say otherwise for its own addresses.
    pub enabled: bool,
    /// Destinations that see the pod's own address all the same. Pods and their own node always do.
    #[serde(rename = "excludedCIDRs")]
    #[schemars(with = "Vec<CidrText>", length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules(&[
        (DISJOINT, "excluded CIDRs must not overlap: leave out the smaller one"),
    ])))]
    pub excluded_cidrs: Vec<IpNet>,
}

impl Default for Masquerade {
    fn default() -> Self {
        Self { enabled: true, excluded_cidrs: Vec::new() }
    }
}
