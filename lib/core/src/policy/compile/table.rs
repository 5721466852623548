//! Rules to entries.

use std::collections::BTreeSet;

use netkeel_dataplane_common::{
    identities::ANY,
    policies::{ALLOW, Match, PROTOCOL_BITS, Verdict},
};

use super::{Rules, identities::Members};
use crate::policy::{Class, Direction, Numbers, Peer, Policy, Rule, RuleName, ports};

/// One direction of one policy, matched with all classes.
#[derive(Debug)]
pub(super) struct Part {
    rules: Vec<Matched>,
}

/// A rule and the identities of the classes that it means.
#[derive(Debug)]
struct Matched {
    name: RuleName,
    number: u32,
    peers: Option<Vec<Peer>>,
    identities: BTreeSet<u32>,
    /// What it allows each of them, identity and table zero.
    traffic: Vec<Match>,
}

impl Part {
    /// Matches the rules of a policy with all classes, which are given by identity.
    pub(super) fn new(
        policy: &Policy,
        direction: Direction,
        members: &Members,
        numbers: &mut Numbers,
    ) -> Self {
        let rules = policy.rules(direction).unwrap_or_default().iter().enumerate();
        let mut part = Self {
            rules: rules.map(|(index, rule)| Matched::new(policy, direction, index, rule, numbers)).collect(),
        };
        for (&identity, (class, _)) in members {
            part.add(identity, class);
        }
        part
    }

    /// There is one more class. Returns whether any rule means it.
    pub(super) fn add(&mut self, identity: u32, class: &Class) -> bool {
        let mut changed = false;
        for rule in self.rules.iter_mut().filter(|rule| rule.means(class)) {
            changed |= rule.identities.insert(identity);
        }
        changed
    }

    /// A class is gone. Returns whether any rule meant it.
    pub(super) fn remove(&mut self, identity: u32) -> bool {
        self.rules.iter_mut().fold(false, |changed, rule| rule.identities.remove(&identity) | changed)
    }

    /// Numbers and names of the rules.
    pub(super) fn names(&self) -> impl Iterator<Item = (u32, RuleName)> {
        self.rules.iter().map(|rule| (rule.number, rule.name.clone()))
    }
}

impl Matched {
    fn new(policy: &Policy, direction: Direction, index: usize, rule: &Rule, numbers: &mut Numbers) -> Self {
        let name = RuleName { policy: policy.name.clone(), direction, index };
        let number = numbers.rule(&name);
        let mut identities = BTreeSet::new();
        if rule.peers.is_none() {
            identities.insert(ANY);
        }
        Self { name, number, peers: rule.peers.clone(), identities, traffic: traffic(rule) }
    }

    fn means(&self, class: &Class) -> bool {
        let namespace = &self.name.policy.namespace;
        self.peers.iter().flatten().any(|peer| peer.matches(namespace, class))
    }
}

/// What a rule allows, whoever the peer is: identity and table zero.
fn traffic(rule: &Rule) -> Vec<Match> {
    let Some(ports) = &rule.ports else { return vec![Match::identity(0, 0)] };
    let entries = ports.iter().flat_map(|ports| {
        let protocol = ports.protocol as u8;
        ports::prefixes(ports.range.clone()).map(move |(port, bits)| Match::ports(0, 0, protocol, port, bits))
    });
    entries.collect()
}

/// The table that allows what any of the parts allows; where several rules allow the same, the first one is named.
pub(super) fn merge<'a>(parts: impl Iterator<Item = &'a Part>) -> Rules {
    let mut rules = Rules::new();
    for rule in parts.flat_map(|part| &part.rules) {
        let verdict = Verdict { rule: rule.number, action: ALLOW };
        for &identity in &rule.identities {
            for entry in &rule.traffic {
                rules.entry(of(entry, identity)).or_insert(verdict);
            }
        }
    }
    prune(&mut rules);
    rules
}

/// Takes out what a broader entry allows as well.
fn prune(rules: &mut Rules) {
    let lengths: BTreeSet<u32> = rules.keys().map(|entry| entry.prefix_len).collect();
    let covered = |entry: &Match| {
        let broader = |identity: u32, length: u32| {
            let broad = of(&cut(entry, length), identity);
            broad != *entry && rules.contains_key(&broad)
        };
        lengths
            .range(..=entry.prefix_len)
            .any(|&length| broader(entry.traffic.identity, length) || broader(ANY, length))
    };
    let superfluous: Vec<Match> = rules.keys().filter(|entry| covered(entry)).copied().collect();
    for entry in superfluous {
        rules.remove(&entry);
    }
}

/// The same entry for another identity.
const fn of(entry: &Match, identity: u32) -> Match {
    let mut entry = *entry;
    entry.traffic.identity = identity;
    entry
}

/// The entry of this prefix length that covers a longer one.
fn cut(entry: &Match, length: u32) -> Match {
    let traffic = entry.traffic;
    match length.checked_sub(PROTOCOL_BITS) {
        None => Match::identity(0, traffic.identity),
        Some(bits) => {
            let bits = u8::try_from(bits).unwrap_or(16);
            Match::ports(0, traffic.identity, traffic.protocol, u16::from_be(traffic.port), bits)
        }
    }
}
