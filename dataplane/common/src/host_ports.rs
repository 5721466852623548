//! `HOST_PORTS`: ports of this node that lead to a pod of it, for the sockets of the node and its pods. A hash from a
//! [`HostPort`] to the pod's address and port, a [`Backend`](crate::backends::Backend).

use crate::{Address, pod::map_abi, services::Frontend};

/// Name of the map, without the layout version.
pub const NAME: &str = "HOST_PORTS";
/// Host ports of all pods of the node, times its addresses.
pub const MAX: u32 = 16_384;

/// What a socket asks for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Cookie of the network namespace whose sockets alone mean this; 0 for all of them.
    pub netns: u64,
    /// Address, port and protocol.
    pub frontend: Frontend,
    /// Zero.
    pub reserved: u32,
}
map_abi!(HostPort: 32);

impl HostPort {
    /// A port that means the same in every network namespace.
    #[must_use]
    #[inline(always)]
    pub const fn anywhere(frontend: Frontend) -> Self {
        Self::within(0, frontend)
    }

    /// A port that means this in one network namespace: at a loopback address.
    #[must_use]
    #[inline(always)]
    pub const fn within(netns: u64, frontend: Frontend) -> Self {
        Self { netns, frontend, reserved: 0 }
    }
}

/// Whether an address is each network namespace's own: `127.0.0.1` or `::1`.
#[must_use]
#[inline(always)]
pub const fn is_loopback(address: &Address) -> bool {
    address.is(&Address::v4([127, 0, 0, 1])) || address.is(&Address::from_words([0, 0, 0, 1_u32.to_be()]))
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn the_loopback_addresses_of_both_families_are_known() {
        assert!(is_loopback(&Ipv4Addr::LOCALHOST.into()) && is_loopback(&Ipv6Addr::LOCALHOST.into()));
        assert!(!is_loopback(&Address::UNSPECIFIED) && !is_loopback(&Address::v4([10, 0, 0, 1])));
    }
}
