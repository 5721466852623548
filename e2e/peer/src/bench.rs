//! Loads for `cargo xtask bench`. They do as little as they can beside what is measured, so that they hide nothing of it.

mod cni;
mod crr;
mod lane;
mod names;
mod probe;
mod questions;
mod reflect;
mod samples;
mod serve;

pub(crate) use cni::run as cni;
pub(crate) use crr::run as crr;
pub(crate) use lane::run as lane;
pub(crate) use names::run as names;
pub(crate) use probe::run as probe;
pub(crate) use questions::run as questions;
pub(crate) use reflect::run as reflect;
pub(crate) use serve::run as serve;

/// Bytes of a request and of its response.
const SIZE: usize = 64;
/// Bytes of one write or read of bulk data.
const BULK: usize = 256 * 1024;

/// Whoever started this program in a pod or in a node's namespaces cannot signal it, but can let go of its standard input.
fn until_standard_input_ends() {
    drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
}
