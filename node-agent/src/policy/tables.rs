//! Tables of policies: content gets a number, equal content the same one. While a pod names a table, entries come and go only for
//! identities that no address has; all other new content gets a new table. One that nobody names is removed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use netkeel_core::policy::Rules;
use netkeel_dataplane_common::policies::{FIRST_TABLE, Match, Traffic, Verdict};
use netkeel_dataplane_loader::TableError;

use super::maps::Map;

/// All tables of a node.
pub(super) struct Tables {
    map: Map<Match, Verdict>,
    by_number: BTreeMap<u32, Arc<Rules>>,
    by_content: HashMap<Arc<Rules>, u32>,
    /// What could not be removed, or was found and belongs to no table.
    strays: BTreeSet<Match>,
    next: u32,
    entries: usize,
    writes: u64,
}

impl Tables {
    /// The tables that the map holds. `named` are the numbers that endpoints name: one without entries is an empty table.
    pub(super) fn read(
        map: Map<Match, Verdict>,
        named: impl IntoIterator<Item = u32>,
    ) -> Result<Self, TableError> {
        let mut this = Self {
            map,
            by_number: BTreeMap::new(),
            by_content: HashMap::new(),
            strays: BTreeSet::new(),
            next: FIRST_TABLE,
            entries: 0,
            writes: 0,
        };
        let found = this.found(named)?;
        for (number, rules) in found {
            this.enter(number, Arc::new(rules));
        }
        Ok(this)
    }

    /// The number of the table with this content, written where it is not there yet.
    ///
    /// # Errors
    /// It does not fit or cannot be written: nothing of it is left.
    pub(super) fn ensure(&mut self, rules: &Arc<Rules>) -> Result<u32, TableError> {
        if let Some(number) = self.by_content.get(rules) {
            return Ok(*number);
        }
        let number = self.next;
        for (done, (entry, verdict)) in rules.iter().enumerate() {
            if let Err(error) = self.map.put(&at(number, entry), verdict) {
                for entry in rules.keys().take(done) {
                    self.delete(at(number, entry));
                }
                return Err(error);
            }
            self.writes += 1;
        }
        self.enter(number, rules.clone());
        Ok(number)
    }

    /// The content of a table.
    pub(super) fn content(&self, number: u32) -> Option<&Arc<Rules>> {
        self.by_number.get(&number)
    }

    /// Whether a table with this content is there.
    pub(super) fn has(&self, rules: &Arc<Rules>) -> bool {
        self.by_content.contains_key(rules)
    }

    /// Writes what `rules` has more than the table, which keeps all that it has.
    ///
    /// # Errors
    /// It does not fit or cannot be written: the table is as before.
    pub(super) fn grow(&mut self, number: u32, rules: &Arc<Rules>) -> Result<(), TableError> {
        let Some(held) = self.by_number.get(&number).cloned() else { return Ok(()) };
        let new: Vec<_> = rules.iter().filter(|(entry, _)| !held.contains_key(entry)).collect();
        for (done, (entry, verdict)) in new.iter().enumerate() {
            if let Err(error) = self.map.put(&at(number, entry), verdict) {
                for (entry, _) in new.iter().take(done) {
                    self.delete(at(number, entry));
                }
                return Err(error);
            }
            self.writes += 1;
        }
        let mut both = Rules::clone(&held);
        both.extend(new.into_iter().map(|(entry, verdict)| (*entry, *verdict)));
        self.leave(number);
        self.enter(number, Arc::new(both));
        Ok(())
    }

    /// Removes what the table has more than `rules`.
    pub(super) fn shrink(&mut self, number: u32, rules: &Arc<Rules>) {
        let Some(held) = self.leave(number) else { return };
        for entry in held.keys().filter(|entry| !rules.contains_key(entry)) {
            self.delete(at(number, entry));
        }
        self.enter(number, rules.clone());
    }

    /// Removes the tables that are not `named`, and strays. Whether that made room.
    pub(super) fn sweep(&mut self, named: &BTreeSet<u32>) -> bool {
        let unnamed = |number: &&u32| !named.contains(number);
        let gone: Vec<u32> = self.by_number.keys().filter(unnamed).copied().collect();
        let strays = std::mem::take(&mut self.strays);
        let room = !gone.is_empty() || !strays.is_empty();
        for entry in strays {
            self.delete(entry);
        }
        for number in gone {
            for entry in self.leave(number).iter().flat_map(|rules| rules.keys()) {
                self.delete(at(number, entry));
            }
        }
        room
    }

    /// Makes the map hold the tables again that it should: what is missing is written, what is not ours is removed at
    /// the next sweep. Whether anything was.
    ///
    /// # Errors
    /// The map cannot be read or written.
    pub(super) fn repair(&mut self) -> Result<bool, TableError> {
        let (held, before) = (self.map.dump()?, self.writes);
        for (number, rules) in &self.by_number {
            for (entry, verdict) in rules.iter() {
                let entry = at(*number, entry);
                if held.get(&entry) != Some(verdict) {
                    self.map.put(&entry, verdict)?;
                    self.writes += 1;
                }
            }
        }
        let ours = |entry: &Match| {
            let rules = self.by_number.get(&entry.traffic.table);
            rules.is_some_and(|rules| rules.contains_key(&at(0, entry)))
        };
        self.strays = held.into_keys().filter(|entry| !ours(entry)).collect();
        Ok(self.writes > before || !self.strays.is_empty())
    }

    /// The highest numbers of an identity and of a rule in any table.
    pub(super) fn highest_numbers(&self) -> (u32, u32) {
        let entries = self.by_number.values().flat_map(|rules| rules.iter());
        entries.fold((0, 0), |(identity, rule), (entry, verdict)| {
            (identity.max(entry.traffic.identity), rule.max(verdict.rule))
        })
    }

    /// Number of tables.
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Entries of all tables.
    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    /// Removals and writes so far.
    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    fn enter(&mut self, number: u32, rules: Arc<Rules>) {
        self.next = self.next.max(number.saturating_add(1));
        self.entries += rules.len();
        self.by_content.entry(rules.clone()).or_insert(number);
        self.by_number.insert(number, rules);
    }

    /// Forgets a table, not its entries.
    fn leave(&mut self, number: u32) -> Option<Arc<Rules>> {
        let rules = self.by_number.remove(&number)?;
        if self.by_content.get(&rules) == Some(&number) {
            self.by_content.remove(&rules);
        }
        self.entries -= rules.len();
        Some(rules)
    }

    fn found(&self, named: impl IntoIterator<Item = u32>) -> Result<BTreeMap<u32, Rules>, TableError> {
        let named = named.into_iter().filter(|number| *number >= FIRST_TABLE);
        let mut found: BTreeMap<u32, Rules> = named.map(|number| (number, Rules::new())).collect();
        for (entry, verdict) in self.map.dump()? {
            found.entry(entry.traffic.table).or_default().insert(at(0, &entry), verdict);
        }
        Ok(found)
    }

    /// Removes an entry; one that will not go is tried again at the next sweep.
    fn delete(&mut self, entry: Match) {
        match self.map.remove(&entry) {
            Ok(()) => self.writes += 1,
            Err(error) => {
                tracing::warn!(?entry, %error, "an entry that no pod's policy reaches stays for now");
                self.strays.insert(entry);
            }
        }
    }
}

/// The entry in the table of this number.
fn at(table: u32, entry: &Match) -> Match {
    Match { traffic: Traffic { table, ..entry.traffic }, ..*entry }
}
