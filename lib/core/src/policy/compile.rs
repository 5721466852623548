//! Policy as the kernel's maps hold it: addresses to identities, and for each pod of a node the traffic that may pass.
//!
//! Everything that depends on more than one rule is settled here: entries only allow, and an address has one identity whose entries
//! were worked out for its leaf, so that no rule's prefix length outweighs another rule.

mod identities;
mod lookup;
mod table;
mod tables;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::Arc,
};

use netkeel_dataplane_common::{
    policies::{Match, Verdict},
    tunnels::Block,
};

use self::{
    identities::Identities,
    tables::{Tables, View},
};
use super::{Direction, Labels, Namespace, Numbers, Pod, Policy, RuleName, World, leaves, named};
use crate::{address::Address, few::Few, name::ObjectName};

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
    /// CIDRs that policies name → identity of the addresses that are in no smaller one and not in `identities`. Where one of IPv6
    /// is around the v4-mapped addresses (`::/0` is) all of IPv4 is an entry too, so that none is taken for an IPv6 one.
    pub cidrs: HashMap<Block, u32>,
    /// The pods of the own node, but for those that policy does not know as pods ([`Pod::is_subject`]).
    pub pods: BTreeMap<ObjectName, Isolation>,
    /// What the number of a rule in a verdict stands for.
    pub rules: BTreeMap<u32, RuleName>,
}

/// How much was done since the compiler was made: what a change costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Addresses whose class was looked up.
    pub addresses: u64,
    /// Times that a class was matched with the rules of a policy's direction.
    pub matches: u64,
    /// Times that a policy was matched with the labels of the own node's pods.
    pub selections: u64,
    /// Tables that were written out.
    pub tables: u64,
}

/// Compiles everything for the node of this name, from nothing.
#[must_use]
pub fn compile(world: &World, own_node: &str, numbers: Numbers) -> Compiled {
    let mut compiler = Compiler::new(own_node, numbers);
    for namespace in world.namespaces.values() {
        compiler.put_namespace(namespace.clone());
    }
    for pod in world.pods.values() {
        compiler.put_pod(pod.clone());
    }
    for policy in world.policies.values() {
        compiler.put_policy(policy.clone());
    }
    compiler.set_nodes(world.nodes.clone());
    compiler.compile();
    compiler.compiled
}

/// Keeps the meaning of a changing world: a change is worked out where it matters, when [`Compiler::compile`] is called.
#[derive(Debug)]
pub struct Compiler {
    own_node: Arc<str>,
    world: World,
    identities: Identities,
    tables: Tables,
    stale: Stale,
    compiled: Compiled,
    work: Work,
}

/// What has changed since the last time.
#[derive(Debug, Default)]
struct Stale {
    addresses: BTreeSet<Address>,
    blocks: BTreeSet<ipnet::IpNet>,
    /// Keys of labels that rules ask for now, or do not any more.
    keys: BTreeSet<named::Key>,
    /// Pods of the own node, known or gone.
    pods: BTreeSet<ObjectName>,
    policies: BTreeSet<ObjectName>,
}

impl Compiler {
    /// An empty world, seen from the node of this name. Classes that have a number keep it, if [`Compiler::compile`] finds them.
    #[must_use]
    pub fn new(own_node: &str, numbers: Numbers) -> Self {
        Self {
            own_node: own_node.into(),
            world: World::default(),
            identities: Identities::new(numbers),
            tables: Tables::default(),
            stale: Stale::default(),
            compiled: Compiled::default(),
            work: Work::default(),
        }
    }

    /// Gives no numbers up to these to classes and rules: see [`Numbers::skip`].
    pub fn skip_numbers(&mut self, class: u32, rule: u32) {
        self.identities.numbers.skip(class, rule);
    }

    /// All that is known.
    #[must_use]
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// The numbers, as of the last [`Compiler::compile`].
    #[must_use]
    pub const fn numbers(&self) -> &Numbers {
        &self.identities.numbers
    }

    /// What was done so far.
    #[must_use]
    pub const fn work(&self) -> Work {
        self.work
    }

    /// A pod was made or changed. Returns whether that may mean anything new.
    pub fn put_pod(&mut self, pod: Pod) -> bool {
        let name = pod.name.clone();
        let old = self.world.pods.insert(name.clone(), pod);
        self.pod_changed(&name, old.as_ref())
    }

    /// A pod is gone. Returns whether that may mean anything new.
    pub fn remove_pod(&mut self, name: &ObjectName) -> bool {
        let old = self.world.pods.remove(name);
        self.pod_changed(name, old.as_ref())
    }

