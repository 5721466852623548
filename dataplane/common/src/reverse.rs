//! `REVERSE`: what a socket asked for when it was sent to a backend, so that it hears from the service
//! and not from the backend. An LRU hash from [`Translated`] to [`Backend`](crate::backends::Backend)
//! (address and port of the service).

use crate::{backends::Backend, pod::map_abi};

/// Name of the map, without the layout version.
pub const NAME: &str = "REVERSE";
/// Translated sockets that are remembered; the least recently used one is forgotten first.
pub const MAX: u32 = 65_536;

/// A socket and the backend it was sent to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Translated {
    /// The kernel's cookie of the socket.
    pub cookie: u64,
    /// The backend.
    pub backend: Backend,
    /// Zero.
    pub reserved: u32,
}
map_abi!(Translated: 32);

impl Translated {
    /// The key of a socket and a backend.
    #[must_use]
    #[inline(always)]
    pub const fn new(cookie: u64, backend: Backend) -> Self {
        Self { cookie, backend, reserved: 0 }
    }
}
