//! Cluster DNS: answers the names of Services from memory and asks the upstream resolvers for the rest.
#![forbid(unsafe_code)]

pub mod answer;
mod name;
mod shards;
pub mod zone;
