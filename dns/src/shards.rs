//! A hash map whose clones share what they have in common: cloning costs one reference count,
//! changing an entry afterwards copies one shard of the table, not the table.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

const SHARDS: usize = 256;

type Shard<K, V> = Arc<HashMap<K, V>>;

/// Values by key, split by hash into shards that snapshots share.
#[derive(Clone, Debug)]
pub(crate) struct Shards<K, V> {
    shards: Arc<Vec<Shard<K, V>>>,
    hasher: RandomState,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self { shards: Arc::new(vec![Arc::default(); SHARDS]), hasher: RandomState::new() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards[self.index(key)].get(key)
    }

    /// The key itself, as it is held.
    pub(crate) fn key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&K>
    where
        K: Borrow<Q>,
    {
        self.shards[self.index(key)].get_key_value(key).map(|(key, _)| key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.shard(&key).insert(key, value);
    }

    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if self.get(key).is_some() {
            self.shard(key).remove(key);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// Changes every value.
    pub(crate) fn each(&mut self, edit: impl Fn(&mut V)) {
        for shard in Arc::make_mut(&mut self.shards) {
            Arc::make_mut(shard).values_mut().for_each(&edit);
        }
    }

    /// How many shards differ in place from those of `before`.
    #[cfg(test)]
    pub(crate) fn copied_since(&self, before: &Self) -> usize {
        before.shards.iter().zip(self.shards.iter()).filter(|(a, b)| !Arc::ptr_eq(a, b)).count()
    }

    fn index<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0)
    }

    fn shard<Q: Hash + ?Sized>(&mut self, key: &Q) -> &mut HashMap<K, V> {
        let index = self.index(key);
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_what_it_saw_and_shares_the_rest() {
        let mut now: Shards<u32, u32> = Shards::default();
        (0..10_000).for_each(|key| now.insert(key, key));
        let before = now.clone();
        now.insert(7, 70);
        now.remove(&8);
        now.remove(&20_000);
        assert_eq!((before.get(&7), before.get(&8), before.iter().count()), (Some(&7), Some(&8), 10_000));
        assert_eq!((now.get(&7), now.get(&8), now.iter().count()), (Some(&70), None, 9_999));
        assert!(now.copied_since(&before) <= 2);
    }
}
