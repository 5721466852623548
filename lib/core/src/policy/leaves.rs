//! The CIDRs that policies name. An address belongs to the smallest of them that contains it, its leaf; every other one contains
//! the address exactly when it contains the leaf. An IPv4 address is in no CIDR of IPv6, `::/0` neither.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::{Peer, Policy, named::Named};

/// All named CIDRs.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaves {
    blocks: Named<IpNet>,
    /// The prefix lengths that any of them has, and whether they are of IPv6.
    lengths: Named<(bool, u8)>,
}

impl Leaves {
    /// The smallest named CIDR that contains the address.
    pub(super) fn of(&self, address: IpAddr) -> Option<IpNet> {
        let lengths = self.lengths.descending().filter(|(ipv6, _)| *ipv6 == address.is_ipv6());
        let blocks = lengths.filter_map(|&(_, length)| IpNet::new(address, length).ok());
        blocks.map(|block| block.trunc()).find(|block| self.blocks.contains(block))
    }

    /// Whether the CIDR is named.
    pub(super) fn contains(&self, block: IpNet) -> bool {
        self.blocks.contains(&block)
    }

    /// Whether a CIDR of IPv6 is around the v4-mapped addresses, as which the kernel knows those of IPv4.
    pub(super) fn surround_ipv4(&self) -> bool {
        self.of(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().into()).is_some()
    }

    /// One more names the CIDR. Returns whether it is new.
    pub(super) fn add(&mut self, block: IpNet) -> bool {
        self.blocks.add(block) && {
            self.lengths.add(length(block));
            true
        }
    }

    /// One less names the CIDR. Returns whether nobody does any more.
    pub(super) fn remove(&mut self, block: IpNet) -> bool {
        self.blocks.remove(block) && {
            self.lengths.remove(length(block));
            true
        }
    }
}

fn length(block: IpNet) -> (bool, u8) {
    (block.network().is_ipv6(), block.prefix_len())
}

/// The CIDRs that a policy names, each as often as it names it.
pub(super) fn named(policy: &Policy) -> impl Iterator<Item = IpNet> {
    let rules = policy.ingress.iter().chain(&policy.egress).flatten();
    rules.flat_map(|rule| rule.peers.iter().flatten()).flat_map(|peer| match peer {
        Peer::Block { cidr, except } => std::iter::once(cidr).chain(except).map(IpNet::trunc).collect(),
        Peer::Pods { .. } => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn leaf(leaves: &Leaves, address: &str) -> Option<String> {
        leaves.of(address.parse().unwrap()).map(|net| net.to_string())
    }

    #[test]
    fn an_address_belongs_to_the_smallest_cidr_and_cidrs_are_counted() {
        let mut leaves = Leaves::default();
        for (text, new) in [("10.0.0.0/8", true), ("10.1.0.0/16", true), ("10.1.0.0/16", false)] {
            assert_eq!(leaves.add(net(text)), new);
        }
        assert_eq!(leaf(&leaves, "10.1.2.3").as_deref(), Some("10.1.0.0/16"));
        assert_eq!(leaf(&leaves, "10.2.2.3").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(leaf(&leaves, "11.2.2.3"), None);
        assert!(!leaves.remove(net("10.1.0.0/16")) && leaves.remove(net("10.1.0.0/16")));
        assert_eq!(leaf(&leaves, "10.1.2.3").as_deref(), Some("10.0.0.0/8"));
        assert!(!leaves.remove(net("10.1.0.0/16")), "not named any more");
    }

    #[test]
    fn an_address_belongs_to_a_cidr_of_its_own_family() {
        let mut leaves = Leaves::default();
        assert!(leaves.add(net("fd00:1::/32")) && !leaves.surround_ipv4());
        assert!(leaves.add(net("::/0")) && leaves.surround_ipv4());
        assert!(leaves.add(net("10.0.0.0/32")));
        assert_eq!(leaf(&leaves, "fd00:1::7").as_deref(), Some("fd00:1::/32"));
        assert_eq!(leaf(&leaves, "fd00:2::7").as_deref(), Some("::/0"));
        assert_eq!(
            (leaf(&leaves, "10.0.0.0").as_deref(), leaf(&leaves, "10.0.0.1")),
            (Some("10.0.0.0/32"), None)
        );
        assert!(leaves.remove(net("::/0")) && !leaves.surround_ipv4());
    }
}
