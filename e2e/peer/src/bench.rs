//! Loads for `cargo xtask bench`. They do as little as they can beside what is measured, so that they hide nothing of it.

mod cni;
mod crr;
mod samples;

pub(crate) use cni::run as cni;
pub(crate) use crr::{run as crr, serve};
