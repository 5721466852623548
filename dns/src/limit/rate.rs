//! Questions a second of each client: a token bucket each, kept as the time from which on it is full again (the generic cell rate
//! algorithm of ITU-T I.371), in a table of a fixed size that all threads share. A look-up is one hash and four slots; nothing is
//! allocated and nothing waits. Two threads that give a slot to two clients at once let a few questions too many through, no more.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use netkeel_crds::cluster_network::RateLimit;

use super::{Client, Verdict};

/// Groups of slots; a power of two.
const GROUPS: usize = 4096;
/// Slots of a group: as many clients whose hash is the same are told apart.
const WAYS: usize = 4;
const SECOND: u64 = 1_000_000_000;

/// A limit that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Nanoseconds from question to question.
    interval: u64,
    /// How far ahead of that a client may be, in nanoseconds.
    tolerance: u64,
    /// Another number for each limit, never 0.
    number: u64,
}

impl Rate {
    /// `None` where no limit is set.
    pub(crate) fn of(limit: &RateLimit) -> Option<Self> {
        let interval = SECOND.checked_div(u64::from(limit.queries_per_second))?;
        let burst = if limit.burst == 0 { limit.queries_per_second } else { limit.burst };
        let number = u64::from(limit.queries_per_second) << 32 | u64::from(burst);
        Some(Self { interval, tolerance: interval * u64::from(burst - 1), number })
    }
}

#[derive(Debug, Default)]
struct Slot {
    /// The client's hash, which nobody can choose, and in which an address has room.
    client: AtomicU64,
    /// When the bucket is full again, in nanoseconds.
    full: AtomicU64,
    /// The same of the bucket of those answers that send a client to TCP.
    cut: AtomicU64,
}

impl Slot {
    /// How long from now on nobody else should have it.
    fn full_again(&self) -> u64 {
        self.full.load(Relaxed).max(self.cut.load(Relaxed))
    }
}

/// The buckets of all clients of late.
#[derive(Debug)]
pub(crate) struct Rates {
    slots: Box<[Slot]>,
    /// So that nobody can choose addresses that fall into one group.
    hash: RandomState,
    /// The number of the limit that the buckets are of.
    of: AtomicU64,
}

impl Rates {
    pub(crate) fn new() -> Self {
        Self {
            slots: (0..GROUPS * WAYS).map(|_| Slot::default()).collect(),
            hash: RandomState::new(),
            of: AtomicU64::new(0),
        }
    }

    /// All buckets are full again when another limit is set: what a client owes by the old one means nothing by the new one. Threads that
    /// see it at different times do this more than once, which gives clients a burst more.
    fn hold_to(&self, rate: Rate) {
        if self.of.load(Relaxed) != rate.number {
            self.of.store(rate.number, Relaxed);
            for slot in &self.slots {
                slot.full.store(0, Relaxed);
                slot.cut.store(0, Relaxed);
            }
        }
    }

    /// What becomes of a datagram of `client` at `now`, in nanoseconds. Beyond the limit as many get the answer to come over TCP; it is no
    /// longer than the question, but one for each would still send a flood on to whom the sender pretends to be.
    pub(crate) fn verdict(&self, client: Client, rate: Rate, now: u64) -> Verdict {
        self.hold_to(rate);
        let slot = self.slot(client, now);
        if take(&slot.full, rate, now) {
            Verdict::Pass
        } else if take(&slot.cut, rate, now) {
            Verdict::Cut
        } else {
            Verdict::Drop
        }
    }

    /// How long the next question of `client` has to wait, which has its turn then; `None`, and no turn, where that is beyond `patience`.
    pub(crate) fn turn(&self, client: Client, rate: Rate, now: u64, patience: Duration) -> Option<Duration> {
        self.hold_to(rate);
        let wait = |full: u64| Duration::from_nanos(full.max(now).saturating_sub(now + rate.tolerance));
        let next = |full: u64| (wait(full) <= patience).then(|| full.max(now) + rate.interval);
        self.slot(client, now).full.fetch_update(Relaxed, Relaxed, next).ok().map(wait)
    }

    /// The slot of `client`; that of the client of its group that has rested longest where it has none.
    fn slot(&self, client: Client, now: u64) -> &Slot {
        let client = self.hash.hash_one(client);
        let group = usize::try_from(client).unwrap_or_default() % GROUPS;
        let slots = &self.slots[group * WAYS..(group + 1) * WAYS];
        if let Some(slot) = slots.iter().find(|slot| slot.client.load(Relaxed) == client) {
            return slot;
        }
        let mut rested = &slots[0];
        for slot in &slots[1..] {
            if slot.full_again() < rested.full_again() {
                rested = slot;
            }
        }
        rested.client.store(client, Relaxed);
        rested.full.store(now, Relaxed);
        rested.cut.store(now, Relaxed);
        rested
    }
}

