//! `CONFIG`: what the programs know about their node. An array with one entry.

use crate::{Address, pod::map_abi};

/// Name of the map, without the layout version.
pub const NAME: &str = "CONFIG";

/// The node's own facts. All zero until the agent has applied its first `NodeNetwork`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's IPv4 address on the underlay, source of outer IPv4 packets; [`Address::UNSPECIFIED`] when it has none.
    pub ipv4: Address,
    /// The node's IPv6 address on the underlay, source of outer IPv6 packets; [`Address::UNSPECIFIED`] when it has none.
    pub ipv6: Address,
    /// Index of the VXLAN device; 0 while there is none.
    pub vxlan_ifindex: u32,
    /// Size of the largest packet that the overlay carries, in bytes, from the IP header on; 0 for unknown, which is no limit.
    pub mtu: u32,
    /// The same of the interfaces to nodes that are next hops, the smallest of them.
    pub direct_mtu: u32,
}
map_abi!(Config: 44);

impl Config {
    /// The value of a node with these addresses on the underlay, at most one of each family.
    #[must_use]
    pub fn new(nodes: &[Address], vxlan_ifindex: u32) -> Self {
        let one = |v4| nodes.iter().copied().find(|address| address.is_v4() == v4);
        let (ipv4, ipv6) = (one(true), one(false));
        Self {
            ipv4: ipv4.unwrap_or(Address::UNSPECIFIED),
            ipv6: ipv6.unwrap_or(Address::UNSPECIFIED),
            vxlan_ifindex,
            mtu: 0,
            direct_mtu: 0,
        }
    }

    /// The same with an overlay that carries packets of this size, in bytes.
    #[must_use]
    pub const fn with_mtu(self, mtu: u32) -> Self {
        Self { mtu, ..self }
    }

    /// The same with interfaces to next hops that carry packets of this size, in bytes.
    #[must_use]
    pub const fn with_direct_mtu(self, direct_mtu: u32) -> Self {
        Self { direct_mtu, ..self }
    }

    /// Source of the outer packets to this node; `None` when there is none of its family.
    #[must_use]
    #[inline(always)]
    pub const fn towards(&self, node: &Address) -> Option<Address> {
        let own = if node.is_v4() { self.ipv4 } else { self.ipv6 };
        if own.is(&Address::UNSPECIFIED) { None } else { Some(own) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_packets_have_one_family() {
        let (four, six) = (Address::v4([172, 18, 0, 1]), Address::from_words([1, 2, 3, 4]));
        let dual = Config::new(&[six, four], 7);
        assert_eq!((dual.ipv4, dual.ipv6, dual.mtu, dual.with_mtu(1450).mtu), (four, six, 0, 1450));
        assert_eq!((dual.towards(&Address::v4([9; 4])), dual.towards(&six)), (Some(four), Some(six)));
        assert_eq!(Config::new(&[four], 7).towards(&six), None);
        assert_eq!(Config::new(&[six], 7).towards(&four), None);
    }
}
