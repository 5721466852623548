//! The probers of one test, and what they counted.

use std::fmt;

use anyhow::Result;
use netkeel_e2e::workload::client::{Seen, Streams};
use netkeel_e2e::workload::prober::{Forbidden, Numbers, Probe, Received};
use netkeel_e2e::workload::sandbox::leaked;
use netkeel_e2e::workload::{ECHO_PORT, Prober};

use crate::bed::cluster;

const CONNECTIONS: u32 = 5;

/// Traffic that goes on until [`Probes::end`].
#[derive(Default)]
pub(crate) struct Probes<'a> {
    streams: Vec<Probe<Streams>>,
    numbers: Vec<Probe<Numbers>>,
    knocks: Vec<Probe<Seen>>,
    forbidden: Vec<Probe<Forbidden>>,
    /// What servers had got before the first datagram, for the client of that address.
    watched: Vec<Watched<'a>>,
    overflowed: Vec<(&'a Prober<'static>, u64)>,
}

struct Watched<'a> {
    server: &'a Prober<'static>,
    client: String,
    before: Received,
}

/// What they came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) faults: usize,
    pub(crate) exchanges: u64,
    pub(crate) resets: u64,
    pub(crate) sent: u64,
    /// Numbers of established flows that did not come back, but for as many as full sockets dropped.
    pub(crate) lost: u64,
    /// All that did not come back.
    pub(crate) missing: u64,
    /// Datagrams that full sockets dropped: the machine was too slow for its own probers. On a machine with nothing else to
    /// do there are none.
    pub(crate) overflowed: u64,
    pub(crate) duplicated: u64,
    pub(crate) connects: u64,
    pub(crate) failed: u64,
    /// Tries of forbidden flows.
    pub(crate) tried: u64,
    /// Those that got through, by the word of either end.
    pub(crate) forbidden: u64,
    pub(crate) leaked: Vec<String>,
    longest_gap_ms: f64,
    errors: Vec<String>,
}

impl<'a> Probes<'a> {
    /// Established flows of either protocol from `client` to `server`, the first of TCP through the Service too.
    pub(crate) fn allowed(
        &mut self,
        client: &Prober<'static>,
        server: &'a Prober<'static>,
        service: &str,
    ) -> Result<()> {
        self.overflowed.push((server, server.received(&client.address)?.overflowed));
        self.streams.push(client.streams(service, ECHO_PORT, CONNECTIONS)?);
        self.streams.push(client.streams(&server.address, ECHO_PORT, CONNECTIONS)?);
        self.numbers.push(client.numbers(&server.address, ECHO_PORT)?);
        self.knocks.push(client.connects(service, ECHO_PORT)?);
        Ok(())
    }

    /// A flow that the policy forbids.
    pub(crate) fn forbidden(&mut self, from: &Prober<'static>, to: &'a Prober<'static>) -> Result<()> {
        let before = to.received(&from.address)?;
        self.watched.push(Watched { server: to, client: from.address.clone(), before });
        self.forbidden.push(from.forbidden(&to.address, ECHO_PORT)?);
        Ok(())
    }

    /// Fails where a prober has ended.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        self.streams.iter_mut().try_for_each(Probe::goes_on)?;
        self.numbers.iter_mut().try_for_each(Probe::goes_on)?;
        self.knocks.iter_mut().try_for_each(Probe::goes_on)?;
        self.forbidden.iter_mut().try_for_each(Probe::goes_on)
    }

    /// Ends the traffic, adds everything up and says it.
    pub(crate) fn end(self, what: &str, faults: usize) -> Result<Outcome> {
        let mut outcome = Outcome { faults, ..Outcome::default() };
        for probe in self.streams {
            outcome.add_streams(probe.end()?);
        }
        for probe in self.numbers {
            outcome.add_numbers(probe.end()?);
        }
        for probe in self.knocks {
            outcome.add_knocks(probe.end()?);
        }
        for probe in self.forbidden {
            outcome.add_forbidden(&probe.end()?);
        }
        for Watched { server, client, before } in self.watched {
            let after = server.received(&client)?;
            outcome.forbidden += after.connections - before.connections + after.datagrams - before.datagrams;
        }
        for (server, before) in self.overflowed {
            outcome.overflowed += server.received(&server.address)?.overflowed.saturating_sub(before);
        }
        outcome.missing = outcome.lost;
        outcome.lost = outcome.missing.saturating_sub(outcome.overflowed);
        outcome.leaked = leaked(cluster())?;
        println!("{what}: {outcome}");
        Ok(outcome)
    }
}

impl Outcome {
    fn add_streams(&mut self, streams: Streams) {
        self.exchanges += streams.exchanges;
        self.resets += streams.resets;
        self.lost += streams.lost;
        self.longest_gap_ms = self.longest_gap_ms.max(streams.longest_gap_ms);
        self.errors.extend(streams.errors);
    }

    fn add_numbers(&mut self, numbers: Numbers) {
        self.sent += numbers.sent;
        self.lost += numbers.lost;
        self.overflowed += numbers.overflowed;
        self.duplicated += numbers.duplicated;
        self.longest_gap_ms = self.longest_gap_ms.max(numbers.longest_gap_ms);
        self.errors.extend(numbers.errors);
    }

    fn add_knocks(&mut self, seen: Seen) {
        self.connects += seen.ok;
        self.failed += seen.failed;
        self.errors.extend(seen.errors.into_keys());
    }

    fn add_forbidden(&mut self, seen: &Forbidden) {
        self.tried += seen.connects + seen.datagrams;
        self.forbidden += seen.connected + seen.answered;
    }

    /// Established flows felt nothing, nothing forbidden got through, nothing leaked; and enough was tried to say so.
    pub(crate) fn assert_unharmed(&self) {
        assert!(self.exchanges > 1000 && self.sent > 1000, "too little traffic: {self}");
        assert_eq!((self.resets, self.lost, self.duplicated), (0, 0, 0), "{self}");
        assert!(self.tried > 100, "too few forbidden tries: {self}");
        assert_eq!(self.forbidden, 0, "{self}");
        assert!(self.leaked.is_empty(), "{self}");
    }

    /// New connections worked all the time too.
    pub(crate) fn assert_no_connect_failed(&self) {
        assert!(self.connects > 100 && self.failed == 0, "{self}");
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "faults={} resets={} lost={} duplicated={} of {} exchanges and {} datagrams (missing={} overflowed={}, longest gap {:.0} ms), \
             failed={} of {} connects, forbidden={} of {} tries, leaked={}",
            self.faults,
            self.resets,
            self.lost,
            self.duplicated,
            self.exchanges,
            self.sent,
            self.missing,
            self.overflowed,
            self.longest_gap_ms,
            self.failed,
            self.connects,
            self.forbidden,
            self.tried,
            self.leaked.len(),
        )?;
        if !self.errors.is_empty() {
            write!(f, " {:?}", self.errors)?;
        }
        if !self.leaked.is_empty() {
            write!(f, " {:?}", self.leaked)?;
        }
        Ok(())
    }
}
