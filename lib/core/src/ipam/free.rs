//! The search for the next free address: blocks in the order given, so that late ones empty and can be given back; inside a block
//! round robin, so that an address comes back as late as possible.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;

use super::{Allocator, Ask, Family, Held, REST};

/// True for an address that has been free for at least [`REST`]. A clock that ran backwards counts as no time passed.
pub(super) fn has_rested(held: &Held, now: Duration) -> bool {
    matches!(held, Held::RestingSince(freed) if now.saturating_sub(*freed) >= REST)
}

impl Allocator {
    /// The next free address of the pools asked for, the first pool that has one.
    pub(super) fn next_free(&self, family: Family, ask: &Ask<'_>, now: Duration) -> Option<IpAddr> {
        let blocks = ask.pools.iter().flat_map(|pool| self.layout.blocks_of(pool, family));
        blocks.into_iter().find_map(|block| self.next_in(block, now))
    }

    fn next_in(&self, block: IpNet, now: Duration) -> Option<IpAddr> {
        let size = size(block);
        let last = self.last.get(&block).copied().unwrap_or(0);
        let offsets = (0..size).map(|step| 1 + (u64::from(last) + u64::from(step)) % u64::from(size));
        offsets.map(|offset| nth(block, offset)).find(|address| self.is_free(*address, now))
    }

    pub(super) fn is_free(&self, address: IpAddr, now: Duration) -> bool {
        self.held.get(&address).is_none_or(|held| has_rested(held, now)) && !self.layout.is_reserved(address)
    }

    /// Remembers where the search in the address's block goes on.
    pub(super) fn remember(&mut self, address: IpAddr) {
        if let Some(block) = self.layout.blocks.iter().find(|block| block.contains(&address)) {
            self.last.insert(*block, offset(*block, address));
        }
    }
}

/// How many addresses of a block pods can have: all but its first.
pub(super) fn size(block: IpNet) -> u32 {
    all(block) - 1
}

/// How many addresses a network has, as far as that can be counted.
pub(super) fn all(net: IpNet) -> u32 {
    1_u32.checked_shl(u32::from(net.max_prefix_len() - net.prefix_len())).unwrap_or(u32::MAX)
}

fn nth(block: IpNet, offset: u64) -> IpAddr {
    match block.network() {
        IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() + u32::try_from(offset).unwrap_or(0)).into(),
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + u128::from(offset)).into(),
    }
}

fn offset(block: IpNet, address: IpAddr) -> u32 {
    let distance = match (block.network(), address) {
        (IpAddr::V4(first), IpAddr::V4(address)) => u128::from(address.to_bits() - first.to_bits()),
        (IpAddr::V6(first), IpAddr::V6(address)) => address.to_bits() - first.to_bits(),
        _ => 0,
    };
    u32::try_from(distance).unwrap_or(u32::MAX)
}
