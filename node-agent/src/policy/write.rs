//! One batch of policy into the maps.
//!
//! The order, so that no single pod is at any moment open to anybody to whom neither the old policy nor the new one opens it:
//! 1. New tables, which nobody names yet, and new entries of tables in place, for identities that nobody has yet.
//! 2. New leaves of CIDRs, small ones first: old tables do not know their numbers and so allow them nothing.
//! 3. Where pods get other tables, identities that others go on to have are taken from the addresses that lose them. Policies only allow:
//!    without its identity an address has no more than its CIDR. An identity that nobody keeps is unknown to new tables, and may stay.
//! 4. Each pod gets its new tables, by one write a direction.
//! 5. New identities.
//! 6. Leaves that are gone, large ones first: new tables did not know them. A pod that outlives its object keeps an old table, and is closed
//!    where that would take their addresses for those around them.
//! 7. Tables that nobody names any more, and entries for identities that nobody has any more.
//! 8. The epoch is raised: flows that were judged before are judged again.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use netkeel_core::{
    address::Address,
    policy::{Rules, Table},
};
use netkeel_dataplane_common::{
    identities::{FIRST, WORLD},
    policies::{CLOSED, Match, Verdict},
    tunnels::Block,
};
use netkeel_dataplane_loader::TableError;

use super::{
    Attached, Outcome, PodRef, Wanted,
    state::{Grown, Sides, State, knows_any},
};

/// A pod that gets other tables.
struct Flip {
    address: Address,
    from: Sides,
    to: Sides,
}

impl State {
    pub(super) fn program(&mut self, wanted: &Wanted<'_>) -> Outcome {
        self.known.clone_from(wanted.pods);
        let mut problems = Vec::new();
        let done = if self.taken_over { self.batch(wanted, &mut problems) } else { Ok(()) };
        if let Err(error) = done {
            self.doubtful = true;
            problems.push(error.to_string());
        }
        self.outcome(wanted.complete, problems)
    }

    fn batch(&mut self, wanted: &Wanted<'_>, problems: &mut Vec<String>) -> Result<(), TableError> {
        if self.doubtful {
            self.refresh()?;
        }
        let keep = |known: bool| wanted.complete || known;
        let mut stale = self.identities.stale(wanted.identities);
        stale.retain(|(address, _)| keep(wanted.identities.contains_key(address)));
        let mut gone = self.cidrs.stale(wanted.cidrs);
        gone.retain(|(leaf, _)| wanted.complete && !wanted.cidrs.contains_key(leaf));
        gone.sort_unstable_by_key(|(leaf, _)| leaf.prefix_len);
        let around = gone.iter().map(|(leaf, _)| leaf_around(wanted.cidrs, leaf)).collect();
        let (flips, grown) = self.plan(wanted, &around);
        let mut leaves = self.cidrs.missing(wanted.cidrs);
        leaves.sort_unstable_by_key(|(leaf, _)| Reverse(leaf.prefix_len));
        let swapped = !(flips.is_empty() && leaves.is_empty() && gone.is_empty());
        let judged_anew = swapped || !stale.is_empty() || (self.unsettled && wanted.complete);
        self.unsettled |= judged_anew;

        let mut unfit = Vec::new();
        for (leaf, number) in leaves {
            // One that does not fit keeps those around it out, too.
            if !unfit.is_empty() || !said(self.cidrs.put(leaf, number), problems)? {
                unfit.push(leaf);
            }
        }
        self.mistaken = taken_for(&unfit, self.cidrs.entries(), &gone);
        let flips = if self.mistaken.is_empty() { flips } else { self.closing(&flips) };
        if swapped {
            self.demote(&stale, wanted)?;
        }
        flips.iter().try_for_each(|flip| self.flip(flip))?;
        for (address, _) in stale.iter().filter(|(address, _)| !wanted.identities.contains_key(address)) {
            self.identities.remove(address)?;
        }
        for (address, identity) in self.identities.missing(wanted.identities) {
            said(self.identities.put(address, identity), problems)?;
        }
        gone.iter().try_for_each(|(leaf, _)| self.cidrs.remove(leaf))?;
        for (number, rules) in &grown {
            self.tables.shrink(*number, rules);
        }
        if self.sweep() && !self.unfit.is_empty() {
            self.fit_again(wanted)?;
        }
        if judged_anew { self.raise() } else { Ok(()) }
    }

