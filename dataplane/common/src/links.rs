//! `LINKS`: which pod sits behind a link, for the source check. A hash from the index of the host side (`u32`).

use crate::{Address, pod::map_abi};

/// Name of the map, without the layout version.
pub const NAME: &str = "LINKS";
/// Links of one node.
pub const MAX: u32 = 8192;

/// The only sources that packets on this link may have, and what they may reach.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// The pod's IPv4 address; [`Address::UNSPECIFIED`] when it has none.
    pub ipv4: Address,
    /// The pod's IPv6 address; [`Address::UNSPECIFIED`] when it has none.
    pub ipv6: Address,
    /// MAC address of the pod side.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: [u8; 2],
    /// Policy table of what the pod sends ([`policies`](crate::policies)).
    pub egress: u32,
}
map_abi!(Link: 44);

impl Link {
    /// The entry of a pod with this address and no other, this MAC address and this policy table.
    #[must_use]
    pub const fn new(address: Address, mac: [u8; 6], egress: u32) -> Self {
        let none = Address::UNSPECIFIED;
        Self { ipv4: none, ipv6: none, mac, reserved: [0; 2], egress }.with(address)
    }

    /// The same with this address in its family.
    #[must_use]
    pub const fn with(self, address: Address) -> Self {
        if address.is_v4() { Self { ipv4: address, ..self } } else { Self { ipv6: address, ..self } }
    }

    /// Whether the pod has this address. Nobody has the unspecified one.
    #[must_use]
    #[inline(always)]
    pub const fn owns(&self, address: &Address) -> bool {
        (address.is(&self.ipv4) || address.is(&self.ipv6)) && !address.is(&Address::UNSPECIFIED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_owns_its_addresses_and_nobody_the_unspecified_one() {
        let (four, six) = (Address::v4([10, 244, 0, 7]), Address::from_words([1, 2, 3, 4]));
        let (single, dual) = (Link::new(six, [0; 6], 1), Link::new(four, [0; 6], 1).with(six));
        assert!(dual.owns(&four) && dual.owns(&six) && single.owns(&six) && !single.owns(&four));
        for link in [single, dual] {
            assert!(!link.owns(&Address::UNSPECIFIED) && !link.owns(&Address::v4([0; 4])));
        }
    }
}
