//! How much of the server one client can have: questions a second, questions under way to resolvers, connections, and its part
//! of the datagrams while more come than can be answered. Nothing here waits, and what is decided takes the time as an argument.

pub(crate) mod open;
pub(crate) mod overload;
pub(crate) mod rate;
pub(crate) mod share;
pub(crate) mod sieve;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::metrics::{Metrics, Reason};
use open::Open;
use rate::{Rate, Rates};

/// What replies that slow clients make a server keep may take, in KiB.
const LONG_REPLIES: usize = 16 << 10;

/// Who counts as one client: an address, whose datagrams of a header alone count apart. Not the /64 of an IPv6 address, although one host outside can have all of that: the pods of a
/// cluster have a /64 together (their nodes a /122 of it each), and so do the hosts of a LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Client {
    /// IPv4 addresses are those of `::ffff:0:0/96`.
    pub(crate) address: Ipv6Addr,
    /// Whether it is what it sends of headers alone, such as the questions for the status of a node's agent ([`crate::status`]), and else all
    /// the rest: what a process with the node's address asks in a flood does not keep the agent from an answer.
    pub(crate) bare: bool,
}

impl Client {
    pub(crate) fn of(address: IpAddr) -> Self {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        Self { address, bare: false }
    }

    #[cfg(test)]
    pub(crate) const fn number(number: u64) -> Self {
        Self { address: Ipv6Addr::from_bits(number as u128), bare: false }
    }
}

/// What all sockets of a server count together. One of these for each, of a fixed size.
#[derive(Debug)]
pub(crate) struct Limits {
    started: Instant,
    /// Of datagrams, whose sender may be another than they say.
    pub(crate) datagrams: Rates,
    /// Of connections: only who can be answered has one.
    pub(crate) streams: Rates,
    pub(crate) connections: Open,
    /// KiB of replies that slow clients make a server keep.
    pub(crate) long_replies: Semaphore,
    metrics: Metrics,
}

impl Limits {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            started: Instant::now(),
            datagrams: Rates::new(),
            streams: Rates::new(),
            connections: Open::default(),
            long_replies: Semaphore::new(LONG_REPLIES),
            metrics,
        }
    }

    /// The time as rates have it: nanoseconds since the start.
    pub(crate) fn at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_nanos()).unwrap_or(u64::MAX / 2)
    }

    /// Counts what was kept from a client.
    pub(crate) fn count(&self, reason: Reason, times: u64) {
        self.metrics.limited(reason, times);
    }
}

/// What becomes of a datagram before anybody reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is read.
    Pass,
    /// It gets the answer that the question should come over TCP.
    Cut,
    /// It is forgotten.
    Drop,
}

/// Decides about the datagrams of one socket.
#[derive(Debug)]
pub(crate) struct Gate<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) overload: overload::Overload,
    pub(crate) rate: Option<Rate>,
    /// As [`Limits::at`] says.
    pub(crate) now: u64,
    /// What was kept from clients and is not counted yet, by [`Reason`].
    kept: [u64; 3],
}

impl<'a> Gate<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        Self { limits, overload: overload::Overload::new(), rate: None, now: 0, kept: [0; 3] }
    }

    /// About a datagram from `address`, of a header alone or not; no rate limits those that are, whose answers are no longer.
    pub(crate) fn verdict(&mut self, address: IpAddr, bare: bool) -> Verdict {
        if self.rate.is_none() && !self.overload.is_on() {
            return Verdict::Pass;
        }
        let client = Client { bare, ..Client::of(address) };
        if self.overload.is_on() && !self.overload.admits(client) {
            self.kept[0] += 1;
            return Verdict::Drop;
        }
        let Some(rate) = self.rate.filter(|_| !bare) else { return Verdict::Pass };
        let verdict = self.limits.datagrams.verdict(client, rate, self.now);
        match verdict {
            Verdict::Pass => {}
            Verdict::Cut => self.kept[1] += 1,
            Verdict::Drop => self.kept[2] += 1,
        }
        verdict
    }

    /// Counts what was kept from clients since the last time.
    pub(crate) fn count(&mut self) {
        let reasons = [Reason::Overload, Reason::Rate, Reason::RateDropped];
        for (reason, kept) in reasons.into_iter().zip(&mut self.kept) {
            if *kept > 0 {
                self.limits.count(reason, std::mem::take(kept));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use netkeel_crds::cluster_network::RateLimit;

    use super::*;

    #[test]
    fn a_client_is_an_address_of_either_family() {
        let client = |text: &str| Client::of(text.parse().unwrap());
        assert_eq!(client("10.0.0.1"), client("::ffff:10.0.0.1"));
        let all = ["10.0.0.1", "10.0.0.2", "fd00:1::1", "fd00:1::41", "fd00:1:0:1::1", "::1", "::10.0.0.1"];
        let all = all.map(client);
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len(), "{all:?}");
    }

    #[test]
    fn an_agent_is_answered_while_a_process_with_its_address_floods() {
        let handler = crate::fuzz::handler();
        let (mut gate, node, other) =
            (Gate::new(handler.limits()), IpAddr::from([10, 0, 0, 1]), [10, 0, 0, 2].into());
        let flood = |gate: &mut Gate<'_>, bare| {
            gate.verdict(other, false);
            (0..100).filter(|_| gate.verdict(node, bare) == Verdict::Pass).count()
        };
        let answered = |gate: &mut Gate<'_>| {
            (0..50).map(|_| (flood(gate, false), gate.verdict(node, true))).unzip::<_, _, Vec<_>, Vec<_>>()
        };
        gate.rate = Rate::of(&RateLimit { queries_per_second: 1, burst: 0 });
        let (passed, probes) = answered(&mut gate);
        assert_eq!((passed.iter().sum::<usize>(), probes), (1, vec![Verdict::Pass; 50]), "beyond its rate");
        gate.rate = None;
        gate.overload.see(overload::Queue { used: 800, room: 800, lost: 0 });
        let (passed, probes) = answered(&mut gate);
        assert!(passed.iter().sum::<usize>() < 3000, "beyond its part: {passed:?}");
        assert_eq!(probes, [Verdict::Pass; 50]);
        let passed = (0..50).map(|_| flood(&mut gate, true)).sum::<usize>();
        assert!(passed < 3500, "who floods with headers has a part, too: {passed} of 5000");
    }

    #[test]
    fn pods_of_one_network_do_not_share_what_one_may_have() {
        let [flood, good] = ["fd00:1::41", "fd00:1::42"].map(|text| Client::of(text.parse().unwrap()));
        let shares = share::Shares::default();
        let held: Vec<_> = std::iter::from_fn(|| shares.take(flood, 10)).collect();
        assert_eq!((held.len(), shares.take(good, 10).is_some()), (5, true));
        let (rates, limit) = (Rates::new(), RateLimit { queries_per_second: 10, burst: 0 });
        let rate = Rate::of(&limit).unwrap();
        let verdicts = |client| (0..20).map(|_| rates.verdict(client, rate, 1)).collect::<Vec<_>>();
        assert!(verdicts(flood).contains(&Verdict::Cut));
        assert_eq!(verdicts(good)[..10], [Verdict::Pass; 10]);
    }
}
