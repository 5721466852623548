//! Policy as the kernel's maps hold it: addresses to identities, and for each pod of a node the traffic that may pass.
//!
//! Everything that depends on more than one rule is settled here: entries only allow, and an address has one identity whose entries
//! were worked out for its leaf, so that no rule's prefix length outweighs another rule.

mod table;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use netkeel_dataplane_common::{
    policies::{Match, Verdict},
    tunnels::Block,
};

use self::table::Part;
use super::{
    Class, Direction, Numbers, Pod, RuleName, Who, World,
    leaves::{self, Leaves},
};
use crate::{address::Address, name::ObjectName};

/// An entry of a table; its table number is 0, to be filled in.
pub type Entry = Match;

/// Content of a table: what may pass, and by which rule. All else is dropped.
pub type Rules = BTreeMap<Entry, Verdict>;

/// One direction of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Table {
    /// No policy isolates it: everything may pass.
    Open,
    /// What may pass. Pods that the same policies isolate share it.
    Rules(Arc<Rules>),
}

/// Both directions of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// What may come to it.
    pub ingress: Table,
    /// What may leave it.
    pub egress: Table,
}

/// What policy means on a node. A pod that is not in `pods` is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Addresses of all pods and nodes → identity.
    pub identities: HashMap<Address, u32>,
    /// CIDRs that policies name → identity of the addresses that are in no smaller one and not in `identities`.
    pub cidrs: HashMap<Block, u32>,
    /// The pods of the own node, but for those that policy does not know as pods ([`Pod::is_subject`]).
    pub pods: BTreeMap<ObjectName, Isolation>,
    /// What the number of a rule in a verdict stands for.
    pub rules: BTreeMap<u32, RuleName>,
}

/// Compiles everything for the node of this name, from nothing.
pub fn compile(world: &World, own_node: &str, numbers: &mut Numbers) -> Compiled {
    let mut leaves = Leaves::default();
    for block in world.policies.values().flat_map(leaves::named) {
        leaves.add(block);
    }
    let mut compiled = Compiled::default();
    let mut classes = BTreeMap::new();
    for (address, class) in addresses(world, &leaves) {
        if let Some(number) = numbers.class(&class) {
            compiled.identities.insert(address, number);
            classes.insert(number, class);
        }
    }
    for leaf in leaves.iter() {
        let class = Class { who: Who::World, leaf: Some(leaf) };
        if let Some(number) = numbers.class(&class) {
            compiled.cidrs.insert(Block::new(leaf.network(), leaf.prefix_len()), number);
            classes.insert(number, class);
        }
    }
    let mut tables = HashMap::new();
    let own = |pod: &&Pod| pod.node.as_deref() == Some(own_node) && pod.is_subject();
    for pod in world.pods.values().filter(own) {
        let mut table = |direction| {
            let policies = isolating(world, pod, direction);
            if policies.is_empty() {
                return Table::Open;
            }
            let key = (direction, policies);
            if let Some(table) = tables.get(&key) {
                return Table::Rules(Arc::clone(table));
            }
            let policies = key.1.iter().filter_map(|name| world.policies.get(name));
            let parts: Vec<_> =
                policies.map(|policy| Part::new(policy, direction, &classes, numbers)).collect();
            compiled.rules.extend(parts.iter().flat_map(Part::names));
            let table = Arc::new(table::merge(parts.iter()));
            tables.insert(key, Arc::clone(&table));
            Table::Rules(table)
        };
        let isolation = Isolation { ingress: table(Direction::Ingress), egress: table(Direction::Egress) };
        compiled.pods.insert(pod.name.clone(), isolation);
    }
    compiled
}

/// The policies that isolate a pod in a direction, by name.
pub(super) fn isolating(world: &World, pod: &Pod, direction: Direction) -> Vec<ObjectName> {
    let policies = world.policies_of(&pod.name.namespace);
    policies.filter(|policy| policy.isolates(pod, direction)).map(|policy| policy.name.clone()).collect()
}

/// The addresses of pods and nodes and their classes. An address that two pods claim is neither's.
fn addresses<'a>(world: &'a World, leaves: &'a Leaves) -> impl Iterator<Item = (Address, Class)> + 'a {
    let pods = world.pods.values().filter(|pod| pod.is_subject());
    let mut claims: BTreeMap<Address, Option<&Pod>> = BTreeMap::new();
    for pod in pods {
        for &address in &pod.addresses {
            claims.entry(address).and_modify(|claim| *claim = None).or_insert(Some(pod));
        }
    }
    let all: BTreeSet<Address> = claims.keys().chain(world.nodes.keys()).copied().collect();
    all.into_iter().filter_map(move |address| {
        let who = if world.nodes.contains_key(&address) {
            Who::Node
        } else {
            world.who(claims.get(&address).copied().flatten()?)
        };
        Some((address, Class { who, leaf: leaves.of(address.ipv4()?) }))
    })
}
