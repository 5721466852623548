//! One way to the API server for every program: its addresses without DNS or a service network, and watches
//! that survive an undecodable object and a silent connection (ADR 0004).
#![deny(unsafe_code)]

mod connect;
mod memory;
mod servers;
mod signs;
mod watch;

pub use connect::{ConnectError, connect, connect_as_user};
pub use memory::give_back;
pub use servers::{ApiServers, ServersError};
pub use signs::Signs;
pub use watch::{Event, Undecodable, watch, watch_as};
