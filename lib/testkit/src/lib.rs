//! What tests of several crates share. Only ever a dev-dependency.
#![forbid(unsafe_code)]

pub mod api;
pub mod lab;
pub mod random;
