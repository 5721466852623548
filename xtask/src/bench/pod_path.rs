//! `pod-rr` and `pod-crr`: request and response on one connection, and connect, request, response, close, from a pod on
//! the first node to a pod on the second, beside the same programs as processes of the nodes. The nodes' and the loopback
//! device's slices take turns with the pods', so that whatever else the machine does falls on all three.

use std::time::Duration;

use anyhow::{Context, Result};
use netkeel_e2e::workload::Workload;

use super::awake::Awake;
use super::bed::{Bed, Network};
use super::figure::{Figure, Unit, median};
use super::loads::{self, Attached, Exchange, Lane, Slice, column, take_turns};
use super::ratio::Ratios;

const NAMESPACE: &str = "bench-path";
const LOOPBACK: &str = "127.0.0.1";
const WARM_UP: Duration = Duration::from_millis(500);
/// Short slices: what else the machine does in a while of seconds then falls on all sides of a round.
const SLICE: Duration = Duration::from_millis(200);
const ROUNDS: usize = 50;

pub(super) fn run(bed: &Bed, exchange: Exchange) -> Result<Vec<Figure>> {
    let [first, second] = bed.nodes()?;
    let workload = Workload::new(&bed.cluster, NAMESPACE)?;
    workload.apply(vec![loads::client("client", first), loads::server("server", second)])?;
    workload.ready()?;
    let pod = workload.kubectl(&["get", "pod", "server", "-o", "jsonpath={.status.podIP}"])?;
    let node = bed.address(second)?;
    let _servers = [Attached::node_server(bed, first)?, Attached::node_server(bed, second)?];
    let mut lanes = [
        Lane::in_pod(bed, NAMESPACE, "client", &pod)?,
        Lane::on_node(bed, first, &node)?,
        Lane::on_node(bed, first, LOOPBACK)?,
    ];
    for (lane, server) in lanes.iter_mut().zip([pod.as_str(), &node, LOOPBACK]) {
        lane.wait_served(server)?;
    }
    bed.settle()?;
    let awake = Awake::start()?;
    take_turns(&mut lanes, exchange, 1, WARM_UP)?;
    let slices = take_turns(&mut lanes, exchange, ROUNDS, SLICE)?;
    drop((awake, lanes));
    workload.delete_namespace()?;
    let [pod, node, loopback] = slices.try_into().ok().context("there are three lanes")?;
    Ok(figures(bed.network, exchange, [&pod, &node, &loopback], |text| bed.progress.say(text)))
}

/// The pods' figure and, for comparison, that of the loopback device.
fn figures(
    network: Network,
    exchange: Exchange,
    [pod, node, loopback]: [&[Slice]; 3],
    say: impl Fn(String),
) -> Vec<Figure> {
    let (name, loopback_name, unit) = names(network, exchange);
    let rates = |slices| column(slices, |slice| slice.per_second);
    let ratios = Ratios::of(&rates(pod), &rates(node));
    say(format!("{name}: {}", ratios.spread()));
    for (place, slices) in [("pods", pod), ("nodes", node), ("loopback", loopback)] {
        let [p50, p99] = [Slice::p50, Slice::p99].map(|number| median(&column(slices, number)));
        say(format!("{name}, {place}: p50 {p50:.1} µs, p99 {p99:.1} µs"));
    }
    vec![
        Figure::new(name, median(&rates(pod)), unit).against(median(&rates(node)), ratios.median()),
        Figure::new(loopback_name, median(&rates(loopback)), unit),
    ]
}

impl Slice {
    fn p50(&self) -> f64 {
        self.p50_us
    }

    fn p99(&self) -> f64 {
        self.p99_us
    }
}

/// Of the figure, and of the loopback device's.
fn names(network: Network, exchange: Exchange) -> (&'static str, &'static str, Unit) {
    use Exchange::{Bulk, Connection, RoundTrip};
    use Network::{Cilium, Flannel, Netkeel};
    match (exchange, network) {
        (RoundTrip, Netkeel) => ("pod-rr", "loopback-rr", Unit::RoundTrips),
        (RoundTrip, Cilium) => ("pod-rr-cilium", "loopback-rr-cilium", Unit::RoundTrips),
        (RoundTrip, Flannel) => ("pod-rr-flannel", "loopback-rr-flannel", Unit::RoundTrips),
        (Connection, Netkeel) => ("pod-crr", "loopback-crr", Unit::Connections),
        (Connection, Cilium) => ("pod-crr-cilium", "loopback-crr-cilium", Unit::Connections),
        (Connection, Flannel) => ("pod-crr-flannel", "loopback-crr-flannel", Unit::Connections),
        (Bulk, Netkeel) => ("pod-gbit", "loopback-gbit", Unit::Gigabits),
        (Bulk, Cilium) => ("pod-gbit-cilium", "loopback-gbit-cilium", Unit::Gigabits),
        (Bulk, Flannel) => ("pod-gbit-flannel", "loopback-gbit-flannel", Unit::Gigabits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_compared_with_nodes_and_loopback_stands_beside() {
        let row = |rates: [f64; 3]| {
            rates.map(|per_second| Slice { per_second, p50_us: 1.0, p99_us: 2.0, busy: 0.0 })
        };
        let (pod, node, loopback) =
            (row([90.0, 50.0, 80.0]), row([100.0, 50.0, 160.0]), row([300.0, 200.0, 100.0]));
        let seen = figures(Network::Cilium, Exchange::Connection, [&pod, &node, &loopback], drop);
        let expected = [
            Figure::new("pod-crr-cilium", 80.0, Unit::Connections).against(100.0, 0.9),
            Figure::new("loopback-crr-cilium", 200.0, Unit::Connections),
        ];
        assert_eq!(seen, expected);
    }
}
