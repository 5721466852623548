//! What goes on while the way between nodes changes: for every program that changes it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use netkeel_e2e::Cluster;
use netkeel_e2e::workload::client::Streams;
use netkeel_e2e::workload::prober::{Forbidden, Numbers, Probe};
use netkeel_e2e::workload::{ECHO_PORT, Prober, Workload, install, node_names};
use serde_json::json;

/// Traffic goes on for so long after each change.
pub(crate) const AFTER: Duration = Duration::from_secs(2);
pub(crate) const STREAMS: u32 = 8;

/// The program's cluster in some mode; again with the tunnel when this is dropped.
pub(crate) struct Mode {
    pub(crate) cluster: &'static Cluster,
    _alone: MutexGuard<'static, ()>,
}

impl Mode {
    pub(crate) fn new(cluster: &'static Cluster) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        Self { cluster, _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Changes the mode and waits until every agent has applied it; returns how long that took.
    pub(crate) fn set(&self, encapsulation: &str) -> Result<Duration> {
        install::set_encapsulation(self.cluster, encapsulation)
    }

    /// Changes the mode to one after the other while traffic goes on, of which nothing is in the tunnel where there is none.
    pub(crate) fn change(&self, modes: &[&str]) -> Result<()> {
        thread::sleep(AFTER);
        for encapsulation in modes {
            let took = self.set(encapsulation)?.as_millis();
            let before = self.tunnelled()?;
            thread::sleep(AFTER);
            let after = self.tunnelled()?;
            let more: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
            println!("{encapsulation}: on all nodes after {took} ms, then {more:?} packets in the tunnel");
            let as_wanted = |count: &u64| if *encapsulation == "VXLAN" { *count > 100 } else { *count == 0 };
            ensure!(more.iter().all(as_wanted), "{encapsulation}: {more:?} packets in the tunnel");
        }
        Ok(())
    }

    /// Packets that each node has put into the tunnel.
    pub(crate) fn tunnelled(&self) -> Result<Vec<u64>> {
        let path = "/sys/class/net/netkeel.vxlan/statistics/tx_packets";
        let of = |node: String| Ok(self.cluster.node_exec(&node, &["cat", path])?.trim().parse()?);
        node_names(self.cluster).into_iter().map(of).collect()
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        // Another panic while one is under way would end the program.
        if let Err(error) = self.set("VXLAN") {
            assert!(thread::panicking(), "{error:#}");
            eprintln!("{error:#}");
        }
    }
}

/// Two pods on each of two nodes, and one more on the second that lets in the first pod alone.
pub(crate) fn peers(cluster: &'static Cluster, namespace: &str) -> Result<Workload<'static>> {
    let workload = Workload::new(cluster, namespace)?;
    workload.peers()?;
    workload.pod("guarded", &node_names(cluster)[1])?;
    workload.let_in("guard", "guarded", &[json!({"podSelector": {"matchLabels": {"app": "first-0"}}})])?;
    workload.ready()?;
    Ok(workload)
}

/// What goes on all the time in one family: connections and numbered datagrams in both directions, and a flow that policy forbids.
pub(crate) struct Traffic {
    streams: Vec<Probe<Streams>>,
    numbers: [Probe<Numbers>; 2],
    /// A server that is no client, and what its socket had no room for before.
    server: (Prober<'static>, u64),
    forbidden: Probe<Forbidden>,
}

impl Traffic {
    pub(crate) fn start(workload: &Workload<'static>, ipv6: bool) -> Result<Self> {
        let prober = |name| workload.prober(name);
        let [first, second, other, guarded] =
            [prober("first-0")?, prober("second-0")?, prober("first-1")?, prober("guarded")?];
        let address = |pod: &Prober<'_>| workload.address(&pod.pod, ipv6);
        let streams = vec![
            first.streams(&address(&other)?, ECHO_PORT, STREAMS)?,
            other.streams(&address(&first)?, ECHO_PORT, STREAMS)?,
            first.streams(&address(&guarded)?, ECHO_PORT, STREAMS)?,
        ];
        let forbidden = second.forbidden(&address(&guarded)?, ECHO_PORT)?;
        let numbers =
            [first.numbers(&address(&other)?, ECHO_PORT)?, other.numbers(&address(&second)?, ECHO_PORT)?];
        let before = overflowed(&second)?;
        Ok(Self { streams, numbers, server: (second, before), forbidden })
    }

    /// Prints what was lost. Nothing of what was established may have ended, and nothing that is forbidden may have passed.
    pub(crate) fn end(self, changes: usize) -> Result<()> {
        let streams = self.streams.into_iter().map(Probe::end).collect::<Result<Vec<_>>>()?;
        let (mut sent, mut lost, mut overflowed, mut gap) = (0, 0, 0, 0.0_f64);
        for probe in self.numbers {
            let numbers = probe.end()?;
            sent += numbers.sent;
            lost += numbers.lost;
            overflowed += numbers.overflowed;
            gap = gap.max(numbers.longest_gap_ms);
        }
        let (server, before) = self.server;
        overflowed += self::overflowed(&server)?.saturating_sub(before);
        let forbidden = self.forbidden.end()?;
        let exchanges: u64 = streams.iter().map(|each| each.exchanges).sum();
        let longest = streams.iter().map(|each| each.longest_gap_ms).fold(0.0, f64::max);
        println!(
            "changes={changes} connections={} exchanges={exchanges} longest_exchange_ms={longest:.0} \
             datagrams={sent} lost={lost} overflowed={overflowed} longest_gap_ms={gap:.0} forbidden_tries={}",
            streams.len() * STREAMS as usize,
            forbidden.connects + forbidden.datagrams
        );
        for each in &streams {
            ensure!(
                each.resets == 0 && each.lost == 0 && each.errors.is_empty(),
                "connections broke: {each:?}"
            );
        }
        ensure!(exchanges > 1000 && sent > 1000, "too little went on for the result to say anything");
        ensure!(
            forbidden.connects > 0 && forbidden.datagrams > 0,
            "nothing forbidden was tried: {forbidden:?}"
        );
        ensure!(forbidden.connected + forbidden.answered == 0, "what is forbidden passed: {forbidden:?}");
        // A thousandth: a change is a map write; what is lost beside it is a busy machine's.
        ensure!(lost <= overflowed + sent / 1000, "{lost} of {sent} datagrams were lost");
        Ok(())
    }
}

/// Datagrams that a pod's sockets had no room for: a server that gets no processor for a quarter of a second loses some.
fn overflowed(server: &Prober<'_>) -> Result<u64> {
    Ok(server.received(&server.address)?.overflowed)
}
