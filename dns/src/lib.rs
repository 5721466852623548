//! Cluster DNS: answers the names of Services from memory and asks the upstream resolvers for the rest.
#![deny(unsafe_code)]

pub mod answer;
pub mod args;
mod batch;
mod fast;
pub mod forward;
#[cfg(test)]
mod fuzz;
pub mod handler;
mod limit;
pub mod live;
pub mod message;
pub mod metrics;
mod name;
mod object;
mod run;
pub mod server;
mod shards;
mod traced;
pub mod watch;
mod wire;
pub mod zone;

pub use run::{Error, Running, run, start};
