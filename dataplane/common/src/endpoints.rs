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
    /// The host side of the pod's link.
    pub side: HostSide,
    /// Policy table of what comes to the pod ([`policies`](crate::policies)).
    pub ingress: u32,
}
map_abi!(Endpoint: 8);

impl Endpoint {
    /// A pod whose host side has this index, with this policy table.
    #[must_use]
    pub const fn new(ifindex: u32, ingress: u32) -> Self {
        Self { side: HostSide(ifindex), ingress }
    }

    /// The same pod with a limit on the rate of what comes to it.
    #[must_use]
    pub const fn shaped(self) -> Self {
        Self { side: HostSide(self.side.0 | SHAPED), ..self }
    }
}

/// The host side of a pod's link: its index, and whether packets to the pod have to pass its queue.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostSide(u32);

/// Linux gives devices no index above `i32::MAX`.
const SHAPED: u32 = 1 << 31;

impl HostSide {
    /// Index of the device.
    #[must_use]
    #[inline(always)]
    pub const fn ifindex(self) -> u32 {
        self.0 & !SHAPED
    }

    /// Whether a limit on the rate of what comes to the pod is kept by the queue of this device.
    #[must_use]
    #[inline(always)]
    pub const fn is_shaped(self) -> bool {
        self.0 & SHAPED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_leaves_the_index_and_the_table_as_they_are() {
        for ifindex in [1, i32::MAX.cast_unsigned()] {
            let free = Endpoint::new(ifindex, 7);
            let shaped = free.shaped();
            assert_eq!((free.side.ifindex(), free.side.is_shaped()), (ifindex, false));
            assert_eq!((shaped.side.ifindex(), shaped.side.is_shaped()), (ifindex, true));
            assert_eq!(shaped.ingress, 7);
        }
    }
}
