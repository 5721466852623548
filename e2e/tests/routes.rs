//! The ways between nodes, with and without the tunnel, and changes from one to another under traffic. All tests use the shared cluster
//! and leave it with the tunnel.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::Cluster;
use netkeel_e2e::workload::client::Streams;
use netkeel_e2e::workload::prober::{Forbidden, Numbers, Probe};
use netkeel_e2e::workload::{Client, ECHO_PORT, Workload, install, node_names, shared};
use serde_json::json;

/// Traffic goes on for so long after each change.
const AFTER: Duration = Duration::from_secs(2);
const STREAMS: u32 = 8;

/// The cluster in some mode; again with the tunnel when this is dropped.
struct Mode {
    cluster: &'static Cluster,
    _alone: MutexGuard<'static, ()>,
}

impl Mode {
    fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        Self { cluster: shared(), _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Changes the mode and waits until every agent has applied it; returns how long that took.
    fn set(&self, encapsulation: &str) -> Result<Duration> {
        install::set_encapsulation(self.cluster, encapsulation)
    }

    /// A node's routes to the other nodes' blocks.
    fn routes(&self, node: &str) -> Result<String> {
        self.cluster.node_exec(node, &["ip", "route", "show", "proto", "110"])
    }

    /// Packets that a node has put into the tunnel.
    fn tunnelled(&self, node: &str) -> Result<u64> {
        let path = "/sys/class/net/netkeel.vxlan/statistics/tx_packets";
        Ok(self.cluster.node_exec(node, &["cat", path])?.trim().parse()?)
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
fn peers(cluster: &'static Cluster, namespace: &str) -> Result<(Workload<'static>, Vec<String>)> {
    let (workload, nodes) = (Workload::new(cluster, namespace)?, node_names(cluster));
    workload.peers()?;
    workload.pod("guarded", &nodes[1])?;
    workload.let_in("guard", "guarded", &[json!({"podSelector": {"matchLabels": {"app": "first-0"}}})])?;
    workload.ready()?;
    Ok((workload, nodes))
}

fn exchange(from: &Client<'_>, to: &Client<'_>) -> Result<()> {
    let seen = from.sources(&to.address)?;
    ensure!(seen == [from.address.as_str()], "{to} sees {from} as {seen:?}");
    from.udp(&to.address, ECHO_PORT, 5, false)?.none_failed().with_context(|| format!("{from} -> {to}"))
}

#[test]
fn without_a_tunnel_pods_of_two_nodes_meet_as_next_hops_and_policy_holds() {
    let mode = Mode::new();
    let (workload, nodes) = peers(mode.cluster, "routes").unwrap();
    let client = |name: &str| workload.client(name).unwrap();
    for (encapsulation, mtu) in [("None", 1500), ("VXLANCrossSubnet", 1450)] {
        mode.set(encapsulation).unwrap();
        let before: Vec<u64> = nodes.iter().map(|node| mode.tunnelled(node).unwrap()).collect();
        for (from, to) in [("first-0", "first-1"), ("first-1", "first-0"), ("first-0", "guarded")] {
            exchange(&client(from), &client(to)).unwrap();
        }
        let refused = client("second-0").try_connect(&client("guarded").address, ECHO_PORT).unwrap();
        assert_eq!(refused.ok, 0, "{encapsulation}: policy lets the stranger pass: {refused:?}");
        let node = Client::on_node(mode.cluster, &nodes[0]).unwrap();
        node.sources(&client("first-1").address).context(encapsulation).unwrap();
        let outside = client("first-0").outside_source().unwrap();
        assert_eq!(outside, node.address, "{encapsulation}: the outside still sees the node");

        let after: Vec<u64> = nodes.iter().map(|node| mode.tunnelled(node).unwrap()).collect();
        assert_eq!(before, after, "{encapsulation}: nothing went into the tunnel");
        let routes = mode.routes(&nodes[0]).unwrap();
        assert!(
            routes.contains(" via ") && !routes.contains("dev netkeel.vxlan"),
            "{encapsulation}:\n{routes}"
        );

        let fresh = format!("fresh-{mtu}");
        workload.pod(&fresh, &nodes[0]).unwrap();
        workload.wait_ready(&fresh).unwrap();
        assert_eq!(client(&fresh).mtu().unwrap(), mtu, "{encapsulation}");
        client(&fresh).transfer(&client("first-1").address, ECHO_PORT, 8 << 20).unwrap();
    }
    workload.delete_namespace().unwrap();
}

/// What goes on all the time: connections and numbered datagrams in both directions, and a flow that policy forbids.
struct Traffic {
    streams: Vec<Probe<Streams>>,
    numbers: [Probe<Numbers>; 2],
    forbidden: Probe<Forbidden>,
}

impl Traffic {
    fn start(workload: &Workload<'static>) -> Result<Self> {
        let prober = |name| workload.prober(name);
        let [first, second, other, guarded] =
            [prober("first-0")?, prober("second-0")?, prober("first-1")?, prober("guarded")?];
        let streams = vec![
            first.streams(&other.address, ECHO_PORT, STREAMS)?,
            other.streams(&first.address, ECHO_PORT, STREAMS)?,
            first.streams(&guarded.address, ECHO_PORT, STREAMS)?,
        ];
        let forbidden = second.forbidden(&guarded.address, ECHO_PORT)?;
        let numbers = [first.numbers(&other.address, ECHO_PORT)?, other.numbers(&second.address, ECHO_PORT)?];
        Ok(Self { streams, numbers, forbidden })
    }

    /// Prints what was lost. Nothing of what was established may have ended, and nothing that is forbidden may have passed.
    fn end(self, changes: usize) -> Result<()> {
        let streams = self.streams.into_iter().map(Probe::end).collect::<Result<Vec<_>>>()?;
        let (mut sent, mut lost, mut overflowed, mut gap) = (0, 0, 0, 0.0_f64);
        for probe in self.numbers {
            let numbers = probe.end()?;
            sent += numbers.sent;
            lost += numbers.lost;
            overflowed += numbers.overflowed;
            gap = gap.max(numbers.longest_gap_ms);
        }
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

#[test]
fn connections_go_on_while_the_way_between_nodes_changes() {
    let mode = Mode::new();
    let (workload, nodes) = peers(mode.cluster, "routes-live").unwrap();
    let node = Client::on_node(mode.cluster, &nodes[0]).unwrap();
    let target = workload.client("second-1").unwrap().address;
    let changes = ["None", "VXLANCrossSubnet", "VXLAN", "None", "VXLAN"];
    let traffic = Traffic::start(&workload).unwrap();
    let from_node = node.streams(&target, ECHO_PORT, STREAMS, 25).unwrap();
    thread::sleep(AFTER);
    for encapsulation in changes {
        let took = mode.set(encapsulation).unwrap();
        println!("{encapsulation}: on all nodes after {} ms", took.as_millis());
        thread::sleep(AFTER);
    }
    traffic.end(changes.len()).unwrap();
    let from_node = from_node.finish().unwrap();
    assert!(
        from_node.errors.is_empty() && from_node.exchanges > 100,
        "a node's own connections: {from_node:?}"
    );
    workload.delete_namespace().unwrap();
}
