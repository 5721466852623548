//! What the kernel's service maps hold, and the fewest writes that change them.
//!
//! A frontend has an id that no other frontend gets again, and its backends lie in slots `0..count`. Writes are ordered so that a reader
//! that saw an old count finds a backend in every slot below it, but for a slot that was deleted in that moment.

mod row;

use std::collections::{BTreeSet, HashMap, HashSet, hash_map::Entry};

use netkeel_dataplane_common::{backends::Slot, services::Service};

use self::row::Row;
use super::{Backend, Frontend, endpoints::Frontends};
use crate::name::ObjectName;

/// One write to the kernel's service maps. To be done in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Puts a backend into a slot.
    PutBackend(Slot, Backend),
    /// Makes a frontend known, or changes its number of backends.
    PutService(Frontend, Service),
    /// Makes a frontend unknown.
    DeleteService(Frontend),
    /// Empties a slot at or above the service's number of backends. It may be empty already.
    DeleteBackend(Slot),
}

/// What was read from the kernel's service maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// The map `SERVICES`.
    pub services: HashMap<Frontend, Service>,
    /// The map `BACKENDS`.
    pub backends: HashMap<Slot, Backend>,
}

/// What the kernel's service maps hold and for whom.
#[derive(Debug, Default)]
pub struct Layout {
    rows: HashMap<Frontend, Row>,
    wanted: HashMap<ObjectName, Frontends>,
    claims: HashMap<Frontend, BTreeSet<ObjectName>>,
    next_id: u32,
    /// Slots found in the kernel that no row needed; deleted by [`Layout::sweep`].
    stray: Vec<Slot>,
}

impl Layout {
    /// The layout that the kernel holds already. Ids and slots are kept, so that taking over writes only what differs.
    /// Nothing of it belongs to a Service until [`Layout::update`] says so; [`Layout::sweep`] deletes the rest.
    #[must_use]
    pub fn restore(dump: &Dump) -> Self {
        let mut layout = Self::default();
        let mut ids = HashSet::new();
        let mut rows: Vec<_> = dump.services.iter().collect();
        rows.sort_unstable_by_key(|(frontend, _)| **frontend);
        for (&frontend, &Service { id, count }) in rows {
            layout.next_id = layout.next_id.max(id);
            // Two frontends of one id cannot come from here: the second one gets an id of its own when it is claimed.
            let row = if ids.insert(id) { Row::read(id, count, &dump.backends) } else { Row::unknown() };
            layout.rows.insert(frontend, row);
        }
        layout.next_id = dump.backends.keys().fold(layout.next_id, |next, slot| next.max(slot.service));
        let lengths = layout.lengths();
        layout.stray = dump.backends.keys().filter(|slot| !is_held(&lengths, **slot)).copied().collect();
        layout.stray.sort_unstable();
        layout
    }

    /// Makes the Service have exactly these frontends, and returns the writes that do it: one endpoint more or less is at most three
    /// a frontend. No frontends means that the Service is gone. A frontend that two Services claim belongs to the first by name.
    pub fn update(&mut self, service: &ObjectName, wanted: &Frontends) -> Vec<Write> {
        let old = if wanted.is_empty() {
            self.wanted.remove(service).unwrap_or_default()
        } else {
            self.wanted.insert(service.clone(), wanted.clone()).unwrap_or_default()
        };
        let mut writes = Vec::new();
        for &frontend in wanted.keys() {
            self.claims.entry(frontend).or_default().insert(service.clone());
            self.settle(frontend, &mut writes);
        }
        for &frontend in old.keys().filter(|frontend| !wanted.contains_key(frontend)) {
            if let Entry::Occupied(mut claims) = self.claims.entry(frontend) {
                claims.get_mut().remove(service);
                if claims.get().is_empty() {
                    claims.remove();
                }
            }
            self.settle(frontend, &mut writes);
        }
        writes
    }

    /// The writes that empty slots which [`Layout::restore`] found and no reader reaches. Done first, they make room.
    pub fn sweep_slots(&mut self) -> Vec<Write> {
        let lengths = self.lengths();
        let stray = std::mem::take(&mut self.stray).into_iter();
        stray.filter(|slot| !is_held(&lengths, *slot)).map(Write::DeleteBackend).collect()
    }

    /// The writes that delete all that [`Layout::restore`] found and no Service claimed since.
    pub fn sweep(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        let mut orphans: Vec<Frontend> =
            self.rows.keys().filter(|frontend| !self.claims.contains_key(frontend)).copied().collect();
        orphans.sort_unstable();
        for frontend in orphans {
            self.settle(frontend, &mut writes);
        }
        writes.extend(self.sweep_slots());
        writes
    }

    /// The Services that have frontends.
    pub fn services(&self) -> impl Iterator<Item = &ObjectName> {
        self.wanted.keys()
    }

    /// The number of frontends.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no frontend.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Id → number of slots.
    fn lengths(&self) -> HashMap<u32, u32> {
        self.rows.values().filter_map(|row| Some((row.id?, row.len()))).collect()
    }

    /// Makes the row of one frontend what its first claimant wants.
    fn settle(&mut self, frontend: Frontend, writes: &mut Vec<Write>) {
        let owner = self.claims.get(&frontend).and_then(BTreeSet::first);
        let Some(backends) = owner.and_then(|owner| self.wanted.get(owner)?.get(&frontend)) else {
            if let Some(row) = self.rows.remove(&frontend) {
                writes.push(Write::DeleteService(frontend));
                row.delete_slots(writes);
            }
            return;
        };
        let row = self.rows.entry(frontend).or_insert_with(Row::unknown);
        let id = *row.id.get_or_insert_with(|| {
            self.next_id = self.next_id.wrapping_add(1).max(1);
            self.next_id
        });
        row.become_exactly(id, frontend, backends, writes);
    }
}

fn is_held(lengths: &HashMap<u32, u32>, slot: Slot) -> bool {
    lengths.get(&slot.service).is_some_and(|&length| slot.slot < length)
}
