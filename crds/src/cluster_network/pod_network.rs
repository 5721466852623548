//! `spec.podNetwork`: pools, overlay, masquerading.

use ipnet::{IpNet, Ipv4Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

use crate::{
    rule::{DISJOINT, rules},
    text::{CidrText, Ipv4CidrText, Mtu},
};

/// Addresses of pods and the way packets travel between nodes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodNetwork {
    /// Where pods' addresses come from. Exactly one pool for now.
    #[schemars(length(min = 1, max = 1))]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["name"],
        "x-kubernetes-validations" = rules(&[
            ("oldSelf.all(p, p.cidrs.all(o, self.exists(q, q.cidrs.exists(n, cidr(n).containsCIDR(cidr(o))))))",
             "a pool may grow, it never shrinks or moves: the new CIDR must contain the old one"),
            ("oldSelf.all(p, self.all(q, p.blockSizes.ipv4 == q.blockSizes.ipv4))",
             "block sizes cannot be changed while the network exists"),
        ]),
    ))]
    pub pools: Vec<AddressPool>,
    /// The overlay between nodes.
    pub vxlan: Vxlan,
    /// Largest packet of pods in bytes, 1280 to 9216; Auto takes that of each node's link, less the overlay's header.
    pub mtu: Mtu,
    /// Hiding pods behind their node's address when they talk to the outside.
    pub masquerade: Masquerade,
}

impl Default for PodNetwork {
    fn default() -> Self {
        Self {
            pools: vec![AddressPool::default()],
            vxlan: Vxlan::default(),
            mtu: Mtu::Auto,
            masquerade: Masquerade::default(),
        }
    }
}

/// A range of addresses for pods, given to nodes in blocks.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.cidrs.all(c, cidr(c).prefixLength() <= self.blockSizes.ipv4)", "a block must not be larger than the pool's CIDR"),
])))]
pub struct AddressPool {
    /// Name of the pool, unique among pools.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// One IPv4 block in CIDR notation. It may grow, never shrink, and must not overlap Services or nodes.
    #[serde(rename = "cidrs")]
    #[schemars(with = "Vec<Ipv4CidrText>", length(min = 1, max = 1))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[
        ("self.all(c, cidr(c).ip().isGlobalUnicast())", "a pool cannot lie in loopback, link-local or multicast addresses"),
        (DISJOINT, "CIDRs of a pool must not overlap"),
    ])))]
    pub cidrs: Vec<IpNet>,
    /// How many addresses a node gets at a time.
    pub block_sizes: BlockSizes,
}

impl Default for AddressPool {
    fn default() -> Self {
        Self {
            name: crate::DEFAULT.to_owned(),
            cidrs: vec![IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16))],
            block_sizes: BlockSizes::default(),
        }
    }
}

/// Prefix lengths of the blocks that nodes get.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockSizes {
    /// Prefix length of an IPv4 block: 26 is 64 addresses, of which one is the node's own on the overlay.
    #[schemars(range(min = 20, max = 30))]
    pub ipv4: u8,
}

impl Default for BlockSizes {
    fn default() -> Self {
        Self { ipv4: 26 }
    }
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
    /// Off where the outside has routes to pods.
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
