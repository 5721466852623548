//! The CIDRs that policies name. An address belongs to the smallest of them that contains it, its leaf; every other one contains
//! the address exactly when it contains the leaf.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::{Peer, Policy};

/// All named CIDRs, and how often each is named.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaves {
    named: BTreeMap<Ipv4Net, usize>,
    /// How many of them have each prefix length.
    lengths: BTreeMap<u8, usize>,
}

impl Leaves {
    /// The smallest named CIDR that contains the address.
    pub(super) fn of(&self, address: Ipv4Addr) -> Option<Ipv4Net> {
        let blocks = self.lengths.keys().rev().filter_map(|&length| Ipv4Net::new(address, length).ok());
        blocks.map(|block| block.trunc()).find(|block| self.named.contains_key(block))
    }

    /// Whether the CIDR is named.
    pub(super) fn contains(&self, block: Ipv4Net) -> bool {
        self.named.contains_key(&block)
    }

    /// One more names the CIDR. Returns whether it is new.
    pub(super) fn add(&mut self, block: Ipv4Net) -> bool {
        let count = self.named.entry(block).or_default();
        *count += 1;
        let new = *count == 1;
        if new {
            *self.lengths.entry(block.prefix_len()).or_default() += 1;
        }
        new
    }

    /// One less names the CIDR. Returns whether nobody does any more.
    pub(super) fn remove(&mut self, block: Ipv4Net) -> bool {
        if !lower(&mut self.named, block) {
            return false;
        }
        lower(&mut self.lengths, block.prefix_len());
        true
    }
}

/// Counts down; returns whether zero was reached, which removes the entry.
fn lower<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) -> bool {
    let std::collections::btree_map::Entry::Occupied(mut entry) = counts.entry(key) else { return false };
    *entry.get_mut() -= 1;
    let gone = *entry.get() == 0;
    if gone {
        entry.remove();
    }
    gone
}

/// The CIDRs that a policy names, each as often as it names it.
pub(super) fn named(policy: &Policy) -> impl Iterator<Item = Ipv4Net> {
    let rules = policy.ingress.iter().chain(&policy.egress).flatten();
    rules.flat_map(|rule| rule.peers.iter().flatten()).flat_map(|peer| match peer {
        Peer::Block { cidr, except } => std::iter::once(cidr).chain(except).map(Ipv4Net::trunc).collect(),
        Peer::Pods { .. } => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_the_smallest_cidr_and_cidrs_are_counted() {
        let mut leaves = Leaves::default();
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        for (text, new) in [("10.0.0.0/8", true), ("10.1.0.0/16", true), ("10.1.0.0/16", false)] {
            assert_eq!(leaves.add(net(text)), new);
        }
        let leaf = |leaves: &Leaves, last: [u8; 4]| leaves.of(last.into()).map(|net| net.to_string());
        assert_eq!(leaf(&leaves, [10, 1, 2, 3]).as_deref(), Some("10.1.0.0/16"));
        assert_eq!(leaf(&leaves, [10, 2, 2, 3]).as_deref(), Some("10.0.0.0/8"));
        assert_eq!(leaf(&leaves, [11, 2, 2, 3]), None);
        assert!(!leaves.remove(net("10.1.0.0/16")) && leaves.remove(net("10.1.0.0/16")));
        assert_eq!(leaf(&leaves, [10, 1, 2, 3]).as_deref(), Some("10.0.0.0/8"));
        assert!(!leaves.remove(net("10.1.0.0/16")), "not named any more");
    }
}
