//! The CIDRs that policies name. An address belongs to the smallest of them that contains it, its leaf; every other one contains
//! the address exactly when it contains the leaf.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Peer, Policy, named::Named};

/// All named CIDRs.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaves {
    blocks: Named<Ipv4Net>,
    /// The prefix lengths that any of them has.
    lengths: Named<u8>,
}

impl Leaves {
    /// The smallest named CIDR that contains the address.
    pub(super) fn of(&self, address: Ipv4Addr) -> Option<Ipv4Net> {
        let blocks = self.lengths.descending().filter_map(|&length| Ipv4Net::new(address, length).ok());
        blocks.map(|block| block.trunc()).find(|block| self.blocks.contains(block))
    }

    /// Whether the CIDR is named.
    pub(super) fn contains(&self, block: Ipv4Net) -> bool {
        self.blocks.contains(&block)
    }

    /// One more names the CIDR. Returns whether it is new.
    pub(super) fn add(&mut self, block: Ipv4Net) -> bool {
        self.blocks.add(block) && {
            self.lengths.add(block.prefix_len());
            true
        }
    }

    /// One less names the CIDR. Returns whether nobody does any more.
    pub(super) fn remove(&mut self, block: Ipv4Net) -> bool {
        self.blocks.remove(block) && {
            self.lengths.remove(block.prefix_len());
            true
        }
    }
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
