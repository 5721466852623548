//! One answer that is kept. Its times are milliseconds since the cache began.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::reply::{Kind, Reply, Told};

/// What an answer takes besides its bytes, in bytes: its own fields, its place in the table (16, of which the table keeps up to half free), in
/// the queue (8), in the slab (16) and among those that were dropped (32), and what the allocator keeps beside four pieces of memory (16 each).
const OVERHEAD: usize = size_of::<Entry>() + 16 + 32 + 8 + 16 + 32 + 4 * 16;
/// An answer is fetched anew when less than this part of its time is left, and it was asked for this often.
const PREFETCH_PART: u64 = 10;
const PREFETCH_LEAST: u64 = 1000;
const PREFETCH_HITS: u32 = 2;
/// After a fetch that failed, the answer that is over is given at once for this long, in milliseconds (RFC 8767 section 5).
const RECHECK: u64 = 5000;

/// An answer, and what it is kept under.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Box<[u8]>,
    /// Whom it was had from.
    pub(crate) origin: u64,
    pub(crate) reply: Reply,
    since: u64,
    until: u64,
    hits: AtomicU32,
    prefetched: AtomicBool,
    /// Before this the resolvers are not asked again.
    recheck: AtomicU64,
}

/// How an answer is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// As it is; its age in seconds.
    Fresh(u32),
    /// It is over, by no more than is allowed.
    Stale,
    /// Not at all.
    Dead,
}

impl Entry {
    /// The answer `reply`, had from `origin` at the time `now`.
    pub(crate) fn new(key: &[u8], origin: u64, reply: Reply, now: u64) -> Self {
        let until = now + u64::from(reply.ttl()) * 1000;
        let (hits, prefetched, recheck) = (AtomicU32::new(0), AtomicBool::new(false), AtomicU64::new(0));
        Self { key: key.into(), origin, reply, since: now, until, hits, prefetched, recheck }
    }

    /// Whether it is for keeping at all.
    pub(crate) fn lasts(&self) -> bool {
        self.until > self.since
    }

    /// Memory that it takes, in bytes.
    pub(crate) fn cost(&self) -> usize {
        OVERHEAD + self.key.len() + self.reply.memory()
    }

    /// How it is to be taken where answers that are over are given for `stale` milliseconds.
    pub(crate) fn age(&self, now: u64, stale: u64) -> Age {
        if now < self.until {
            let age = now.saturating_sub(self.since) / 1000;
            return Age::Fresh(u32::try_from(age).unwrap_or(u32::MAX));
        }
        let given = self.reply.kind() != Kind::Failure && now - self.until < stale;
        if given { Age::Stale } else { Age::Dead }
    }

    /// Counts that it was asked for. True once, when it is worth to be fetched anew.
    pub(crate) fn hit(&self, now: u64) -> bool {
        let hits = self.hits.fetch_add(1, Ordering::Relaxed) + 1;
        let late = PREFETCH_LEAST.max((self.until - self.since) / PREFETCH_PART);
        hits >= PREFETCH_HITS
            && self.until.saturating_sub(now) <= late
            && self.reply.kind() != Kind::Failure
            && !self.prefetched.swap(true, Ordering::Relaxed)
    }

    /// It could not be fetched anew just now: [`Entry::hit`] may say so again.
    pub(crate) fn not_fetched(&self) {
        self.prefetched.store(false, Ordering::Relaxed);
    }

    /// Whether a fetch has failed so lately that none is tried.
    pub(crate) fn rests(&self, now: u64) -> bool {
        now < self.recheck.load(Ordering::Relaxed)
    }

    /// A fetch has failed.
    pub(crate) fn failed(&self, now: u64) {
        self.recheck.store(now + RECHECK, Ordering::Relaxed);
    }
}

/// An answer and how it is told.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) entry: std::sync::Arc<Entry>,
    pub(crate) told: Told,
}

impl Given {
    /// The message, its id and flags as the resolver sent them.
    pub(crate) fn bytes(&self, turn: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entry.reply.size() + 16);
        self.entry.reply.put(&mut bytes, self.told, turn);
        bytes
    }
}
