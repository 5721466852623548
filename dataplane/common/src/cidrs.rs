//! `CIDRS`: the leaves of the CIDRs that policies name. A longest-prefix-match trie from a
//! [`Block`](crate::tunnels::Block) to an identity.

/// Name of the map, without the layout version.
pub const NAME: &str = "CIDRS";
/// CIDRs of all policies.
pub const MAX: u32 = 16_384;
