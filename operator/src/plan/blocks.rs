//! Which block comes next: the first of a pool's CIDR that nobody has claimed.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use netkeel_crds::{AddressBlock, block_name, cluster_network::AddressPool};

/// The free blocks of each CIDR of the pools, in order.
pub(super) struct Free<'a> {
    candidates: HashMap<IpNet, Box<dyn Iterator<Item = IpNet> + 'a>>,
    unreadable: Vec<String>,
    /// The outermost claims by their first address: those inside another are left out, so that none overlap.
    claimed: BTreeMap<IpAddr, IpNet>,
}

impl<'a> Free<'a> {
    /// The blocks of `pools` that lie in `cidrs`, the addresses in force, and overlap none of `claims`; nor are their names
    /// among `unreadable`, those of claims that say nothing else. A block whose first address is reserved is none: that address
    /// may become a node's.
    pub(super) fn new<'b>(
        pools: &'a [AddressPool],
        cidrs: &[IpNet],
        claims: &[AddressBlock],
        unreadable: impl Iterator<Item = &'b str>,
    ) -> Self {
        let mut candidates: HashMap<IpNet, Box<dyn Iterator<Item = IpNet> + 'a>> = HashMap::new();
        for (pool, cidr) in pools.iter().flat_map(|pool| pool.cidrs.iter().map(move |cidr| (pool, cidr))) {
            if cidrs.iter().any(|all| all.contains(cidr)) {
                let reserved = |block: &IpNet| pool.reserved.iter().any(|net| net.contains(&block.network()));
                let blocks = cidr.subnets(pool.block_sizes.of(cidr)).into_iter().flatten();
                candidates.insert(*cidr, Box::new(blocks.filter(move |block| !reserved(block))));
            }
        }
        Self { candidates, unreadable: unreadable.map(str::to_owned).collect(), claimed: outermost(claims) }
    }

    /// Takes the next free block of this CIDR of a pool.
    pub(super) fn take(&mut self, cidr: &IpNet) -> Option<IpNet> {
        let (claimed, unreadable) = (&self.claimed, &self.unreadable);
        let candidates = self.candidates.get_mut(cidr)?;
        let mut free = candidates
            .filter(|block| !is_claimed(claimed, block) && !unreadable.contains(&block_name(block)));
        let block = free.next()?;
        self.claimed.insert(block.network(), block);
        Some(block)
    }

    /// Takes the block of `pool` that has this address, if it is free.
    pub(super) fn take_with(&mut self, address: &IpNet, pool: &AddressPool) -> Option<IpNet> {
        let cidr = pool.cidrs.iter().find(|cidr| cidr.contains(address))?;
        self.candidates.get(cidr)?;
        let block = IpNet::new(address.addr(), pool.block_sizes.of(cidr)).ok()?.trunc();
        let reserved = pool.reserved.iter().any(|net| net.contains(&block.network()));
        if reserved || is_claimed(&self.claimed, &block) || self.unreadable.contains(&block_name(&block)) {
            return None;
        }
        self.claimed.insert(block.network(), block);
        Some(block)
    }
}

/// The claims that lie in no other.
fn outermost(claims: &[AddressBlock]) -> BTreeMap<IpAddr, IpNet> {
    let mut cidrs: Vec<IpNet> = claims.iter().map(|claim| claim.spec.cidr).collect();
    cidrs.sort_unstable_by_key(IpNet::prefix_len);
    cidrs.into_iter().fold(BTreeMap::new(), |mut claimed, cidr| {
        if !is_claimed(&claimed, &cidr) {
            claimed.insert(cidr.network(), cidr);
        }
        claimed
    })
}

/// Whether a claim has an address of the block. They do not overlap, so the last one that begins before the block's end is the
/// only one that can.
fn is_claimed(claimed: &BTreeMap<IpAddr, IpNet>, block: &IpNet) -> bool {
    let before = claimed.range(..=block.broadcast()).next_back();
    before.is_some_and(|(_, claim)| super::validate::overlap(claim, block))
}
