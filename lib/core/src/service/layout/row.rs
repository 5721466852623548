//! The slots of one frontend.

use std::collections::{BTreeSet, HashMap, HashSet};

use netkeel_dataplane_common::{backends::Slot, services::Service};

use super::Write;
use crate::service::{Backend, Frontend};

/// A frontend's id, its count as the kernel has it, and what its slots hold; `None` is a slot that was found empty.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) id: Option<u32>,
    known: bool,
    slots: Vec<Option<Backend>>,
}

impl Row {
    /// A frontend that the kernel does not know, or knows wrongly.
    pub(super) fn unknown() -> Self {
        Self::default()
    }

    /// A frontend as the kernel has it.
    pub(super) fn read(id: u32, count: u32, backends: &HashMap<Slot, Backend>) -> Self {
        // A count that the slots cannot fill is damage: it must not make us allocate by it.
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let known = count <= backends.len();
        let slots = (0..)
            .map(|slot| backends.get(&Slot { service: id, slot }).copied())
            .take(count.min(backends.len()))
            .collect();
        Self { id: Some(id), known, slots }
    }

    /// The number of slots.
    pub(super) fn len(&self) -> u32 {
        index(self.slots.len())
    }

    /// Makes the slots hold exactly these backends: free slots take missing backends, what is left of them takes the last slots' backends.
    pub(super) fn become_exactly(
        &mut self,
        id: u32,
        frontend: Frontend,
        want: &BTreeSet<Backend>,
        writes: &mut Vec<Write>,
    ) {
        let before = self.slots.len();
        let mut moved = self.missing(want).into_iter();
        for slot in 0..want.len() {
            if slot == self.slots.len() {
                self.slots.push(None);
            }
            if self.slots[slot].is_none() {
                self.slots[slot] = moved.next().or_else(|| self.take_last(slot));
                if let Some(backend) = self.slots[slot] {
                    writes.push(Write::PutBackend(place(id, slot), backend));
                }
            }
        }
        if want.len() != before || !self.known {
            writes.push(Write::PutService(frontend, Service { id, count: index(want.len()) }));
            self.known = true;
        }
        for slot in (want.len()..before).rev() {
            writes.push(Write::DeleteBackend(place(id, slot)));
        }
        self.slots.truncate(want.len());
    }

    /// Empties all slots, the last one first.
    pub(super) fn delete_slots(&self, writes: &mut Vec<Write>) {
        let Some(id) = self.id else { return };
        writes.extend((0..self.slots.len()).rev().map(|slot| Write::DeleteBackend(place(id, slot))));
    }

    /// Frees the slots of backends that are not wanted (or held twice) and returns the wanted ones that no slot holds.
    fn missing(&mut self, want: &BTreeSet<Backend>) -> Vec<Backend> {
        let mut held = HashSet::new();
        for slot in &mut self.slots {
            *slot = slot.filter(|backend| want.contains(backend) && held.insert(*backend));
        }
        want.iter().filter(|backend| !held.contains(backend)).copied().collect()
    }

    /// Takes the backend of the last slot that holds one, as long as it lies behind `slot`.
    fn take_last(&mut self, slot: usize) -> Option<Backend> {
        self.slots[slot + 1..].iter_mut().rev().find_map(Option::take)
    }
}

/// Slots and counts are 32 bits wide in the maps; an API server cannot hold as many endpoints.
fn index(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}

fn place(service: u32, slot: usize) -> Slot {
    Slot { service, slot: index(slot) }
}
