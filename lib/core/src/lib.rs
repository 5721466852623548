//! What Netkeel reasons about, as values: no Kubernetes types, no I/O, no clock, no randomness.
#![forbid(unsafe_code)]

pub mod address;
pub mod few;
pub mod ipam;
pub mod labels;
pub mod name;
pub mod node;
pub mod policy;
pub mod service;
pub mod shared;