    /// Takes identities away that new tables would take for somebody else's.
    fn demote(&mut self, stale: &[(Address, u32)], wanted: &Wanted<'_>) -> Result<(), TableError> {
        let alive = values(wanted.identities, wanted.cidrs);
        let goes = |(address, identity): &&(Address, u32)| {
            alive.contains(identity) || !wanted.identities.contains_key(address)
        };
        stale.iter().filter(goes).try_for_each(|(address, _)| self.identities.remove(address))
    }

    /// Pods whose tables are to change, and tables that change in place. New tables and new entries are written.
    fn plan(&mut self, wanted: &Wanted<'_>, around: &BTreeSet<u32>) -> (Vec<Flip>, Grown) {
        let pods: Vec<_> = self.pods.values().cloned().collect();
        let mut grown = if wanted.complete { self.changing(&pods, wanted) } else { Grown::new() };
        // One that does not fit in place may do so as a new one, when the old one is gone.
        grown.retain(|number, rules| self.tables.grow(*number, rules).is_ok());
        let flip = |(pod, from): (Attached, Sides)| {
            let to = if self.knows(&pod.pod) {
                self.sides(&pod, from, wanted.complete, &grown)
            } else {
                self.outliving(from, around)
            };
            let placed = self.holds(&pod) && self.placed(&pod) == from;
            (to != from || !placed).then_some(Flip { address: pod.address, from, to })
        };
        let flips = pods.into_iter().filter_map(flip).collect();
        (flips, grown)
    }

    /// The tables that can change in place: all pods that name one want the same of it, and it differs in entries only for identities that
    /// no address has yet, or none will have.
    fn changing(&self, pods: &[(Attached, Sides)], wanted: &Wanted<'_>) -> Grown {
        let mut wishes: BTreeMap<u32, Option<&Arc<Rules>>> = BTreeMap::new();
        for (pod, sides) in pods {
            let isolation = self.isolation(&pod.pod);
            for (number, table) in [
                (sides.ingress, isolation.map(|isolation| &isolation.ingress)),
                (sides.egress, isolation.map(|isolation| &isolation.egress)),
            ] {
                let wish = match table {
                    Some(Table::Rules(rules)) => Some(rules),
                    _ => None,
                };
                let all = wishes.entry(number).or_insert(wish);
                *all = all.filter(|all| wish == Some(all));
            }
        }
        let new: Vec<(u32, &Arc<Rules>, &Arc<Rules>)> = wishes
            .into_iter()
            .filter_map(|(number, wish)| Some((number, self.tables.content(number)?, wish?)))
            .filter(|(_, held, rules)| held != rules && !self.tables.has(rules))
            .collect();
        if new.is_empty() {
            return Grown::new();
        }
        let before = values(self.identities.entries(), self.cidrs.entries());
        let after = values(wanted.identities, wanted.cidrs);
        let nobodys = |all: &HashSet<u32>, entry: &Match| {
            entry.traffic.identity >= FIRST && !all.contains(&entry.traffic.identity)
        };
        let in_place = |(_, held, rules): &(u32, &Arc<Rules>, &Arc<Rules>)| {
            let comes = |(entry, verdict): (&Match, &Verdict)| {
                held.get(entry).map_or_else(|| nobodys(&before, entry), |held| held == verdict)
            };
            rules.iter().all(comes)
                && held.keys().all(|entry| rules.contains_key(entry) || nobodys(&after, entry))
        };
        let in_place = new.into_iter().filter(in_place);
        in_place.map(|(number, _, rules)| (number, rules.clone())).collect()
    }

    /// The same with the pods closed that would take addresses of a leaf that did not fit for those around it.
    fn closing(&self, flips: &[Flip]) -> Vec<Flip> {
        let to: HashMap<Address, Sides> = flips.iter().map(|flip| (flip.address, flip.to)).collect();
        let flip = |(address, (pod, from)): (&Address, &(Attached, Sides))| {
            let to = self.without_mistakes(&pod.pod, to.get(address).copied().unwrap_or(*from));
            Flip { address: *address, from: *from, to }
        };
        let known = |flip: &Flip| flip.to != flip.from || to.contains_key(&flip.address);
        self.pods.iter().map(flip).filter(known).collect()
    }

    /// The tables of a pod whose object is gone: those it has, closed where they allow what is `around` a leaf that goes.
    fn outliving(&self, held: Sides, around: &BTreeSet<u32>) -> Sides {
        let side = |number: u32| match self.tables.content(number) {
            Some(rules) if knows_any(rules, around) => CLOSED,
            _ => number,
        };
        Sides { ingress: side(held.ingress), egress: side(held.egress) }
    }

