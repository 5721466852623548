//! How much of the server one client can have: questions a second, questions under way to resolvers, connections, and its part
//! of the datagrams while more come than can be answered. Nothing here waits, and what is decided takes the time as an argument.

pub(crate) mod open;
pub(crate) mod overload;
pub(crate) mod rate;
pub(crate) mod share;
pub(crate) mod sieve;

use std::net::IpAddr;
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::metrics::{Metrics, Reason};
use open::Open;
use rate::{Rate, Rates};

/// What replies that slow clients make a server keep may take, in KiB.
const LONG_REPLIES: usize = 16 << 10;

/// Who counts as one client: an IPv4 address, or the /64 of an IPv6 address, all of which one host can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client(pub(crate) u64);

impl Client {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            // IPv6 addresses that begin like this are those of groups, which send nothing.
            IpAddr::V4(address) => Self(0xffff_ffff_0000_0000 | u64::from(address.to_bits())),
            IpAddr::V6(address) => Self((address.to_bits() >> 64) as u64),
        }
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

    pub(crate) fn verdict(&mut self, address: IpAddr) -> Verdict {
        if self.rate.is_none() && !self.overload.is_on() {
            return Verdict::Pass;
        }
        let client = Client::of(address);
        if self.overload.is_on() && !self.overload.admits(client) {
            self.kept[0] += 1;
            return Verdict::Drop;
        }
        let Some(rate) = self.rate else { return Verdict::Pass };
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
    use super::*;

    #[test]
    fn a_client_is_an_ipv4_address_or_a_64_of_ipv6() {
        let client = |text: &str| Client::of(text.parse().unwrap());
        assert_eq!(client("10.0.0.1"), client("::ffff:10.0.0.1"));
        assert_eq!(client("fd00:1::1"), client("fd00:1::ffff:0:2"));
        let all = ["10.0.0.1", "10.0.0.2", "fd00:1::1", "fd00:1:0:1::1", "::1", "::10.0.0.1"].map(client);
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), 5, "{all:?}");
        assert_eq!(all[4], all[5], "both are of ::/64");
    }
}
