//! What policies name, counted: the CIDRs and the keys of labels that their rules tell peers apart by.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{Labels, Peer, Policy, Requirement, Selector};

/// Things, and how often each is named.
#[derive(Clone, Debug)]
pub(super) struct Named<T>(BTreeMap<T, usize>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord> Named<T> {
    /// One more names it. Returns whether it is new.
    pub(super) fn add(&mut self, thing: T) -> bool {
        let count = self.0.entry(thing).or_default();
        *count += 1;
        *count == 1
    }

    /// One less names it. Returns whether nobody does any more.
    pub(super) fn remove(&mut self, thing: T) -> bool {
        let Entry::Occupied(mut count) = self.0.entry(thing) else { return false };
        *count.get_mut() -= 1;
        let gone = *count.get() == 0;
        if gone {
            count.remove();
        }
        gone
    }

    /// Whether anybody names it.
    pub(super) fn contains(&self, thing: &T) -> bool {
        self.0.contains_key(thing)
    }

    /// What is named, the last first.
    pub(super) fn descending(&self) -> impl Iterator<Item = &T> {
        self.0.keys().rev()
    }
}

/// Whose label a key is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Of {
    Namespace,
    Pod,
}

/// A key of labels that a rule asks for.
pub(super) type Key = (Of, String);

/// The keys that the rules of a policy ask for, each as often as they do.
pub(super) fn keys(policy: &Policy) -> impl Iterator<Item = Key> {
    let rules = policy.ingress.iter().chain(&policy.egress).flatten();
    let peers = rules.flat_map(|rule| rule.peers.iter().flatten());
    peers.flat_map(|peer| match peer {
        Peer::Pods { namespaces, pods } => {
            let namespaces = namespaces.iter().flat_map(|selector| of(Of::Namespace, selector));
            namespaces.chain(of(Of::Pod, pods)).collect()
        }
        Peer::Block { .. } => Vec::new(),
    })
}

fn of(whose: Of, selector: &Selector) -> impl Iterator<Item = Key> {
    selector.0.iter().map(move |requirement| match requirement {
        Requirement::In(key, _) | Requirement::NotIn(key, _) => (whose, key.clone()),
        Requirement::Exists(key) | Requirement::DoesNotExist(key) => (whose, key.clone()),
    })
}

impl Named<Key> {
    /// The labels among these that any rule asks for.
    pub(super) fn asked(&self, whose: Of, labels: &Labels) -> Labels {
        let asked = labels.iter().filter(|(key, _)| self.contains(&(whose, (*key).to_owned())));
        Labels::new(asked.collect())
    }
}
