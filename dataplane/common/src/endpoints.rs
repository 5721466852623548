//! `ENDPOINTS`: the pods of this node. A hash from a pod's [`Address`](crate::Address).

use crate::pod::map_abi;

/// Name of the map, without the layout version.
pub const NAME: &str = "ENDPOINTS";
/// Pods of one node.
pub const MAX: u32 = 8192;

/// Where a local pod is reached.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Index of the host side of the pod's link.
    pub ifindex: u32,
    /// MAC address of the host side.
    pub host_mac: [u8; 6],
    /// MAC address of the pod side.
    pub pod_mac: [u8; 6],
}
map_abi!(Endpoint: 16);
