//! What tests of several crates share. Only ever a dev-dependency.
#![deny(unsafe_code)]

pub mod allocation;
pub mod api;
pub mod lab;
pub mod random;
