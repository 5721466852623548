//! The maps as tables: one trait, the kernel's tables and an in-memory one for tests, and the loop that
//! makes a table hold what is wanted.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
    io,
};

mod fake;
mod kernel;

pub use fake::FakeTable;
pub use kernel::KernelTable;

/// Why a table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// No room for another entry.
    #[error("table {table} is full: it has room for {capacity} entries")]
    Full {
        /// The map's name.
        table: &'static str,
        /// Entries it has room for.
        capacity: u32,
    },
    /// The kernel refused to read.
    #[error("read table {table}")]
    Read {
        /// The map's name.
        table: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused to write.
    #[error("write table {table}")]
    Write {
        /// The map's name.
        table: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A map of the datapath.
pub trait Table<K, V> {
    /// Every entry.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn dump(&self) -> Result<HashMap<K, V>, TableError>;

    /// The value of `key`.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn get(&self, key: &K) -> Result<Option<V>, TableError>;

    /// Writes one entry, new or not.
    ///
    /// # Errors
    /// When the table is full or cannot be written.
    fn put(&mut self, key: &K, value: &V) -> Result<(), TableError>;

    /// Removes one entry; one that is not there is no error.
    ///
    /// # Errors
    /// When the table cannot be written.
    fn remove(&mut self, key: &K) -> Result<(), TableError>;
}

/// What [`converge`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries written.
    pub written: usize,
    /// Entries removed.
    pub removed: usize,
}

/// Makes `table` hold `want`. Writes before it deletes, so that no flow sees a gap.
///
/// # Errors
/// The first call that failed; what was done until then stays.
pub fn converge<K, V, T, S>(table: &mut T, want: &HashMap<K, V, S>) -> Result<Changes, TableError>
where
    K: Eq + Hash,
    V: PartialEq,
    T: Table<K, V>,
    S: BuildHasher,
{
    let have = table.dump()?;
    let mut changes = Changes::default();
    for (key, value) in want.iter().filter(|(key, value)| have.get(key) != Some(value)) {
        table.put(key, value)?;
        changes.written += 1;
    }
    for key in have.keys().filter(|key| !want.contains_key(key)) {
        table.remove(key)?;
        changes.removed += 1;
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converge_touches_only_what_differs() {
        let mut table = FakeTable::new("TEST");
        for (key, value) in [(1, 'a'), (2, 'b'), (3, 'c')] {
            table.put(&key, &value).unwrap();
        }
        let before = (table.writes(), table.removals());
        let want = HashMap::from([(1, 'a'), (2, 'x'), (4, 'd')]);
        assert_eq!(converge(&mut table, &want).unwrap(), Changes { written: 2, removed: 1 });
        assert_eq!(table.dump().unwrap(), want);
        assert_eq!((table.writes() - before.0, table.removals() - before.1), (2, 1));
        assert_eq!(converge(&mut table, &want).unwrap(), Changes::default());
    }

    #[test]
    fn a_full_table_says_so_and_keeps_what_it_has() {
        let mut table = FakeTable::with_capacity("TEST", 1);
        table.put(&1, &'a').unwrap();
        table.put(&1, &'b').unwrap();
        let error = table.put(&2, &'c').unwrap_err();
        assert_eq!(error.to_string(), "table TEST is full: it has room for 1 entries");
        assert_eq!(table.dump().unwrap(), HashMap::from([(1, 'b')]));
    }
}
