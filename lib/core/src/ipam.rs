//! Who holds which address of a node's blocks. Pure: the caller says what time it is and keeps the records on disk.
//! Promises: one address has one owner, one owner one address of each family, a freed address rests before it is given again,
//! and neither the node's overlay address nor a reserved one is ever given to a pod.

mod choice;
mod free;
mod layout;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::{
    choice::{Choice, Denied, Wish, choose},
    layout::{Family, Layout, Pool, Releasing},
};
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

/// What is wanted for one interface.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// One address of each of these.
    pub families: &'a [Family],
    /// Pools that may give it, best first.
    pub pools: &'a [Arc<str>],
    /// Addresses that it must be, at most one of each family.
    pub addresses: &'a [IpAddr],
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

impl Usage {
    /// With one address more that is not free.
    fn with(self, held: &Held, now: Duration) -> Self {
        match held {
            Held::By(_) => Self { used: self.used.saturating_add(1), ..self },
            Held::RestingSince(_) if free::has_rested(held, now) => self,
            Held::RestingSince(_) => Self { resting: self.resting.saturating_add(1), ..self },
        }
    }
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            used: self.used.saturating_add(other.used),
            resting: self.resting.saturating_add(other.resting),
            capacity: self.capacity.saturating_add(other.capacity),
        }
    }
}

/// No address is left for another pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "all {} {family} addresses of {blocks} are taken ({} by pods, {} freed less than {}s ago)",
    usage.capacity, usage.used, usage.resting, REST.as_secs()
)]
pub struct Exhausted {
    /// The family that ran out.
    pub family: Family,
    /// The blocks in question, comma separated; `no block` where there is none.
    pub blocks: String,
    /// How they are filled.
    pub usage: Usage,
}

/// Why an address is not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// None is left.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The one asked for is another pod's.
    #[error("{address} is held by another pod")]
    Taken {
        /// The address.
        address: IpAddr,
        /// Who holds it.
        owner: Owner,
    },
    /// The one asked for was another pod's a moment ago.
    #[error("{address} was freed less than {}s ago", REST.as_secs())]
    Resting {
        /// The address.
        address: IpAddr,
    },
    /// The one asked for lies in no block of the node.
    #[error("{address} lies in no block of this node")]
    Elsewhere {
        /// The address.
        address: IpAddr,
    },
    /// The one asked for lies in a block that the node gives back.
    #[error("{address} lies in a block that this node gives back")]
    Releasing {
        /// The address.
        address: IpAddr,
    },
    /// The one asked for is set aside for nodes.
    #[error("{address} is the first of its block, which is never a pod's")]
    First {
        /// The address.
        address: IpAddr,
    },
}

/// The addresses of one node's blocks and who holds them.
///
/// Pods have addresses without a subnet, so a block's last address is an ordinary one. The first of each block is set aside: that of
/// the first block of a family is the node's own on the overlay, and any block may become the first.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    layout: Arc<Layout>,
    held: BTreeMap<IpAddr, Held>,
    by_owner: HashMap<Owner, Vec<IpAddr>>,
    /// Offset of the address that each block gave last: the search goes on behind it.
    last: HashMap<IpNet, u32>,
}

impl Allocator {
    /// An allocator over `layout` that already knows `held`; addresses outside its blocks stay held until released.
    pub fn new(layout: Arc<Layout>, held: impl IntoIterator<Item = (Address, Held)>) -> Self {
        let mut allocator = Self { layout, ..Self::default() };
        for (address, held) in held {
            let address = address.ip();
            if let Held::By(owner) = &held {
                allocator.hand(owner, address);
            }
            allocator.held.insert(address, held);
        }
        allocator
    }

    /// Takes over the present pools and blocks. Whatever is held stays held.
    pub fn set_layout(&mut self, layout: Arc<Layout>) {
        self.last.retain(|block, _| layout.blocks.contains(block));
        self.layout = layout;
    }

    /// The pools and blocks in force.
    #[must_use]
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Gives `owner` one address of each family, the same ones as before where it has some. `now` is the time since boot.
    /// The result is in the order of `ask.families`.
    ///
    /// # Errors
    /// [`Refused`] when every address of a family is held, reserved or resting, or the one asked for cannot be had; then
    /// nothing is given.
    pub fn allocate(&mut self, owner: &Owner, ask: &Ask<'_>, now: Duration) -> Result<Vec<Address>, Refused> {
        let mut chosen = Vec::new();
        for family in ask.families {
            let of_family = |address: &&IpAddr| Family::of(**address) == *family;
            let before = self.by_owner.get(owner).into_iter().flatten().find(of_family);
            let asked = ask.addresses.iter().find(of_family);
            chosen.push(match (before, asked) {
                (Some(before), _) => *before,
                (None, Some(asked)) => self.fixed(*asked, now)?,
                (None, None) => {
                    self.next_free(*family, ask, now).ok_or_else(|| self.exhausted(*family, ask, now))?
                }
            });
        }
        for address in &chosen {
            if !self.by_owner.get(owner).is_some_and(|all| all.contains(address)) {
                self.held.insert(*address, Held::By(owner.clone()));
                self.hand(owner, *address);
                self.remember(*address);
            }
        }
        Ok(chosen.into_iter().map(Address::from).collect())
    }