fn take(full: &AtomicU64, rate: Rate, now: u64) -> bool {
    let next = |full: u64| {
        let full = full.max(now);
        (full - now <= rate.tolerance).then(|| full + rate.interval)
    };
    full.fetch_update(Relaxed, Relaxed, next).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Client = Client::number(1);
    const B: Client = Client::number(2);

    fn rate(queries_per_second: u32, burst: u32) -> Rate {
        Rate::of(&RateLimit { queries_per_second, burst }).unwrap()
    }

    /// How many of `count` datagrams pass, are cut and are dropped.
    fn verdicts(rates: &Rates, client: Client, rate: Rate, now: u64, count: usize) -> [usize; 3] {
        let all: Vec<Verdict> = (0..count).map(|_| rates.verdict(client, rate, now)).collect();
        [Verdict::Pass, Verdict::Cut, Verdict::Drop]
            .map(|wanted| all.iter().filter(|verdict| **verdict == wanted).count())
    }

    #[test]
    fn beyond_the_limit_as_many_are_cut_and_the_rest_is_dropped_and_each_client_has_its_own() {
        let (rates, rate) = (Rates::new(), rate(100, 0));
        assert_eq!(verdicts(&rates, A, rate, SECOND, 300), [100, 100, 100]);
        assert_eq!(verdicts(&rates, B, rate, SECOND, 50), [50, 0, 0]);
        assert_eq!(verdicts(&rates, A, rate, SECOND + SECOND / 10, 30), [10, 10, 10]);
        assert_eq!(
            verdicts(&rates, A, rate, 3 * SECOND, 101),
            [100, 1, 0],
            "a rest fills the bucket, not more"
        );
    }

    #[test]
    fn a_client_at_the_limit_is_never_cut() {
        let (rates, rate) = (Rates::new(), rate(1000, 1));
        for turn in 1..2000 {
            assert_eq!(rates.verdict(A, rate, turn * SECOND / 1000), Verdict::Pass);
        }
    }

    #[test]
    fn the_burst_is_as_told_or_a_second() {
        for (burst, expected) in [(0, 10), (1, 1), (25, 25)] {
            assert_eq!(verdicts(&Rates::new(), A, rate(10, burst), 7, 100)[0], expected);
        }
        assert_eq!(Rate::of(&RateLimit::default()), None);
    }

    #[test]
    fn a_connection_has_its_turn_after_a_while_and_none_where_that_is_too_long() {
        let (rates, rate, patience) = (Rates::new(), rate(10, 2), Duration::from_millis(250));
        let turns: Vec<_> = (0..6).map(|_| rates.turn(A, rate, SECOND, patience)).collect();
        let after = |milliseconds| Some(Duration::from_millis(milliseconds));
        assert_eq!(turns, [after(0), after(0), after(100), after(200), None, None]);
        assert_eq!(rates.turn(A, rate, SECOND + SECOND / 10, patience), after(200));
        assert_eq!(rates.turn(B, rate, SECOND, patience), after(0));
    }

    #[test]
    fn another_limit_frees_those_that_the_old_one_held_back_and_holds_from_then_on() {
        let (rates, old, new) = (Rates::new(), rate(1, 100), rate(100, 0));
        assert_eq!(verdicts(&rates, A, old, SECOND, 300), [100, 100, 100]);
        assert_eq!(verdicts(&rates, A, new, SECOND + 1, 300), [100, 100, 100]);
        assert_eq!(verdicts(&rates, A, rate(1, 2), SECOND + 2, 6), [2, 2, 2]);
        let (rates, patience) = (Rates::new(), Duration::from_secs(5));
        let turns = |rate| (0..200).filter(|_| rates.turn(A, rate, SECOND, patience).is_some()).count();
        assert_eq!((turns(rate(1, 100)), turns(new)), (105, 200));
    }

    #[test]
    fn any_number_of_clients_fits_and_who_floods_keeps_its_slot() {
        let (rates, rate) = (Rates::new(), rate(10, 0));
        let slots = rates.slots.len();
        assert_eq!(verdicts(&rates, A, rate, SECOND, 100), [10, 10, 80]);
        for other in 10..200_000 {
            assert_eq!(rates.verdict(Client::number(other), rate, SECOND), Verdict::Pass);
        }
        assert_eq!((verdicts(&rates, A, rate, SECOND, 10), rates.slots.len()), ([0, 0, 10], slots));
    }
}
