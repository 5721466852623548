//! Whose datagrams are forgotten while more come than can be answered. The kernel, whose queue is full then, forgets those of all
//! alike, the flood's and the others'. Here those of clients that send more than their part are forgotten before they are read,
//! which takes a fraction of the time of an answer, so that the queue gets empty, and floods are kept out of it. Counted for one
//! socket, in rounds.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::Client;
use super::sieve::{self, Sieve};

/// Datagrams of a round.
const ROUND: u16 = 512;
/// What each client may have in a round beyond its part: those that send evenly do not come evenly.
const SLACK: u16 = 16;
/// Counters of a round. Clients that share one are told apart in the next.
const COUNTERS: usize = 4096;

/// What the kernel says of a socket's queue of datagrams that nobody has read yet (`SO_MEMINFO`, Linux 4.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Bytes in it.
    pub(crate) used: u32,
    /// Bytes that it has room for.
    pub(crate) room: u32,
    /// Datagrams that had no room, since the socket was opened; counts on from the largest number with 0.
    pub(crate) lost: u32,
}

/// The clients of a socket under overload.
#[derive(Debug)]
pub(crate) struct Overload {
    on: bool,
    /// How many datagrams a client may have in this round.
    part: u16,
    seen: u16,
    /// Counters that are not 0.
    clients: u16,
    counters: Box<[u16]>,
    /// Another one each round.
    hash: RandomState,
    lost: u32,
    /// Some of the clients that have had more than their part in this round.
    floods: Vec<Client>,
    pub(crate) sieve: Sieve,
}

impl Overload {
    pub(crate) fn new() -> Self {
        Self {
            on: false,
            part: ROUND,
            seen: 0,
            clients: 0,
            counters: vec![0; COUNTERS].into(),
            hash: RandomState::new(),
            lost: 0,
            floods: Vec::with_capacity(sieve::MOST),
            sieve: Sieve::default(),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Begins when more than half of the queue is used, and ends when less than an eighth is. Gives how many datagrams were lost since the last time.
    pub(crate) fn see(&mut self, queue: Queue) -> u32 {
        let was = self.on;
        self.on = queue.used > if was { queue.room / 8 } else { queue.room / 2 };
        if self.on && !was {
            self.next();
        } else if !self.on && queue.used <= queue.room / 64 {
            self.part = ROUND; // a flood that goes on is known; after a rest nobody is
        }
        queue.lost.wrapping_sub(std::mem::replace(&mut self.lost, queue.lost))
    }

    /// Whether a datagram of `client` is within its part.
    pub(crate) fn admits(&mut self, client: Client) -> bool {
        if self.seen == ROUND {
            self.part = part(self.clients);
            for index in 0..self.floods.len() {
                let client = self.floods[index];
                let had = self.counters[self.index(client)];
                if had > self.part {
                    self.sieve.narrow(client, f64::from(self.part) / f64::from(had));
                }
            }
            self.next();
        }
        self.seen += 1;
        let index = self.index(client);
        let counter = &mut self.counters[index];
        self.clients += u16::from(*counter == 0);
        *counter += 1;
        // No more than eight can have so many.
        if *counter == ROUND / 8 && self.floods.len() < sieve::MOST {
            self.floods.push(client);
        }
        *counter <= self.part
    }

    fn index(&self, client: Client) -> usize {
        usize::try_from(self.hash.hash_one(client)).unwrap_or_default() % COUNTERS
    }

    fn next(&mut self) {
        (self.seen, self.clients) = (0, 0);
        self.floods.clear();
        self.counters.fill(0);
        self.hash = RandomState::new();
    }
}

/// How many of a round's datagrams one of `clients` may have. One that is alone keeps nobody waiting.
fn part(clients: u16) -> u16 {
    if clients < 2 { ROUND } else { ROUND / clients + SLACK }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(used: u32, lost: u32) -> Queue {
        Queue { used, room: 800, lost }
    }

    /// How many of each client's datagrams are admitted, of `times` in which each sends as many as told.
    fn admitted(overload: &mut Overload, sends: &[u64], times: u64) -> Vec<u64> {
        let mut admitted = vec![0; sends.len()];
        for _ in 0..times {
            for (client, count) in sends.iter().enumerate() {
                admitted[client] += (0..*count)
                    .map(|_| u64::from(overload.admits(Client::number(client as u64))))
                    .sum::<u64>();
            }
        }
        admitted
    }

    #[test]
    fn it_is_on_while_the_queue_is_long_and_tells_what_was_lost() {
        let mut overload = Overload::new();
        let steps = [(400, 0, false), (401, 0, true), (101, 3, true), (100, 5, false), (400, 5, false)];
        let mut before = 0;
        for (used, lost, on) in steps {
            assert_eq!(overload.see(queue(used, lost)), lost - before);
            assert_eq!(overload.is_on(), on, "{used}");
            before = lost;
        }
        overload.see(queue(0, u32::MAX));
        assert_eq!(overload.see(queue(0, 1)), 2);
    }

    #[test]
    fn who_floods_loses_and_the_others_do_not() {
        let mut overload = Overload::new();
        overload.see(queue(800, 0));
        admitted(&mut overload, &[100, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 10);
        let got = admitted(&mut overload, &[100, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 1000);
        assert!(got[0] < 20_000, "{got:?}");
        let held = overload.sieve.change().expect("the flood is held back");
        assert!(held.len() == 1 && held[0].0 == Client::number(0) && held[0].1 < 0.2, "{held:?}");
        // One in 4096 shares its counter with the flood for a round.
        assert!(got[1..].iter().sum::<u64>() > 9950, "{got:?}");
    }

    #[test]
    fn a_flood_that_comes_back_at_once_is_known_and_after_a_rest_it_is_not() {
        let mut overload = Overload::new();
        let mut first_round = |rest| {
            overload.see(queue(800, 0));
            admitted(&mut overload, &[100, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 10);
            overload.see(queue(rest, 0));
            overload.see(queue(800, 0));
            admitted(&mut overload, &[500], 1)[0]
        };
        assert_eq!((first_round(100), first_round(0)), (62, 500));
    }

    #[test]
    fn clients_that_are_alike_lose_nothing_and_one_alone_neither() {
        let mut overload = Overload::new();
        overload.see(queue(800, 0));
        assert_eq!(admitted(&mut overload, &[1000], 10), [10_000]);
        let mut overload = Overload::new();
        overload.see(queue(800, 0));
        let got = admitted(&mut overload, &[1; 50], 1000);
        assert!(got.iter().all(|count| *count > 990), "{got:?}");
        assert_eq!(overload.sieve.change(), None);
    }
}
