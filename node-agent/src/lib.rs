//! The agent of one node: everything that makes the node's kernel carry pod traffic. One line a module, in order of start-up.
#![deny(unsafe_code)]

pub mod node;

pub mod cni;
pub mod ipam;
pub mod link;
