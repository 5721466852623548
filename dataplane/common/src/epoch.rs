//! `EPOCH`: counts changes of policy and identity, up from 1. An array with one `u32`. Raised after a change is written: a flow
//! that was judged in an earlier epoch is judged again at its next packet. A program reads it before the tables.

/// Name of the map, without the layout version.
pub const NAME: &str = "EPOCH";
