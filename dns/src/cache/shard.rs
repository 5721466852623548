//! A part of the cache, and who goes when it is full: S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP
//! 2023). An answer begins in the small queue, a tenth of the room. What is not asked for again before it has gone through that
//! is dropped; the others move to the main queue, which gives each a round more for each of its last three uses. So a flood of random
//! names, none of them asked twice, never gets beyond its tenth, however long it lasts. LRU lets such a flood have everything, and
//! SIEVE lets its hand sweep over everything, so that names asked less often than it comes round are lost. What was dropped is remembered
//! by its hash for a while, and goes to the main queue when it comes back. Pure.

use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::entry::{Age, Entry};
use super::reply::Kind;

/// Uses that are remembered.
const USES: u8 = 3;
/// The part of the room that is the small queue.
const SMALL: usize = 10;
/// An answer that would take more than this part of the room is not kept.
const LARGEST: usize = 4;

/// How much a shard holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

/// Takes hashes as they are.
#[derive(Default)]
pub(super) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type ByHash = BuildHasherDefault<AsIs>;

#[derive(Debug)]
struct Node {
    entry: Arc<Entry>,
    hash: u64,
    uses: u8,
    /// Whether it is in the small queue.
    small: bool,
}

/// Answers by the hash of their key.
#[derive(Debug)]
pub(super) struct Shard {
    limits: Limits,
    found: HashMap<u64, u32, ByHash>,
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    small_bytes: usize,
    bytes: usize,
    dropped: VecDeque<u64>,
    known: HashSet<u64, ByHash>,
    /// Whether another one has taken its place.
    retired: bool,
}

/// How many answers came and went: positive ones and others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) added: [i64; 2],
    pub(super) evicted: [u64; 2],
}

/// 0 for positive answers, 1 for others.
pub(super) fn class(entry: &Entry) -> usize {
    usize::from(entry.reply.kind() != Kind::Positive)
}

impl Shard {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            found: HashMap::default(),
            nodes: Vec::new(),
            free: Vec::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            small_bytes: 0,
            bytes: 0,
            dropped: VecDeque::new(),
            known: HashSet::default(),
            retired: false,
        }
    }

    /// The answer under `key`, whose hash is `hash`. It counts as used.
    pub(super) fn get(&mut self, hash: u64, key: &[u8]) -> Option<&Arc<Entry>> {
        let node = self.nodes.get_mut(*self.found.get(&hash)? as usize)?.as_mut()?;
        if *node.entry.key != *key {
            return None;
        }
        node.uses = USES.min(node.uses + 1);
        Some(&node.entry)
    }

    /// Keeps `entry`, in the place of one with the same key. Others go where there is no room.
    pub(super) fn put(&mut self, hash: u64, entry: Arc<Entry>, (now, stale): (u64, u64)) -> Moved {
        let (mut moved, cost) = (Moved::default(), entry.cost());
        if cost > self.limits.bytes / LARGEST {
            return moved;
        }
        moved.added[class(&entry)] += 1;
        self.bytes += cost;
        if let Some(old) = self.place(hash, entry) {
            moved.added[class(&old)] -= 1;
        }
        while self.bytes > self.limits.bytes || self.found.len() > self.limits.entries {
            let Some(gone) = self.evict(now, stale) else { break };
            moved.added[class(&gone)] -= 1;
            moved.evicted[class(&gone)] += 1;
        }
        self.forget();
        if self.retired { Moved::default() } else { moved }
    }

    /// Counts what is kept as gone, and nothing from now on.
    pub(super) fn retire(&mut self) -> Moved {
        let mut moved = Moved::default();
        if !std::mem::replace(&mut self.retired, true) {
            self.entries().for_each(|entry| moved.added[class(entry)] -= 1);
        }
        moved
    }

    /// Puts `entry` where its hash says; gives the one that was there.
    fn place(&mut self, hash: u64, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let cost = entry.cost();
        let vacant = match self.found.entry(hash) {
            Place::Occupied(place) => {
                let node = self.nodes[*place.get() as usize].as_mut()?;
                let old = std::mem::replace(&mut node.entry, entry);
                self.bytes -= old.cost();
                if node.small {
                    self.small_bytes = self.small_bytes + cost - old.cost();
                }
                return Some(old);
            }
            Place::Vacant(vacant) => vacant,
        };
        let small = !self.known.remove(&hash);
        let place = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
        });
        vacant.insert(place);
        self.nodes[place as usize] = Some(Node { entry, hash, uses: 0, small });
        if small {
            self.small.push_back(place);
            self.small_bytes += cost;
        } else {
            self.main.push_back(place);
        }
        None
    }

    /// Drops the answer whose turn it is.
    fn evict(&mut self, now: u64, stale: u64) -> Option<Arc<Entry>> {
        loop {
            let full = self.small_bytes * SMALL >= self.limits.bytes
                || self.small.len() * SMALL >= self.limits.entries;
            let small = self.main.is_empty() || (full && !self.small.is_empty());
            let place = if small { self.small.pop_front() } else { self.main.pop_front() }?;
            let node = self.nodes[place as usize].as_mut()?;
            if small {
                self.small_bytes -= node.entry.cost();
            }
            if node.uses > 0 && node.entry.age(now, stale) != Age::Dead {
                node.uses = if small { 0 } else { node.uses - 1 };
                node.small = false;
                self.main.push_back(place);
                continue;
            }
            let node = self.nodes[place as usize].take()?;
            self.free.push(place);
            self.found.remove(&node.hash);
            self.bytes -= node.entry.cost();
            if small && self.known.insert(node.hash) {
                self.dropped.push_back(node.hash);
            }
            return Some(node.entry);
        }
    }

    /// As many hashes are remembered as answers are kept, so that their memory is that of the answers.
    fn forget(&mut self) {
        while self.dropped.len() > self.found.len() {
            if let Some(hash) = self.dropped.pop_front() {
                self.known.remove(&hash);
            }
        }
    }

    /// All answers, the oldest of each queue first.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let all = self.main.iter().chain(&self.small);
        all.filter_map(|place| self.nodes[*place as usize].as_ref()).map(|node| &node.entry)
    }

    /// Memory that the answers take, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests;
