//! Cluster DNS: answers the names of Services from memory and asks the upstream resolvers for the rest.
#![deny(unsafe_code)]

pub mod answer;
pub mod args;
mod batch;
mod cache;
mod fast;
pub mod forward;
#[cfg(test)]
mod fuzz;
pub mod handler;
mod limit;
pub mod live;
pub mod loops;
pub mod message;
pub mod metrics;
mod name;
mod object;
mod pairs;
mod plain;
pub mod pod;
mod querylog;
mod resolve;
mod rules;
mod run;
mod search;
pub mod server;
mod shards;
mod slice;
pub mod snapshot;
mod status;
mod traced;
pub mod watch;
mod wire;
pub mod zone;

pub use run::{Error, Running, run, start};
