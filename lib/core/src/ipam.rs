//! Who holds which address of a node's blocks. Pure: the caller says what time it is and keeps the records on disk.
//! Promises: one address has one owner, one owner one address, a freed address rests before it is given again,
//! and the node's overlay address is never given to a pod.

mod free;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::address::Address;

/// How long a freed address stays unused, so that late packets and stale caches meet nobody.
pub const REST: Duration = Duration::from_secs(30);

/// What an address belongs to: one interface of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The runtime's id of the sandbox (`CNI_CONTAINERID`).
    pub container_id: String,
    /// Name of the interface inside the pod (`CNI_IFNAME`).
    pub interface: String,
}

/// State of one address that is not free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Given to a pod.
    By(Owner),
    /// Freed at this time (since boot); nobody's until [`REST`] has passed.
    RestingSince(Duration),
}

/// How full the node's blocks are, in addresses. `used + resting <= capacity` unless a block was taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Held by pods.
    pub used: u32,
    /// Freed a moment ago.
    pub resting: u32,
    /// All that pods can have.
    pub capacity: u32,
}

/// No address is left for another pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "all {} addresses of {blocks} are taken ({} by pods, {} freed less than {}s ago)",
    usage.capacity, usage.used, usage.resting, REST.as_secs()
)]
pub struct Exhausted {
    /// The blocks in question, comma separated; `no block` where there is none.
    pub blocks: String,
    /// How they are filled.
    pub usage: Usage,
}

/// The addresses of one node's blocks and who holds them.
///
/// Pods have /32 addresses, so a block's last address is an ordinary one. The first of each block is set aside: that of
/// the first block is the node's own on the overlay, and any block may become the first.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    blocks: Vec<Ipv4Net>,
    held: BTreeMap<Ipv4Addr, Held>,
    by_owner: HashMap<Owner, Ipv4Addr>,
    /// The address given last: the search goes on behind it, so that addresses come back as late as possible.
    last: Option<Ipv4Addr>,
}

impl Allocator {
    /// An allocator over `blocks` that already knows `held`; addresses outside the blocks stay held until released.
    /// Of two addresses with one owner (which nobody writes) both stay held and the higher one is the owner's.
    pub fn new(blocks: Vec<Ipv4Net>, held: impl IntoIterator<Item = (Address, Held)>) -> Self {
        let mut allocator = Self { blocks, ..Self::default() };
        for (address, held) in held {
            let Some(address) = ipv4(address) else { continue };
            if let Held::By(owner) = &held {
                allocator.by_owner.insert(owner.clone(), address);
            }
            allocator.held.insert(address, held);
        }
        allocator
    }

    /// Takes over the node's current blocks. Whatever is held stays held.
    pub fn set_blocks(&mut self, blocks: Vec<Ipv4Net>) {
        self.blocks = blocks;
    }

    /// The blocks, in the operator's order.
    #[must_use]
    pub fn blocks(&self) -> &[Ipv4Net] {
        &self.blocks
    }

    /// The node's own address on the overlay: the first of the first block.
    #[must_use]
    pub fn overlay_address(&self) -> Option<Address> {
        self.blocks.first().map(|block| block.network().into())
    }

    /// Gives `owner` an address, the same one as before where it has one. `now` is the time since boot.
    ///
    /// # Errors
    /// [`Exhausted`] when every address is held, reserved or resting.
    pub fn allocate(&mut self, owner: &Owner, now: Duration) -> Result<Address, Exhausted> {
        if let Some(address) = self.by_owner.get(owner) {
            return Ok((*address).into());
        }
        let address = self.next_free(now).ok_or_else(|| self.exhausted(now))?;
        self.held.insert(address, Held::By(owner.clone()));
        self.by_owner.insert(owner.clone(), address);
        self.last = Some(address);
        Ok(address.into())
    }

    /// Takes the address back; it rests from `now` on. `None` where the owner holds nothing.
    pub fn release(&mut self, owner: &Owner, now: Duration) -> Option<Address> {
        let address = self.by_owner.remove(owner)?;
        self.held.insert(address, Held::RestingSince(now));
        Some(address.into())
    }

    /// Takes the address back without a rest, for one that no packet has ever carried.
    pub fn cancel(&mut self, owner: &Owner) -> Option<Address> {
        let address = self.by_owner.remove(owner)?;
        self.held.remove(&address);
        Some(address.into())
    }

    /// The owner's address.
    #[must_use]
    pub fn address_of(&self, owner: &Owner) -> Option<Address> {
        self.by_owner.get(owner).copied().map(Address::from)
    }

    /// Everything that is not free, by address.
    pub fn held(&self) -> impl Iterator<Item = (Address, &Held)> {
        self.held.iter().map(|(address, held)| ((*address).into(), held))
    }

    /// Forgets addresses that have rested long enough and names them, so that their records can go.
    pub fn wake(&mut self, now: Duration) -> Vec<Address> {
        let rested: Vec<_> =
            self.held.iter().filter(|(_, held)| free::has_rested(held, now)).map(|(a, _)| *a).collect();
        for address in &rested {
            self.held.remove(address);
        }
        rested.into_iter().map(Address::from).collect()
    }

    /// How full the blocks are at `now`.
    #[must_use]
    pub fn usage(&self, now: Duration) -> Usage {
        let resting = self.held.values().filter(|held| matches!(held, Held::RestingSince(_)));
        let resting = resting.filter(|held| !free::has_rested(held, now)).count();
        Usage { used: count(self.by_owner.len()), resting: count(resting), capacity: self.capacity() }
    }

    fn capacity(&self) -> u32 {
        count(self.blocks.iter().copied().map(size).sum())
    }

    fn exhausted(&self, now: Duration) -> Exhausted {
        let names: Vec<_> = self.blocks.iter().map(ToString::to_string).collect();
        let blocks = if names.is_empty() { "no block".to_owned() } else { names.join(", ") };
        Exhausted { blocks, usage: self.usage(now) }
    }
}

/// The address as IPv4, where it is one.
#[must_use]
pub fn ipv4(address: Address) -> Option<Ipv4Addr> {
    match address.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// How many addresses of a block pods can have.
fn size(block: Ipv4Net) -> usize {
    (1_usize << (32 - block.prefix_len())) - 1
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
