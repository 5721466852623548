//! A table in memory that counts writes, for tests of what stands above.

use std::{collections::HashMap, hash::Hash};

use super::{Table, TableError};

/// A table in memory.
#[derive(Clone, Debug)]
pub struct FakeTable<K, V> {
    name: &'static str,
    capacity: u32,
    entries: HashMap<K, V>,
    writes: usize,
    removals: usize,
}

impl<K, V> FakeTable<K, V> {
    /// An empty table without a limit.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self::with_capacity(name, u32::MAX)
    }

    /// An empty table with room for so many entries.
    #[must_use]
    pub fn with_capacity(name: &'static str, capacity: u32) -> Self {
        Self { name, capacity, entries: HashMap::new(), writes: 0, removals: 0 }
    }

    /// Calls of `put` so far.
    #[must_use]
    pub const fn writes(&self) -> usize {
        self.writes
    }

    /// Calls of `remove` so far.
    #[must_use]
    pub const fn removals(&self) -> usize {
        self.removals
    }

    /// What the table holds.
    #[must_use]
    pub const fn entries(&self) -> &HashMap<K, V> {
        &self.entries
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Table<K, V> for FakeTable<K, V> {
    fn dump(&self) -> Result<HashMap<K, V>, TableError> {
        Ok(self.entries.clone())
    }

    fn get(&self, key: &K) -> Result<Option<V>, TableError> {
        Ok(self.entries.get(key).cloned())
    }

    fn put(&mut self, key: &K, value: &V) -> Result<(), TableError> {
        let room = self.entries.len() < self.capacity as usize;
        if !room && !self.entries.contains_key(key) {
            return Err(TableError::Full { table: self.name, capacity: self.capacity });
        }
        self.entries.insert(key.clone(), value.clone());
        self.writes += 1;
        Ok(())
    }

    fn remove(&mut self, key: &K) -> Result<(), TableError> {
        self.entries.remove(key);
        self.removals += 1;
        Ok(())
    }
}
