//! The search for the next free address: round robin over all blocks, from the address given last.

use std::{net::Ipv4Addr, time::Duration};

use ipnet::Ipv4Net;

use super::{Allocator, Held, REST};

/// True for an address that has been free for at least [`REST`]. A clock that ran backwards counts as no time passed.
pub(super) fn has_rested(held: &Held, now: Duration) -> bool {
    matches!(held, Held::RestingSince(freed) if now.saturating_sub(*freed) >= REST)
}

impl Allocator {
    pub(super) fn next_free(&self, now: Duration) -> Option<Ipv4Addr> {
        let behind =
            |address: &Ipv4Addr| self.position(*address) > self.last.and_then(|last| self.position(last));
        let all = || self.blocks.iter().copied().flat_map(addresses);
        let usable = |address: &Ipv4Addr| self.is_free(*address, now);
        let wrapped = || all().find(usable);
        all().filter(behind).find(usable).or_else(wrapped)
    }

    fn is_free(&self, address: Ipv4Addr, now: Duration) -> bool {
        self.held.get(&address).is_none_or(|held| has_rested(held, now))
    }

    /// Where an address stands in the order of the search: by block, then by number.
    fn position(&self, address: Ipv4Addr) -> Option<(usize, Ipv4Addr)> {
        let block = self.blocks.iter().position(|block| block.contains(&address))?;
        Some((block, address))
    }
}

/// What pods may have of a block: all but its first address.
fn addresses(block: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    (u32::from(block.network())..=u32::from(block.broadcast())).skip(1).map(Ipv4Addr::from)
}
