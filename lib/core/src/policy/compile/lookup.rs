//! Compiled maps asked the way the kernel programs ask them.

use netkeel_dataplane_common::{
    identities::{ANY, WORLD},
    policies::{ALLOW, Traffic, Verdict},
};

use super::{Compiled, Rules, Table};
use crate::{address::Address, name::ObjectName, policy::Direction};

impl Compiled {
    /// The identity of an address: its own, else that of the smallest CIDR around it.
    #[must_use]
    pub fn identity(&self, address: Address) -> u32 {
        let covering =
            self.cidrs.iter().filter(|(block, _)| same(&block.address.0, &address.0, block.prefix_len));
        let leaf = || covering.max_by_key(|(block, _)| block.prefix_len).map(|(_, identity)| *identity);
        self.identities.get(&address).copied().or_else(leaf).unwrap_or(WORLD)
    }

    /// Whether the table of a pod of the own node allows traffic with an address, to a port in host byte order. What the kernel decides
    /// without tables (replies, the own node, a pod's traffic with itself) is not asked here. A pod that is not known is closed.
    #[must_use]
    pub fn allows(
        &self,
        pod: &ObjectName,
        direction: Direction,
        other: Address,
        protocol: u8,
        port: u16,
    ) -> bool {
        let table = self.pods.get(pod).map(|isolation| match direction {
            Direction::Ingress => &isolation.ingress,
            Direction::Egress => &isolation.egress,
        });
        match table {
            None => false,
            Some(Table::Open) => true,
            Some(Table::Rules(rules)) => [self.identity(other), ANY].into_iter().any(|identity| {
                let traffic = Traffic::from_wire(0, identity, protocol, port.to_be());
                look_up(rules, traffic).is_some_and(|verdict| verdict.action == ALLOW)
            }),
        }
    }
}

/// The longest entry that matches.
fn look_up(rules: &Rules, traffic: Traffic) -> Option<Verdict> {
    let traffic = bytes(traffic);
    let matching = rules.iter().filter(|(entry, _)| same(&bytes(entry.traffic), &traffic, entry.prefix_len));
    matching.max_by_key(|(entry, _)| entry.prefix_len).map(|(_, verdict)| *verdict)
}

/// As it lies in memory: a trie compares bytes.
fn bytes(Traffic { table, identity, protocol, reserved, port }: Traffic) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&table.to_ne_bytes());
    bytes[4..8].copy_from_slice(&identity.to_ne_bytes());
    bytes[8..10].copy_from_slice(&[protocol, reserved]);
    bytes[10..].copy_from_slice(&port.to_ne_bytes());
    bytes
}

/// Whether the first bits are the same.
fn same(a: &[u8], b: &[u8], bits: u32) -> bool {
    let differing = a.iter().zip(b).map(|(a, b)| a ^ b).position(|differing| differing != 0);
    differing.is_none_or(|byte| {
        let equal = byte * 8 + (a[byte] ^ b[byte]).leading_zeros() as usize;
        equal >= bits as usize
    })
}
