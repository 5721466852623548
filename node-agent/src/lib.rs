//! The agent of one node: everything that makes the node's kernel carry pod traffic. One line a module, in order of start-up.
#![deny(unsafe_code)]

pub mod agent;
pub mod apply;
pub mod args;
pub mod bandwidth;
pub mod bpffs;
pub mod cleanup;
pub mod complaints;
pub mod desired;
pub mod due;
pub mod host_port;
pub mod install;
mod json_file;
pub mod kernel;
pub mod last_known;
pub mod masquerade;
pub mod memory;
pub mod metrics;
pub mod monitor;
pub mod nftables;
pub mod node;
pub mod overlay;
pub mod own_dns;
pub mod path;
pub mod pods;
pub mod policy;
pub mod reach;
pub mod route;
pub mod run;
pub mod services;
pub mod settings;
pub mod shortage;
pub mod status;
pub mod sysctl;
mod trace;

pub mod cni;
pub mod ipam;
pub mod link;
