//! What the kernel programs and user space agree on: one module a map (key, value, size), and the
//! pure decisions that both sides test. Addresses have 16 bytes in network byte order, IPv4 is
//! v4-mapped. Changing any layout here means raising [`LAYOUT`].
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "kernel programs must not pass structs between functions: five registers, 512 bytes of stack"
)]

pub mod address;
pub mod backends;
pub mod cidrs;
pub mod config;
pub mod conntrack;
pub mod counters;
pub mod endpoints;
pub mod epoch;
pub mod flow;
pub mod fragments;
pub mod frame;
pub mod host_ports;
pub mod identities;
pub mod links;
mod pod;
pub mod policies;
pub mod reverse;
pub mod services;
pub mod too_big;
pub mod transport;
pub mod tunnels;

pub use address::Address;
pub use config::Config;
pub use counters::Reason;
pub use services::Protocol;

/// Version of the layout of all maps; part of every pinned map's name (`<NAME>-v<LAYOUT>`).
pub const LAYOUT: u32 = 4;

/// VXLAN network identifier of the overlay.
pub const VNI: u32 = 1;
