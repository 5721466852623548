//! `LINKS`: which pod sits behind a link, for the source check. A hash from the index of the host side (`u32`).

use crate::{Address, pod::map_abi};

/// Name of the map, without the layout version.
pub const NAME: &str = "LINKS";
/// Links of one node.
pub const MAX: u32 = 8192;

/// The only source that packets on this link may have, and what they may reach.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// The pod's address.
    pub address: Address,
    /// MAC address of the pod side.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: [u8; 2],
    /// Policy table of what the pod sends ([`policies`](crate::policies)).
    pub egress: u32,
}
map_abi!(Link: 28);

impl Link {
    /// The entry of a pod with this address, this MAC address and this policy table.
    #[must_use]
    pub const fn new(address: Address, mac: [u8; 6], egress: u32) -> Self {
        Self { address, mac, reserved: [0; 2], egress }
    }
}
