//! `ENDPOINTS`: the pods of this node. A hash from a pod's [`Address`](crate::Address).

use crate::pod::map_abi;

/// Name of the map, without the layout version.
pub const NAME: &str = "ENDPOINTS";
/// Pods of one node.
pub const MAX: u32 = 8192;

/// Where a local pod is reached, and what may reach it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Index of the host side of the pod's link.
    pub ifindex: u32,
    /// Policy table of what comes to the pod ([`policies`](crate::policies)).
    pub ingress: u32,
}
map_abi!(Endpoint: 8);
