//! The operator: from the one ClusterNetwork to address blocks, node networks, agents and DNS.
#![forbid(unsafe_code)]

pub mod leader;
pub mod manifests;