    /// A namespace was made or changed. Returns whether that may mean anything new.
    pub fn put_namespace(&mut self, namespace: Namespace) -> bool {
        let (name, labels) = (Arc::clone(&namespace.name), Arc::clone(&namespace.labels));
        let old = self.world.namespaces.insert(Arc::clone(&name), namespace);
        if old.is_some_and(|old| old.labels == labels) {
            return false;
        }
        self.namespace_changed(&name)
    }

    /// A namespace is gone. Returns whether that may mean anything new.
    pub fn remove_namespace(&mut self, name: &str) -> bool {
        self.world.namespaces.remove(name).is_some() && self.namespace_changed(name)
    }

    /// A policy was made or changed. Returns whether that means anything new.
    pub fn put_policy(&mut self, policy: Policy) -> bool {
        if self.world.policies.get(&policy.name) == Some(&policy) {
            return false;
        }
        let added = leaves::named(&policy).filter(|&block| self.identities.leaves.add(block));
        self.stale.blocks.extend(added);
        let asked = named::keys(&policy).filter(|key| self.identities.keys.add(key.clone()));
        self.stale.keys.extend(asked);
        self.forget_policy(&policy.name);
        self.world.policies.insert(policy.name.clone(), policy);
        true
    }

    /// A policy is gone. Returns whether it was known.
    pub fn remove_policy(&mut self, name: &ObjectName) -> bool {
        self.forget_policy(name)
    }

    /// These are all addresses of nodes, with the nodes' names. Returns whether anything changed.
    pub fn set_nodes(&mut self, nodes: BTreeMap<Address, Arc<str>>) -> bool {
        let old = mem::replace(&mut self.world.nodes, nodes);
        let changed = old != self.world.nodes;
        let here = |nodes: &BTreeMap<_, _>| nodes.keys().copied().collect::<BTreeSet<Address>>();
        self.stale.addresses.extend(&here(&old) ^ &here(&self.world.nodes));
        changed
    }

    /// What all this means. Costs by what changed since the last call; nothing when nothing did.
    pub fn compile(&mut self) -> &Compiled {
        let stale = mem::take(&mut self.stale);
        let changes = self.identities.settle(&self.world, &stale, &mut self.compiled, &mut self.work);
        let mut view = View {
            own_node: &self.own_node,
            world: &self.world,
            members: &self.identities.members,
            numbers: &mut self.identities.numbers,
            work: &mut self.work,
        };
        self.tables.settle(&mut view, &stale, &changes, &mut self.compiled);
        &self.compiled
    }

    fn pod_changed(&mut self, name: &ObjectName, old: Option<&Pod>) -> bool {
        let new = self.world.pods.get(name);
        let is_own = |pod: &&Pod| pod.node.as_ref() == Some(&self.own_node);
        let mut changed = false;
        if old.filter(is_own).and_then(subject) != new.filter(is_own).and_then(subject) {
            changed |= self.stale.pods.insert(name.clone());
        }
        let (from, to) = (old.and_then(peer), new.and_then(peer));
        if from != to {
            let none = Few::default();
            let addresses = |of: Option<(_, _)>| of.map_or(&none, |(addresses, _)| addresses);
            self.identities.move_claims(name, addresses(from), addresses(to));
            self.stale.addresses.extend(addresses(from).iter().chain(addresses(to)));
            changed |= !(addresses(from).is_empty() && addresses(to).is_empty());
        }
        changed
    }

    fn namespace_changed(&mut self, name: &str) -> bool {
        let pods = self.world.pods_of(name).filter(|pod| pod.is_subject());
        let before = self.stale.addresses.len();
        self.stale.addresses.extend(pods.flat_map(|pod| &pod.addresses));
        self.stale.addresses.len() > before
    }

    fn forget_policy(&mut self, name: &ObjectName) -> bool {
        self.stale.policies.insert(name.clone());
        let Some(old) = self.world.policies.remove(name) else { return false };
        let gone = leaves::named(&old).filter(|&block| self.identities.leaves.remove(block));
        self.stale.blocks.extend(gone);
        let unasked = named::keys(&old).filter(|key| self.identities.keys.remove(key.clone()));
        self.stale.keys.extend(unasked);
        true
    }
}

/// What decides which policies isolate a pod; `None` when none can.
fn subject(pod: &Pod) -> Option<&Labels> {
    pod.is_subject().then_some(&pod.labels)
}

/// What decides whom rules mean by a pod; `None` when they do not mean it.
fn peer(pod: &Pod) -> Option<(&Few<Address>, &Labels)> {
    pod.is_subject().then_some((&pod.addresses, &pod.labels))
}

/// The policies that isolate a pod in a direction, by name.
pub(super) fn isolating(world: &World, pod: &Pod, direction: Direction) -> Vec<ObjectName> {
    let policies = world.policies_of(&pod.name.namespace);
    policies.filter(|policy| policy.isolates(pod, direction)).map(|policy| policy.name.clone()).collect()
}
