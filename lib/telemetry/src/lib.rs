//! Logs, traces and metrics of every Netkeel program. Telemetry never blocks or fails the work: spans wait in a
//! bounded queue for a bounded time, a dead collector changes only counters, and without an endpoint nothing is queued.
//! The trace id travels all the same (`context`), so that a program further on may still be part of a trace.
#![forbid(unsafe_code)]

pub mod admin;
mod chain;
pub mod context;
mod init;
pub mod metrics;
pub mod shutdown;
pub mod spans;
mod traces;

pub use chain::chain;
pub use init::{Error, Guard, LogFormat, Options, init};
