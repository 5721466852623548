//! The tables of the own node's pods: which policies isolate whom, and what these allow.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    Compiled, Isolation, Rules, Stale, Table, Work,
    identities::{Changes, Members},
    isolating,
    table::{Part, merge},
};
use crate::{
    name::ObjectName,
    policy::{Direction, Labels, Numbers, Pod, World},
};

/// The policies that isolate a pod in one direction, by name. Pods of the same ones share a table.
type Key = (Direction, Arc<[ObjectName]>);

/// The tables of the own node, and what they are made from.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Pod of the own node → its ingress and its egress.
    pods: BTreeMap<ObjectName, [Key; 2]>,
    /// Policies that isolate any of them, matched with all classes.
    parts: BTreeMap<(Direction, ObjectName), Part>,
    made: HashMap<Key, Arc<Rules>>,
}

/// What the tables are made of.
pub(super) struct View<'a> {
    pub(super) own_node: &'a str,
    pub(super) world: &'a World,
    pub(super) members: &'a Members,
    pub(super) numbers: &'a mut Numbers,
    pub(super) work: &'a mut Work,
}

impl Tables {
    /// Makes the tables anew that may have changed.
    pub(super) fn settle(
        &mut self,
        view: &mut View,
        stale: &Stale,
        moves: &Changes,
        compiled: &mut Compiled,
    ) {
        let selected = self.select(view, stale);
        let mut changed = self.follow(view, moves);
        for policy in &stale.policies {
            for direction in [Direction::Ingress, Direction::Egress] {
                let part = (direction, policy.clone());
                if self.parts.remove(&part).is_some() {
                    changed.insert(part);
                }
            }
        }
        if selected || !changed.is_empty() {
            self.make(view, &changed);
            compiled.rules = self.parts.values().flat_map(Part::names).collect();
            view.numbers.retain_rules(|number| compiled.rules.contains_key(&number));
            compiled.pods = self.isolations();
        }
    }

    /// Finds the policies of the pods for which they may be others now. Returns whether they are for any.
    fn select(&mut self, view: &mut View, stale: &Stale) -> bool {
        let namespaces: BTreeSet<_> = stale.policies.iter().map(|policy| &policy.namespace).collect();
        let concerned = self.pods.keys().filter(|pod| namespaces.contains(&pod.namespace));
        let pods: BTreeSet<ObjectName> = concerned.chain(&stale.pods).cloned().collect();
        let mut known: HashMap<(Arc<str>, Labels), [Key; 2]> = HashMap::new();
        let mut changed = false;
        for name in pods {
            let is_own = |pod: &&Pod| pod.is_subject() && pod.node.as_deref() == Some(view.own_node);
            let Some(pod) = view.world.pods.get(&name).filter(is_own) else {
                changed |= self.pods.remove(&name).is_some();
                continue;
            };
            let keys =
                known.entry((Arc::clone(&name.namespace), Arc::clone(&pod.labels))).or_insert_with(|| {
                    view.work.selections += 1;
                    let key = |direction| (direction, isolating(view.world, pod, direction).into());
                    [key(Direction::Ingress), key(Direction::Egress)]
                });
            changed |= self.pods.insert(name, keys.clone()).as_ref() != Some(keys);
        }
        changed
    }

    /// Matches the policies in use with the classes that came and went. Returns the ones to which that means anything.
    fn follow(&mut self, view: &mut View, moves: &Changes) -> BTreeSet<(Direction, ObjectName)> {
        let mut changed = BTreeSet::new();
        for (name, part) in &mut self.parts {
            let mut differs = false;
            for &identity in &moves.removed {
                differs |= part.remove(identity);
            }
            for (identity, (class, _)) in
                moves.added.iter().filter_map(|added| view.members.get_key_value(added))
            {
                view.work.matches += 1;
                differs |= part.add(*identity, class);
            }
            if differs {
                changed.insert(name.clone());
            }
        }
        changed
    }

    /// Makes the tables that are wanted and not there, or of which a part has changed; drops the others.
    fn make(&mut self, view: &mut View, changed: &BTreeSet<(Direction, ObjectName)>) {
        let wanted: BTreeSet<Key> =
            self.pods.values().flatten().filter(|(_, policies)| !policies.is_empty()).cloned().collect();
        let parts: BTreeSet<_> = wanted.iter().flat_map(parts_of).collect();
        self.parts.retain(|part, _| parts.contains(part));
        for part in parts {
            let Some(policy) = view.world.policies.get(&part.1) else { continue };
            self.parts.entry(part).or_insert_with_key(|(direction, _)| {
                view.work.matches += view.members.len() as u64;
                Part::new(policy, *direction, view.members, view.numbers)
            });
        }
        let mut old = std::mem::take(&mut self.made);
        for key in wanted {
            let table = match old.remove(&key) {
                Some(table) if parts_of(&key).all(|part| !changed.contains(&part)) => table,
                old => {
                    view.work.tables += 1;
                    let made = merge(parts_of(&key).filter_map(|part| self.parts.get(&part)));
                    old.filter(|old| **old == made).unwrap_or_else(|| Arc::new(made))
                }
            };
            self.made.insert(key, table);
        }
    }

    fn isolations(&self) -> BTreeMap<ObjectName, Isolation> {
        let table = |key: &Key| match &*key.1 {
            [] => Table::Open,
            _ => Table::Rules(self.made.get(key).cloned().unwrap_or_default()),
        };
        let isolation =
            |[ingress, egress]: &[Key; 2]| Isolation { ingress: table(ingress), egress: table(egress) };
        self.pods.iter().map(|(name, keys)| (name.clone(), isolation(keys))).collect()
    }
}

/// The parts of a table.
fn parts_of((direction, policies): &Key) -> impl Iterator<Item = (Direction, ObjectName)> {
    policies.iter().map(|policy| (*direction, policy.clone()))
}
