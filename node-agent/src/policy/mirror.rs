//! A map with a copy of what it holds: what is there already is not written again.

use std::{collections::HashMap, hash::Hash};

use netkeel_dataplane_loader::TableError;

use super::maps::Map;

/// A map and what it holds.
pub(super) struct Mirror<K, V> {
    map: Map<K, V>,
    entries: HashMap<K, V>,
    writes: u64,
}

impl<K: Copy + Eq + Hash, V: Copy + PartialEq> Mirror<K, V> {
    /// A map as it is.
    pub(super) fn read(map: Map<K, V>) -> Result<Self, TableError> {
        let entries = map.dump()?;
        Ok(Self { map, entries, writes: 0 })
    }

    /// Looks again what the map holds, and whether that is something else than what was written.
    pub(super) fn refresh(&mut self) -> Result<bool, TableError> {
        let before = std::mem::replace(&mut self.entries, self.map.dump()?);
        Ok(before != self.entries)
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.entries.get(key).copied()
    }

    pub(super) fn entries(&self) -> &HashMap<K, V> {
        &self.entries
    }

    /// Removals and writes so far.
    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    /// Makes the map hold this.
    pub(super) fn put(&mut self, key: K, value: V) -> Result<(), TableError> {
        if self.entries.get(&key) == Some(&value) {
            return Ok(());
        }
        self.map.put(&key, &value)?;
        self.writes += 1;
        self.entries.insert(key, value);
        Ok(())
    }

    /// Makes the map hold nothing there.
    pub(super) fn remove(&mut self, key: &K) -> Result<(), TableError> {
        if self.entries.contains_key(key) {
            self.map.remove(key)?;
            self.writes += 1;
            self.entries.remove(key);
        }
        Ok(())
    }

    /// What the map holds and `want` does not, or not so.
    pub(super) fn stale(&self, want: &HashMap<K, V>) -> Vec<(K, V)> {
        let other = |(key, value): &(&K, &V)| want.get(key) != Some(value);
        self.entries.iter().filter(other).map(|(key, value)| (*key, *value)).collect()
    }

    /// What the map does not hold as `want` does.
    pub(super) fn missing(&self, want: &HashMap<K, V>) -> Vec<(K, V)> {
        let new = |(key, value): &(&K, &V)| self.entries.get(key) != Some(value);
        want.iter().filter(new).map(|(key, value)| (*key, *value)).collect()
    }
}
