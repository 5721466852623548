//! The kernel's side, by hand: one look-up of the identity, two longest-prefix matches in the table.

use netkeel_core::{
    address::Address,
    policy::{Compiled, Pod, Rules, Table, World},
};
use netkeel_dataplane_common::{
    identities::{ANY, WORLD},
    policies::{ALLOW, Match, Traffic},
    tunnels::Block,
};

use super::cluster::Flow;

pub(crate) struct Kernel<'a> {
    pub(crate) world: &'a World,
    pub(crate) compiled: &'a Compiled,
}

impl Kernel<'_> {
    /// Traffic of a pod to its own address never leaves the pod.
    pub(crate) fn egress(&self, pod: &Pod, flow: &Flow) -> bool {
        pod.addresses.contains(&flow.other) || self.passes(&self.compiled.pods[&pod.name].egress, flow)
    }

    /// What the own host stack sent is not asked.
    pub(crate) fn ingress(&self, pod: &Pod, flow: &Flow) -> bool {
        let own_node = self.world.nodes.get(&flow.other).is_some_and(|node| Some(node) == pod.node.as_ref());
        own_node
            || pod.addresses.contains(&flow.other)
            || self.passes(&self.compiled.pods[&pod.name].ingress, flow)
    }

    fn passes(&self, table: &Table, flow: &Flow) -> bool {
        let Table::Rules(rules) = table else { return true };
        let look_up =
            |identity| longest(rules, Traffic::from_wire(0, identity, flow.protocol, flow.port.to_be()));
        look_up(self.identity(flow.other)) || look_up(ANY)
    }

    fn identity(&self, address: Address) -> u32 {
        if let Some(identity) = self.compiled.identities.get(&address) {
            return *identity;
        }
        let covers = |block: &&Block| same_bits(&block.address.0, &address.0, block.prefix_len);
        let leaf = self.compiled.cidrs.keys().filter(covers).max_by_key(|block| block.prefix_len);
        leaf.map_or(WORLD, |leaf| self.compiled.cidrs[leaf])
    }
}

/// Whether the longest entry that matches allows.
fn longest(rules: &Rules, traffic: Traffic) -> bool {
    let matches = |entry: &&Match| same_bits(&bytes(entry.traffic), &bytes(traffic), entry.prefix_len);
    let found = rules.keys().filter(matches).max_by_key(|entry| entry.prefix_len);
    found.is_some_and(|entry| rules[entry].action == ALLOW)
}

/// As it lies in memory.
fn bytes(Traffic { table, identity, protocol, reserved, port }: Traffic) -> Vec<u8> {
    let words = [table.to_ne_bytes(), identity.to_ne_bytes()].concat();
    [&words[..], &[protocol, reserved], &port.to_ne_bytes()].concat()
}

fn same_bits(a: &[u8], b: &[u8], bits: u32) -> bool {
    (0..bits as usize).all(|bit| (a[bit / 8] ^ b[bit / 8]) & (0x80 >> (bit % 8)) == 0)
}
