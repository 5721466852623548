//! Answers of resolvers that are kept: bounded by number and by memory, in shards that each have a lock of their own, so that the
//! threads of datagrams seldom meet. Knows no sockets, and takes the time from its callers.

mod entry;
pub(crate) mod key;
pub(crate) mod quick;
pub(crate) mod reply;
mod shard;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use netkeel_crds::cluster_network::dns;

pub(crate) use entry::{Age, Entry, Given};
use shard::{Limits, Shard};

use crate::metrics::Caching;

/// Shards at most, and what each of them has at least: small parts would be full before the whole is.
const SHARDS: usize = 16;
const ENTRIES: usize = 512;
const BYTES: usize = 256 << 10;

/// The answers that are kept.
#[derive(Debug)]
pub(crate) struct Cache {
    limits: Limits,
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// When the times of its entries begin.
    started: Instant,
    metrics: Caching,
}

fn limits(told: &dns::Cache) -> Limits {
    let number = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    Limits { entries: number(told.max_entries), bytes: number(told.max_bytes) }
}

impl Cache {
    /// A cache as it is told, with what there was `before`; `None` where nothing is to be kept.
    pub(crate) fn new(told: &dns::Cache, before: Option<&Arc<Self>>, metrics: &Caching) -> Option<Arc<Self>> {
        let limits = limits(told);
        if let Some(before) = before.filter(|before| before.limits == limits) {
            return Some(before.clone());
        }
        let kept = before.map(|before| before.retire()).unwrap_or_default();
        if limits.entries == 0 {
            return None;
        }
        let shards = (limits.entries / ENTRIES).min(limits.bytes / BYTES).clamp(1, SHARDS);
        let part = |whole: usize, index: usize| whole / shards + usize::from(index < whole % shards);
        let shard = |index| {
            let limits = Limits { entries: part(limits.entries, index), bytes: part(limits.bytes, index) };
            Mutex::new(Shard::new(limits))
        };
        let cache = Self {
            limits,
            shards: (0..shards).map(shard).collect(),
            hasher: RandomState::new(),
            started: before.map_or_else(Instant::now, |before| before.started),
            metrics: metrics.clone(),
        };
        let (now, stale) = (cache.time(Instant::now()), stale(told));
        for entry in kept {
            cache.put(entry, now, stale);
        }
        Some(Arc::new(cache))
    }

    /// Gives all that is kept to another one, which counts it from then on. What is put here afterwards, by questions that were under way, is
    /// not counted.
    fn retire(&self) -> Vec<Arc<Entry>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let moved = shard.retire();
            all.extend(shard.entries().cloned());
            drop(shard);
            self.metrics.moved(moved.added, moved.evicted);
        }
        all
    }

    /// The time that entries are measured by, in milliseconds.
    pub(crate) fn time(&self, now: Instant) -> u64 {
        milliseconds(now.saturating_duration_since(self.started))
    }

    /// What is kept under `key`, had from `origin`, however old.
    pub(crate) fn get(&self, key: &[u8], origin: u64) -> Option<Arc<Entry>> {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash).lock().unwrap_or_else(PoisonError::into_inner);
        shard.get(hash, key).filter(|entry| entry.origin == origin).cloned()
    }

    /// Keeps `entry`, and less of others where there is no room; those that have been over for `stale` milliseconds go first.
    pub(crate) fn put(&self, entry: Arc<Entry>, now: u64, stale: u64) {
        let hash = self.hasher.hash_one(&*entry.key);
        let moved = {
            let mut shard = self.shard(hash).lock().unwrap_or_else(PoisonError::into_inner);
            shard.put(hash, entry, (now, stale))
        };
        self.metrics.moved(moved.added, moved.evicted);
    }

    pub(crate) fn metrics(&self) -> &Caching {
        &self.metrics
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // the lower bits choose the place within the shard
        let index = usize::try_from(hash >> 48).unwrap_or(0) % self.shards.len();
        &self.shards[index]
    }
}

/// How long answers that are over are given, in milliseconds.
pub(crate) fn stale(told: &dns::Cache) -> u64 {
    u64::from(told.serve_stale.max_age_seconds) * 1000
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests;
