//! `CONFIG`: what the programs know about their node. An array with one entry.

use crate::{Address, pod::map_abi};

/// Name of the map, without the layout version.
pub const NAME: &str = "CONFIG";

/// The node's own facts. All zero until the agent has applied its first `NodeNetwork`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's address on the underlay: source of the outer packets.
    pub node: Address,
    /// The node's own address inside the overlay.
    pub overlay: Address,
    /// Index of the VXLAN device; 0 while there is none.
    pub vxlan_ifindex: u32,
    /// Zero.
    pub reserved: u32,
}
map_abi!(Config: 40);

impl Config {
    /// The value of a node.
    #[must_use]
    pub const fn new(node: Address, overlay: Address, vxlan_ifindex: u32) -> Self {
        Self { node, overlay, vxlan_ifindex, reserved: 0 }
    }
}
