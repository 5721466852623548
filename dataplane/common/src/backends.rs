//! `BACKENDS`: the backends of services, by slot. A hash.

use crate::{Address, pod::map_abi};

/// Name of the map, without the layout version.
pub const NAME: &str = "BACKENDS";
/// Backends of all services.
pub const MAX: u32 = 524_288;

/// One of the places `0..count` of a service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// Number of the service.
    pub service: u32,
    /// Place among its backends.
    pub slot: u32,
}
map_abi!(Slot: 8);

/// An address and a port: a backend, or what a client asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// The address.
    pub address: Address,
    /// The port, network byte order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}
map_abi!(Backend: 20);

impl Backend {
    /// A backend; `port` in host byte order.
    #[must_use]
    pub const fn new(address: Address, port: u16) -> Self {
        Self::from_wire(address, port.to_be())
    }

    /// A backend; `port` in network byte order.
    #[must_use]
    #[inline(always)]
    pub const fn from_wire(address: Address, port: u16) -> Self {
        Self { address, port, reserved: 0 }
    }
}
