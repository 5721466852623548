//! Keys with a few values each, in the least room: sorted arrays, whose clones share what they have in common. Cloning costs one reference
//! count, a change afterwards copies one array of 256, whatever is in the others.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

const SHARDS: usize = 256;

/// Pairs of a key and a value; the same pair may be there several times.
#[derive(Clone, Debug)]
pub(crate) struct Pairs<K, V> {
    shards: Arc<Vec<Shard<K, V>>>,
    hasher: RandomState,
}

type Shard<K, V> = Arc<Vec<(K, V)>>;

impl<K, V> Default for Pairs<K, V> {
    fn default() -> Self {
        Self { shards: Arc::new(vec![Arc::default(); SHARDS]), hasher: RandomState::new() }
    }
}

impl<K: Hash + Ord + Clone, V: Ord + Clone> Pairs<K, V> {
    /// The pairs of one key, by value.
    pub(crate) fn of(&self, key: &K) -> &[(K, V)] {
        let shard = &self.shards[self.index(key)];
        let from = &shard[shard.partition_point(|(other, _)| other < key)..];
        &from[..from.partition_point(|(other, _)| other == key)]
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        let shard = self.shard(&key);
        if shard.len() == shard.capacity() {
            shard.reserve_exact(shard.len() / 8 + 4);
        }
        let pair = (key, value);
        shard.insert(shard.partition_point(|other| *other < pair), pair);
    }

    /// Takes out one such pair, if there is one.
    pub(crate) fn remove(&mut self, key: &K, value: &V) {
        if let Ok(place) = self.of(key).binary_search_by(|(_, other)| other.cmp(value)) {
            let shard = self.shard(key);
            shard.remove(shard.partition_point(|(other, _)| other < key) + place);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// How many shards differ in place from those of `before`.
    #[cfg(test)]
    pub(crate) fn copied_since(&self, before: &Self) -> usize {
        before.shards.iter().zip(self.shards.iter()).filter(|(a, b)| !Arc::ptr_eq(a, b)).count()
    }

    fn index(&self, key: &K) -> usize {
        usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0)
    }

    fn shard(&mut self, key: &K) -> &mut Vec<(K, V)> {
        let index = self.index(key);
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[index])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pairs_are_those_put_and_not_taken(changes in proptest::collection::vec((any::<bool>(), 0..300_u16, 0..3_u8), 0..400)) {
            let (mut pairs, mut model) = (Pairs::default(), Vec::new());
            for (comes, key, value) in changes {
                if comes {
                    pairs.insert(key, value);
                    model.push((key, value));
                } else {
                    pairs.remove(&key, &value);
                    if let Some(place) = model.iter().position(|pair| *pair == (key, value)) {
                        model.remove(place);
                    }
                }
                model.sort_unstable();
                let expected: Vec<_> = model.iter().copied().filter(|(other, _)| *other == key).collect();
                prop_assert_eq!(pairs.of(&key), expected);
            }
            let mut all: Vec<_> = pairs.iter().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, model);
        }
    }

    #[test]
    fn a_clone_keeps_what_it_saw_and_shares_the_rest() {
        let mut now: Pairs<u32, u32> = Pairs::default();
        (0..10_000).for_each(|key| now.insert(key, key));
        let before = now.clone();
        now.insert(7, 70);
        now.remove(&8, &8);
        now.remove(&20_000, &0);
        assert_eq!((before.of(&7), before.of(&8)), ([(7, 7)].as_slice(), [(8, 8)].as_slice()));
        assert_eq!((now.of(&7), now.of(&8)), ([(7, 7), (7, 70)].as_slice(), [].as_slice()));
        assert!(now.copied_since(&before) <= 2);
    }
}