    /// The tables that the maps name for a pod.
    fn placed(&self, pod: &Attached) -> Sides {
        Sides {
            ingress: self.endpoints.get(&pod.address).map_or(Sides::CLOSED.ingress, |held| held.ingress),
            egress: self.links.get(&pod.ifindex).map_or(Sides::CLOSED.egress, |held| held.egress),
        }
    }

    fn flip(&mut self, flip: &Flip) -> Result<(), TableError> {
        let Some((pod, _)) = self.pods.get(&flip.address).cloned() else { return Ok(()) };
        self.place(&pod, flip.to)?;
        self.pods.insert(flip.address, (pod, flip.to));
        Ok(())
    }

    /// Tries again what did not fit, now that there is room.
    fn fit_again(&mut self, wanted: &Wanted<'_>) -> Result<(), TableError> {
        let pods: Vec<_> = self.pods.values().cloned().collect();
        for (pod, from) in pods {
            let to = self.sides(&pod, from, wanted.complete, &Grown::new());
            let to = self.without_mistakes(&pod.pod, to);
            if to != from {
                self.flip(&Flip { address: pod.address, from, to })?;
            }
        }
        self.sweep();
        Ok(())
    }

    fn raise(&mut self) -> Result<(), TableError> {
        let epoch = self.epoch.get(&0).unwrap_or(0);
        self.epoch.put(0, epoch.wrapping_add(1))?;
        self.unsettled = false;
        Ok(())
    }

    fn outcome(&self, complete: bool, mut problems: Vec<String>) -> Outcome {
        let name = |address: &Address| self.pods.get(address).map(|(pod, _)| &pod.pod.name);
        let unfit = self.unfit.iter().filter_map(|(address, error)| Some((name(address)?, error)));
        problems
            .extend(unfit.map(|(pod, error)| {
                format!("pod {pod} is closed, because its policy does not fit: {error}")
            }));
        let closed = |(pod, sides): &(Attached, Sides)| sides.is_closed().then(|| pod.pod.clone());
        let writes =
            [self.identities.writes(), self.cidrs.writes(), self.endpoints.writes(), self.links.writes()];
        let closed: Vec<PodRef> = self.pods.values().filter_map(closed).collect();
        Outcome {
            complete,
            closed,
            tables: self.tables.len(),
            entries: self.tables.entries(),
            identities: self.identities.entries().len(),
            cidrs: self.cidrs.entries().len(),
            writes: writes.iter().sum::<u64>() + self.epoch.writes() + self.tables.writes(),
            problems,
        }
    }
}

/// The identities that addresses of leaves that did not fit are taken for: now, and when the leaves that are gone are taken away.
fn taken_for(unfit: &[Block], held: &HashMap<Block, u32>, gone: &[(Block, u32)]) -> BTreeSet<u32> {
    if unfit.is_empty() {
        return BTreeSet::new();
    }
    let mut later = held.clone();
    for (leaf, _) in gone {
        later.remove(leaf);
    }
    unfit.iter().flat_map(|leaf| [leaf_around(held, leaf), leaf_around(&later, leaf)]).collect()
}

/// The identity that addresses of a leaf have while only these are in the map.
fn leaf_around(leaves: &HashMap<Block, u32>, leaf: &Block) -> u32 {
    let around = leaves.iter().filter(|(block, _)| contains(block, leaf));
    around.max_by_key(|(block, _)| block.prefix_len).map_or(WORLD, |(_, number)| *number)
}

/// Whether one block is inside the other.
fn contains(outer: &Block, inner: &Block) -> bool {
    let bits = |block: &Block| u128::from_be_bytes(block.address.0);
    let behind = 128_u32.saturating_sub(outer.prefix_len);
    let same = (bits(outer) ^ bits(inner)).checked_shr(behind).unwrap_or(0);
    inner.prefix_len >= outer.prefix_len && same == 0
}

/// All identities that an address may have.
fn values(identities: &HashMap<Address, u32>, cidrs: &HashMap<Block, u32>) -> HashSet<u32> {
    identities.values().chain(cidrs.values()).copied().collect()
}

/// Whether it was written; a full map is a problem to tell, and stops nothing.
fn said(written: Result<(), TableError>, problems: &mut Vec<String>) -> Result<bool, TableError> {
    match written {
        Ok(()) => Ok(true),
        Err(error @ TableError::Full { .. }) => {
            let problem = error.to_string();
            if !problems.contains(&problem) {
                problems.push(problem);
            }
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
