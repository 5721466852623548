//! `overlay-rr`, `overlay-crr` and `overlay-gbit`: from a pod on the first node to a pod on the second through Netkeel's
//! overlay, beside the same through flannel's or Cilium's. Both clusters are up at once and their slices take turns, with those of the
//! loopback device, so that whatever else the machine does falls on all three. CPU time is that of the whole machine.

use std::time::Duration;

use anyhow::{Context, Result};
use netkeel_e2e::workload::Workload;

use super::awake::Awake;
use super::bed::{Bed, Network};
use super::figure::{Figure, median};
use super::loads::{self, Attached, Exchange, Lane, Slice, column, take_turns};
use super::ratio::Ratios;

const NAMESPACE: &str = "bench-overlay";
const WARM_UP: Duration = Duration::from_millis(500);
const SLICE: Duration = Duration::from_millis(200);
const ROUNDS: usize = 50;

const EXCHANGES: [Exchange; 3] = [Exchange::RoundTrip, Exchange::Connection, Exchange::Bulk];

/// The goals are those beside flannel, whose name the figures do not have.
pub(super) fn run(ours: &Bed, theirs: &Bed) -> Result<Vec<Figure>> {
    let (workload, lane) = pair(ours)?;
    let (other_workload, other_lane) = pair(theirs)?;
    let [first, _] = ours.nodes()?;
    let _server = Attached::node_server(ours, first)?;
    let mut lanes = [lane, other_lane, Lane::on_node(ours, first, ours.loopback())?];
    lanes.iter_mut().try_for_each(Lane::wait_served)?;
    let mut figures = Vec::new();
    let suffix = if theirs.network == Network::Flannel { "" } else { theirs.network.suffix() };
    for exchange in EXCHANGES {
        ours.settle()?;
        let awake = Awake::start()?;
        take_turns(&mut lanes, exchange, 1, WARM_UP)?;
        let slices = take_turns(&mut lanes, exchange, ROUNDS, SLICE)?;
        drop(awake);
        let [own, other, loopback] = slices.try_into().ok().context("there are three lanes")?;
        let name = format!("overlay-{}{suffix}", exchange.name());
        figures.extend(compared(&name, exchange, [&own, &other, &loopback], |text| ours.progress.say(text)));
    }
    drop(lanes);
    workload.delete_namespace()?;
    other_workload.delete_namespace()?;
    Ok(figures)
}

/// A client on the first node and a server on the second, and the lane between them.
fn pair(bed: &Bed) -> Result<(Workload<'_>, Lane)> {
    let [first, second] = bed.nodes()?;
    let workload = Workload::new(&bed.cluster, NAMESPACE)?;
    workload.apply(vec![loads::client("client", first), loads::server("server", second)])?;
    workload.ready()?;
    let server = bed.pod_address(&workload, "server")?;
    Ok((workload, Lane::in_pod(bed, NAMESPACE, "client", &server)?))
}

/// The overlay's figure beside the other's, the same of CPU time, and the loopback device's.
fn compared(
    name: &str,
    exchange: Exchange,
    [own, other, loopback]: [&[Slice]; 3],
    say: impl Fn(String),
) -> Vec<Figure> {
    let rates = |slices| column(slices, |slice| slice.per_second);
    let ratios = Ratios::of(&rates(own), &rates(other));
    say(format!("{name}: {}", ratios.spread()));
    let [cpu, other_cpu] = [own, other].map(|slices| exchange.cpu_time(slices, SLICE));
    let (rate, other) = (median(&rates(own)), median(&rates(other)));
    vec![
        Figure::new(name, rate, exchange.unit()).against(other, ratios.median()),
        Figure::new(format!("{name}-cpu"), cpu, exchange.cpu_unit()).against(other_cpu, cpu / other_cpu),
        Figure::new(format!("{name}-loopback"), median(&rates(loopback)), exchange.unit()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::figure::Unit;
    use super::*;

    #[test]
    fn rates_are_compared_round_by_round_and_cpu_time_over_all() {
        let row = |slices: [(f64, f64); 2]| {
            slices.map(|(per_second, busy)| Slice { per_second, p50_us: 1.0, p99_us: 2.0, busy })
        };
        let own = row([(2000.0, 0.3), (1000.0, 0.3)]);
        let (other, loopback) = (row([(1000.0, 0.4), (1000.0, 0.4)]), row([(9000.0, 0.4), (9000.0, 0.4)]));
        let expected = [
            Figure::new("overlay-crr", 1500.0, Unit::Connections).against(1000.0, 1.5),
            Figure::new("overlay-crr-cpu", 10.0, Unit::CpuPerTenThousand).against(20.0, 0.5),
            Figure::new("overlay-crr-loopback", 9000.0, Unit::Connections),
        ];
        let seen = compared("overlay-crr", Exchange::Connection, [&own, &other, &loopback], drop);
        assert_eq!(seen, expected);
    }
}