    /// The address asked for, where it can be had.
    fn fixed(&self, address: IpAddr, now: Duration) -> Result<IpAddr, Refused> {
        let block = self.layout.blocks.iter().find(|block| block.contains(&address));
        let block = block.ok_or(Refused::Elsewhere { address })?;
        match self.held.get(&address) {
            Some(Held::By(owner)) => Err(Refused::Taken { address, owner: owner.clone() }),
            Some(resting) if !free::has_rested(resting, now) => Err(Refused::Resting { address }),
            _ if block.network() == address => Err(Refused::First { address }),
            _ if self.layout.is_releasing(block) => Err(Refused::Releasing { address }),
            _ => Ok(address),
        }
    }

    fn hand(&mut self, owner: &Owner, address: IpAddr) {
        let all = self.by_owner.entry(owner.clone()).or_default();
        all.push(address);
        all.sort_unstable();
    }

    /// Lets `owner` hold an address that nobody holds. Whether nobody did.
    pub fn hold(&mut self, address: Address, owner: &Owner) -> bool {
        let free = !self.held.contains_key(&address.ip());
        if free {
            self.held.insert(address.ip(), Held::By(owner.clone()));
            self.hand(owner, address.ip());
        }
        free
    }

    /// Takes one address back; it rests from `now` on. Whether anybody held it.
    pub fn release(&mut self, address: Address, now: Duration) -> bool {
        let taken = self.take(address.ip());
        if taken {
            self.held.insert(address.ip(), Held::RestingSince(now));
        }
        taken
    }

    /// Takes one address back without a rest, for one that no packet has ever carried. Whether anybody held it.
    pub fn cancel(&mut self, address: Address) -> bool {
        self.take(address.ip())
    }

    fn take(&mut self, address: IpAddr) -> bool {
        let Some(Held::By(owner)) = self.held.get(&address).cloned() else { return false };
        self.held.remove(&address);
        if let Some(all) = self.by_owner.get_mut(&owner) {
            all.retain(|held| *held != address);
            if all.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
        true
    }

    /// The owner's addresses, IPv4 first.
    #[must_use]
    pub fn addresses_of(&self, owner: &Owner) -> Vec<Address> {
        self.by_owner.get(owner).into_iter().flatten().copied().map(Address::from).collect()
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

    /// How full the blocks are at `now`, addresses of pods outside of all blocks included.
    #[must_use]
    pub fn usage(&self, now: Duration) -> Usage {
        let capacity =
            self.layout.blocks.iter().map(|block| self.capacity(block)).fold(0, u32::saturating_add);
        self.held.values().fold(Usage { capacity, ..Usage::default() }, |usage, held| usage.with(held, now))
    }

    /// How full each block is at `now`, in the order of the layout.
    #[must_use]
    pub fn usage_by_block(&self, now: Duration) -> Vec<(IpNet, Usage)> {
        let of = |block: &IpNet| {
            let capacity = self.capacity(block);
            let held = self.held.range(block.network()..=block.broadcast()).map(|(_, held)| held);
            (*block, held.fold(Usage { capacity, ..Usage::default() }, |usage, held| usage.with(held, now)))
        };
        self.layout.blocks.iter().map(of).collect()
    }

    /// Those of the blocks to be given back in which nothing is held and nothing rests at `now`.
    #[must_use]
    pub fn released(&self, now: Duration) -> Vec<Releasing> {
        let mine = |releasing: &&Releasing| self.layout.blocks.contains(&releasing.block);
        let all = self.layout.releasing.iter().filter(mine);
        all.filter(|releasing| self.is_empty(&releasing.block, now)).cloned().collect()
    }

    /// Whether no address of the block is held or rests.
    fn is_empty(&self, block: &IpNet, now: Duration) -> bool {
        let mut held = self.held.range(block.network()..=block.broadcast());
        held.all(|(_, held)| free::has_rested(held, now))
    }

    /// How many addresses of a block pods can have.
    fn capacity(&self, block: &IpNet) -> u32 {
        let reserved = self.layout.pool_of(block.addr()).map_or(&[][..], |pool| &pool.reserved);
        if reserved.iter().any(|reserved| reserved.contains(block)) {
            return 0;
        }
        let inside = reserved.iter().filter(|reserved| block.contains(*reserved));
        let lost =
            inside.map(|reserved| free::all(*reserved) - u32::from(reserved.contains(&block.network())));
        lost.fold(free::size(*block), u32::saturating_sub)
    }

    fn exhausted(&self, family: Family, ask: &Ask<'_>, now: Duration) -> Exhausted {
        let asked: Vec<IpNet> =
            ask.pools.iter().flat_map(|pool| self.layout.blocks_of(pool, family)).collect();
        let names: Vec<_> = asked.iter().map(ToString::to_string).collect();
        let blocks = if names.is_empty() { "no block".to_owned() } else { names.join(", ") };
        let filled = self.usage_by_block(now).into_iter().filter(|(block, _)| asked.contains(block));
        let usage = filled.fold(Usage::default(), |sum, (_, usage)| sum + usage);
        Exhausted { family, blocks, usage }
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
