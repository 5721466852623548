//! What a CNI call fails with: a code of the specification and a sentence for the person who reads the pod's events.

use std::error::Error as StdError;

pub use netkeel_telemetry::chain;
use serde::{Deserialize, Serialize};

/// A failed call, as the runtime is told. `code` is one of the constants here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{msg}")]
pub struct Failure {
    pub code: u32,
    pub msg: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// The configuration asks for a version of CNI that is not spoken here.
pub const INCOMPATIBLE_VERSION: u32 = 1;
/// An environment variable is missing or makes no sense.
pub const INVALID_ENVIRONMENT: u32 = 4;
/// A file or the agent's socket failed.
pub const IO: u32 = 5;
/// Standard input is not JSON.
pub const UNDECODABLE: u32 = 6;
/// The network configuration makes no sense.
pub const INVALID_CONFIG: u32 = 7;
/// It may work later.
pub const TRY_AGAIN: u32 = 11;
/// STATUS: no pod can be added.
pub const UNAVAILABLE: u32 = 50;
/// The first code that is ours to give: the kernel refused something.
pub const KERNEL: u32 = 100;
/// CHECK: what was made is not there any more.
pub const BROKEN: u32 = 101;
/// ADD: the pod asks, in its annotations or ports, for something that it cannot have.
pub const IMPOSSIBLE: u32 = 102;

impl Failure {
    /// A failure with nothing more to say.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// A failure with its causes, outermost first, in `details`.
    pub fn caused(code: u32, msg: impl Into<String>, error: &dyn StdError) -> Self {
        Self { code, msg: msg.into(), details: chain(error) }
    }
}
