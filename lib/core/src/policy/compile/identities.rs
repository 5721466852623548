//! Who has which address, and who is the same to every policy.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    hash::Hash,
    mem,
};

use ipnet::{IpNet, Ipv4Net};
use netkeel_dataplane_common::tunnels::Block;

use super::{Compiled, Stale, Work};
use crate::{
    address::Address,
    few::Few,
    name::ObjectName,
    policy::{
        Class, Numbers, Pod, Who, World,
        leaves::Leaves,
        named::{Key, Named, Of},
    },
};

/// Addresses, pods that say that they have them, and classes that have members now.
#[derive(Debug)]
pub(super) struct Identities {
    pub(super) numbers: Numbers,
    pub(super) leaves: Leaves,
    /// Keys of labels that rules ask for: others tell no classes apart.
    pub(super) keys: Named<Key>,
    pub(super) members: Members,
    claims: BTreeMap<Address, Few<ObjectName>>,
    /// Numbers of an earlier run may still be among the numbers.
    inherited: bool,
}

/// Identity → class and number of its members: addresses, and the CIDR itself for those of the world.
pub(super) type Members = BTreeMap<u32, (Class, usize)>;

/// Which classes came and went.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Identities that had no member before.
    pub(super) added: Vec<u32>,
    /// Identities that have no member any more.
    pub(super) removed: Vec<u32>,
}

impl Identities {
    pub(super) fn new(numbers: Numbers) -> Self {
        Self {
            numbers,
            leaves: Leaves::default(),
            keys: Named::default(),
            members: Members::new(),
            claims: BTreeMap::new(),
            inherited: true,
        }
    }

    /// A pod had the addresses `from` and has the addresses `to`.
    pub(super) fn move_claims(&mut self, pod: &ObjectName, from: &Few<Address>, to: &Few<Address>) {
        for &address in from.iter().filter(|address| !to.contains(address)) {
            if let Entry::Occupied(mut claims) = self.claims.entry(address) {
                claims.get_mut().remove(pod);
                if claims.get().is_empty() {
                    claims.remove();
                }
            }
        }
        for &address in to.iter().filter(|address| !from.contains(address)) {
            self.claims.entry(address).or_default().insert(pod.clone());
        }
    }

    /// Gives every address and every CIDR that may have changed its identity.
    pub(super) fn settle(
        &mut self,
        world: &World,
        stale: &Stale,
        compiled: &mut Compiled,
        work: &mut Work,
    ) -> Changes {
        let mut addresses = stale.addresses.clone();
        let mut before = BTreeMap::new();
        for &block in &stale.blocks {
            let inside = Address::from(block.network())..=Address::from(block.broadcast());
            let claimed = self.claims.range(inside.clone()).map(|(address, _)| *address);
            let inside = claimed.chain(world.nodes.range(inside).map(|(address, _)| *address));
            addresses.extend(inside.filter(|address| address.is_v4() == block.network().is_ipv4()));
        }
        // All of IPv4 is the world's, and no part of an IPv6 block around it.
        let ipv4 = IpNet::V4(Ipv4Net::default());
        let more = stale.blocks.iter().any(|block| block.network().is_ipv6()).then_some(ipv4);
        for block in stale.blocks.iter().copied().chain(more) {
            let leaf = self.leaves.contains(block).then_some(block);
            let known = leaf.is_some() || (block == ipv4 && self.leaves.surround_ipv4());
            let class = known.then_some(Class { who: Who::World, leaf });
            self.put(&mut compiled.cidrs, key(block), class, &mut before);
        }
        addresses.extend(self.with_labels(world, &stale.keys));
        for &address in &addresses {
            work.addresses += 1;
            let class = self.class(world, address);
            self.put(&mut compiled.identities, address, class, &mut before);
        }
        self.changes(&before)
    }

    /// Who has an address: its node, or the one pod that says so. An address that two pods claim is neither's: one of them is of the past.
    fn class(&self, world: &World, address: Address) -> Option<Class> {
        let who = if world.nodes.contains_key(&address) {
            Who::Node
        } else {
            self.who(world, world.pods.get(self.claims.get(&address)?.only()?)?)
        };
        Some(Class { who, leaf: self.leaves.of(address.ip()) })
    }

    /// What rules can see of a pod.
    fn who(&self, world: &World, pod: &Pod) -> Who {
        match world.who(pod) {
            Who::Pod { namespace, namespace_labels, labels } => Who::Pod {
                namespace,
                namespace_labels: namespace_labels.map(|labels| self.keys.asked(Of::Namespace, &labels)),
                labels: self.keys.asked(Of::Pod, &labels),
            },
            who => who,
        }
    }

    /// The addresses of pods that have any of these labels, themselves or by their namespace.
    fn with_labels(&self, world: &World, keys: &BTreeSet<Key>) -> Vec<Address> {
        if keys.is_empty() {
            return Vec::new();
        }
        let has = |name: &ObjectName| {
            let namespace = world.namespaces.get(&name.namespace).map(|namespace| &namespace.labels);
            let pod = world.pods.get(name).map(|pod| &pod.labels);
            keys.iter().any(|(whose, key)| {
                let labels = if *whose == Of::Pod { pod } else { namespace };
                labels.is_some_and(|labels| labels.contains_key(key))
            })
        };
        self.claims.iter().filter(|(_, pods)| pods.iter().any(has)).map(|(address, _)| *address).collect()
    }

    /// Makes a key's value the identity of its class, and counts the members.
    fn put<K: Copy + Eq + Hash>(
        &mut self,
        map: &mut HashMap<K, u32>,
        key: K,
        class: Option<Class>,
        before: &mut BTreeMap<u32, bool>,
    ) {
        let new = class.and_then(|class| Some((self.numbers.class(&class)?, class)));
        if let Some((identity, class)) = &new {
            let (_, count) = self.members.entry(*identity).or_insert_with(|| (class.clone(), 0));
            before.entry(*identity).or_insert(*count > 0);
            *count += 1;
        }
        let old = match new {
            Some((identity, _)) => map.insert(key, identity),
            None => map.remove(&key),
        };
        if let Some((identity, (_, count))) = old.and_then(|old| Some((old, self.members.get_mut(&old)?))) {
            before.entry(identity).or_insert(true);
            *count -= 1;
        }
    }

    /// What came and went, given which of the identities in question had members before. The numbers of what went are forgotten.
    fn changes(&mut self, before: &BTreeMap<u32, bool>) -> Changes {
        let mut changes = Changes::default();
        for (&identity, &had_members) in before {
            let Entry::Occupied(member) = self.members.entry(identity) else { continue };
            match (had_members, member.get().1 > 0) {
                (false, true) => changes.added.push(identity),
                (true, false) => changes.removed.push(identity),
                _ => {}
            }
            if member.get().1 == 0 {
                self.numbers.forget(&member.remove().0);
            }
        }
        if mem::take(&mut self.inherited) {
            let members = &self.members;
            self.numbers.retain_classes(|identity| members.contains_key(&identity));
        }
        changes
    }
}

fn key(block: IpNet) -> Block {
    Block::new(block.network(), block.prefix_len())
}
