//! Which block comes next: the first of the pool that nobody has claimed.

use std::collections::HashSet;

use ipnet::IpNet;
use netkeel_crds::{AddressBlock, block_name, cluster_network::AddressPool};

use super::validate::overlap;

/// The free blocks of `pools`, in order.
pub(super) struct Free<'a> {
    candidates: Box<dyn Iterator<Item = IpNet> + 'a>,
    names: HashSet<String>,
    others: Vec<IpNet>,
}

impl<'a> Free<'a> {
    /// The blocks of `pools` that lie in `cidrs`, the addresses in force, and are not among `claims`; nor are their names
    /// among `unreadable`, those of claims that say nothing else.
    pub(super) fn new<'b>(
        pools: &'a [AddressPool],
        cidrs: &'a [IpNet],
        claims: &[AddressBlock],
        unreadable: impl Iterator<Item = &'b str>,
    ) -> Self {
        let candidates = pools.iter().flat_map(move |pool| {
            let inside = pool.cidrs.iter().filter(move |cidr| cidrs.iter().any(|all| all.contains(*cidr)));
            inside.flat_map(move |cidr| cidr.subnets(pool.block_sizes.ipv4).into_iter().flatten())
        });
        let of_a_pool = |cidr: &IpNet| pools.iter().any(|pool| pool.block_sizes.ipv4 == cidr.prefix_len());
        Self {
            candidates: Box::new(candidates),
            names: claims
                .iter()
                .map(|claim| claim.metadata.name.clone().unwrap_or_default())
                .chain(unreadable.map(str::to_owned))
                .collect(),
            // blocks of another size cannot be told by name alone
            others: claims.iter().map(|claim| claim.spec.cidr).filter(|cidr| !of_a_pool(cidr)).collect(),
        }
    }
}

impl Iterator for Free<'_> {
    type Item = IpNet;

    fn next(&mut self) -> Option<IpNet> {
        let (names, others) = (&self.names, &self.others);
        self.candidates.find(|block| {
            !names.contains(&block_name(block)) && !others.iter().any(|other| overlap(other, block))
        })
    }
}
