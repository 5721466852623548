//! The operator: turns the `ClusterNetwork` into claims of address blocks, `NodeNetworks`, agents and DNS, and reports.
//! `plan`, `render` and `status` are pure; `cluster` is the one way to the API server.
#![forbid(unsafe_code)]

pub mod args;
pub mod cluster;
pub mod collector;
pub mod install;
pub mod leader;
pub mod metrics;
pub mod observed;
pub mod plan;
pub mod probe;
pub mod reconcile;
pub mod render;
pub mod run;
pub mod settings;
pub mod status;
pub mod story;
pub mod uninstall;
