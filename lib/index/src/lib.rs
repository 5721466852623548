//! Watched objects in, values of the core out. Synchronous, without a client: the same for a watch, a file and a test.
//!
//! An object that says something impossible is named and skipped: what was known of it stays in force, and all others are served.
#![forbid(unsafe_code)]

pub mod convert;
pub mod dns;
pub mod invalid;
pub mod nodes;
pub mod policies;
pub mod services;

pub use invalid::{Invalid, Problems};
pub use nodes::Nodes;
pub use policies::Policies;
pub use services::{SeenSlice, Services};
