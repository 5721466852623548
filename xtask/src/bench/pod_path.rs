//! `pod-rr` and `pod-crr`: request and response on one connection, and connect, request, response, close, from a pod on
//! the first node to a pod on the second, beside the same programs as processes of the nodes. The nodes' and the loopback
//! device's slices take turns with the pods', so that whatever else the machine does falls on all three.

use std::time::Duration;

use anyhow::{Context, Result};
use netkeel_e2e::workload::Workload;
use serde_json::Value;

use super::awake::Awake;
use super::bed::Bed;
use super::figure::{Figure, median};
use super::loads::{self, Attached, Exchange, Lane, Slice, column, take_turns};
use super::ratio::Ratios;

const WARM_UP: Duration = Duration::from_millis(500);
/// Short slices: what else the machine does in a while of seconds then falls on all sides of a round.
const SLICE: Duration = Duration::from_millis(200);
const ROUNDS: usize = 50;

pub(super) fn run(bed: &Bed, exchange: Exchange) -> Result<Vec<Figure>> {
    let suffix = bed.network.suffix();
    between_nodes(bed, &Names { path: "pod", loopback: "loopback", suffix, exchange }, vec![])
}

/// From a pod on the first node to one on the second, beside the nodes themselves, in a namespace that has these objects too.
pub(super) fn between_nodes(bed: &Bed, names: &Names, mut objects: Vec<Value>) -> Result<Vec<Figure>> {
    let [first, second] = bed.nodes()?;
    let namespace = format!("bench-{}", names.path);
    let workload = Workload::new(&bed.cluster, &namespace)?;
    objects.extend([loads::client("client", first), loads::server("server", second)]);
    workload.apply(objects)?;
    workload.ready()?;
    let pod = bed.pod_address(&workload, "server")?;
    let node = bed.address(second)?;
    let _servers = [Attached::node_server(bed, first)?, Attached::node_server(bed, second)?];
    let lanes = [
        Lane::in_pod(bed, &namespace, "client", &pod)?,
        Lane::on_node(bed, first, &node)?,
        Lane::on_node(bed, first, bed.loopback())?,
    ];
    let figures = compare(bed, names, lanes)?;
    workload.delete_namespace()?;
    Ok(figures)
}

/// What is compared: the path's name, the suffix of its figures, and what is repeated.
pub(super) struct Names {
    pub(super) path: &'static str,
    pub(super) loopback: &'static str,
    pub(super) suffix: &'static str,
    pub(super) exchange: Exchange,
}

/// Slices of three lanes, in turns on a machine that is kept awake: the path's, its baseline's, the loopback device's.
pub(super) fn compare(bed: &Bed, names: &Names, mut lanes: [Lane; 3]) -> Result<Vec<Figure>> {
    lanes.iter_mut().try_for_each(Lane::wait_served)?;
    bed.settle()?;
    let awake = Awake::start()?;
    take_turns(&mut lanes, names.exchange, 1, WARM_UP)?;
    let slices = take_turns(&mut lanes, names.exchange, ROUNDS, SLICE)?;
    drop(awake);
    let [pods, baseline, loopback] = slices.try_into().ok().context("there are three lanes")?;
    Ok(figures(names, [&pods, &baseline, &loopback], |text| bed.progress.say(text)))
}

/// The path's figure, its CPU time and, for comparison, the figure of the loopback device.
fn figures(names: &Names, [pods, baseline, loopback]: [&[Slice]; 3], say: impl Fn(String)) -> Vec<Figure> {
    let Names { path, loopback: other, suffix, exchange } = names;
    let figure = |path: &str| format!("{path}-{}{suffix}", exchange.name());
    let rates = |slices| column(slices, |slice| slice.per_second);
    let ratios = Ratios::of(&rates(pods), &rates(baseline));
    let name = figure(path);
    say(format!("{name}: {}", ratios.spread()));
    for (place, slices) in [("pods", pods), ("baseline", baseline), ("loopback", loopback)] {
        let [p50, p99] = [Slice::p50, Slice::p99].map(|number| median(&column(slices, number)));
        say(format!("{name}, {place}: p50 {p50:.1} µs, p99 {p99:.1} µs"));
    }
    let [cpu, baseline_cpu] = [pods, baseline].map(|slices| exchange.cpu_time(slices, SLICE));
    let (rate, baseline) = (median(&rates(pods)), median(&rates(baseline)));
    vec![
        Figure::new(&*name, rate, exchange.unit()).against(baseline, ratios.median()),
        Figure::new(format!("{name}-cpu"), cpu, exchange.cpu_unit())
            .against(baseline_cpu, cpu / baseline_cpu),
        Figure::new(figure(other), median(&rates(loopback)), exchange.unit()),
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

#[cfg(test)]
mod tests {
    use super::super::figure::Unit;
    use super::*;

    #[test]
    fn pods_are_compared_with_nodes_and_loopback_stands_beside() {
        let row = |rates: [f64; 3], busy| {
            rates.map(|per_second| Slice { per_second, p50_us: 1.0, p99_us: 2.0, busy })
        };
        let pod = row([90.0, 50.0, 80.0], 0.3);
        let (node, loopback) = (row([100.0, 50.0, 160.0], 0.2), row([300.0, 200.0, 100.0], 0.1));
        let names =
            Names { path: "pod", loopback: "loopback", suffix: "-cilium", exchange: Exchange::Connection };
        let seen = figures(&names, [&pod, &node, &loopback], drop);
        let (cpu, node_cpu) = (0.9 / 44.0 * 1e4, 0.6 / 62.0 * 1e4);
        let expected = [
            Figure::new("pod-crr-cilium", 80.0, Unit::Connections).against(100.0, 0.9),
            Figure::new("pod-crr-cilium-cpu", cpu, Unit::CpuPerTenThousand).against(node_cpu, cpu / node_cpu),
            Figure::new("loopback-crr-cilium", 200.0, Unit::Connections),
        ];
        assert_eq!(seen, expected);
    }
}
