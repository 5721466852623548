//! Which pools there are, and which of their blocks the node has. Values that the operator decides and the agent obeys.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

pub use crate::address::Family;
use crate::{address::Address, policy::Selector};

/// A range of addresses with rules of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: Arc<str>,
    /// Where its addresses lie, at most one network of each family.
    pub cidrs: Vec<IpNet>,
    /// Addresses in it that nobody is given.
    pub reserved: Vec<IpNet>,
    /// Labels of the namespaces whose pods may have its addresses; `None` is open to all.
    pub namespaces: Option<Selector>,
    /// Pods get none of its addresses any more.
    pub draining: bool,
}

impl Pool {
    fn contains(&self, address: IpAddr) -> bool {
        self.cidrs.iter().any(|cidr| cidr.contains(&address))
    }

    fn reserves(&self, address: IpAddr) -> bool {
        self.reserved.iter().any(|reserved| reserved.contains(&address))
    }
}

/// A block that the node gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Releasing {
    /// The block.
    pub block: IpNet,
    /// Tells this time from others at which the block was to be given back.
    pub ticket: Arc<str>,
}

/// The pools of the cluster, best first, and the node's blocks of them, in the operator's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The pools, in the order in which they are tried.
    pub pools: Vec<Pool>,
    /// The node's blocks. The first of each family gives the node its own address on the overlay.
    pub blocks: Vec<IpNet>,
    /// Those of the blocks, and of former ones, that the node gives back: nobody gets an address of them.
    pub releasing: Vec<Releasing>,
}

impl Layout {
    /// The pool that an address lies in. Pools do not overlap.
    #[must_use]
    pub fn pool_of(&self, address: IpAddr) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.contains(address))
    }

    /// The pool of this name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| *pool.name == *name)
    }

    /// The families that the pools of these names have, in the order of [`Family::ALL`].
    pub fn families_of(&self, names: &[Arc<str>]) -> impl Iterator<Item = Family> {
        let cidrs = names.iter().filter_map(|name| self.pool(name)).flat_map(|pool| &pool.cidrs);
        let offered: Vec<Family> = cidrs.map(Family::of_net).collect();
        Family::ALL.into_iter().filter(move |family| offered.contains(family))
    }

    /// The node's own address on the overlay: the first of its first block of the family.
    #[must_use]
    pub fn overlay_address(&self, family: Family) -> Option<Address> {
        self.blocks.iter().find(|block| Family::of_net(block) == family).map(|block| block.network().into())
    }

    /// The node's blocks of one family that lie in the pool called `name` and that it does not give back.
    pub(super) fn blocks_of(&self, name: &str, family: Family) -> impl Iterator<Item = IpNet> {
        let pool = self.pool(name);
        let within = move |block: &IpNet| pool.is_some_and(|pool| pool.contains(block.addr()));
        let open = self.blocks.iter().copied().filter(|block| !self.is_releasing(block));
        open.filter(move |block| Family::of_net(block) == family && within(block))
    }

    /// Whether the node gives this block back.
    #[must_use]
    pub fn is_releasing(&self, block: &IpNet) -> bool {
        self.releasing.iter().any(|releasing| releasing.block == *block)
    }

    /// Whether pods are never given this address.
    pub(super) fn is_reserved(&self, address: IpAddr) -> bool {
        self.pool_of(address).is_some_and(|pool| pool.reserves(address))
    }
}
