//! `overlay-rr`, `overlay-crr` and `overlay-gbit`: from a pod on the first node to a pod on the second through Netkeel's
//! overlay, beside the same through flannel's. Both clusters are up at once and their slices take turns, with those of the
//! loopback device, so that whatever else the machine does falls on all three. CPU time is that of the whole machine.

use std::time::Duration;

use anyhow::{Context, Result};
use netkeel_e2e::workload::Workload;

use super::awake::Awake;
use super::bed::Bed;
use super::figure::{Figure, Unit, median};
use super::loads::{self, Attached, Exchange, Lane, Slice, column, take_turns};
use super::ratio::Ratios;

const NAMESPACE: &str = "bench-overlay";
const WARM_UP: Duration = Duration::from_millis(500);
const SLICE: Duration = Duration::from_millis(200);
const ROUNDS: usize = 50;

/// What is compared: names of the figure, of its CPU time and of the loopback device's, and their units.
struct Comparison {
    exchange: Exchange,
    names: [&'static str; 3],
    unit: Unit,
    cpu: Unit,
    /// So much is one of the CPU time's unit.
    portion: f64,
}

const COMPARISONS: [Comparison; 3] = [
    Comparison {
        exchange: Exchange::RoundTrip,
        names: ["overlay-rr", "overlay-rr-cpu", "overlay-rr-loopback"],
        unit: Unit::RoundTrips,
        cpu: Unit::CpuPerTenThousand,
        portion: 10_000.0,
    },
    Comparison {
        exchange: Exchange::Connection,
        names: ["overlay-crr", "overlay-crr-cpu", "overlay-crr-loopback"],
        unit: Unit::Connections,
        cpu: Unit::CpuPerTenThousand,
        portion: 10_000.0,
    },
    Comparison {
        exchange: Exchange::Bulk,
        names: ["overlay-gbit", "overlay-gbit-cpu", "overlay-gbit-loopback"],
        unit: Unit::Gigabits,
        cpu: Unit::CpuPerGigabit,
        portion: 1.0,
    },
];

pub(super) fn run(ours: &Bed, theirs: &Bed) -> Result<Vec<Figure>> {
    let (workload, lane) = pair(ours)?;
    let (other_workload, other_lane) = pair(theirs)?;
    let [first, _] = ours.nodes()?;
    let _server = Attached::node_server(ours, first)?;
    let mut lanes = [lane, other_lane, Lane::on_node(ours, first, ours.loopback())?];
    lanes.iter_mut().try_for_each(Lane::wait_served)?;
    let mut figures = Vec::new();
    for comparison in &COMPARISONS {
        ours.settle()?;
        let awake = Awake::start()?;
        take_turns(&mut lanes, comparison.exchange, 1, WARM_UP)?;
        let slices = take_turns(&mut lanes, comparison.exchange, ROUNDS, SLICE)?;
        drop(awake);
        let [own, other, loopback] = slices.try_into().ok().context("there are three lanes")?;
        figures.extend(comparison.figures([&own, &other, &loopback], |text| ours.progress.say(text)));
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

impl Comparison {
    fn figures(&self, [own, other, loopback]: [&[Slice]; 3], say: impl Fn(String)) -> Vec<Figure> {
        let [name, cpu_name, loopback_name] = self.names;
        let rates = |slices| column(slices, |slice| slice.per_second);
        let ratios = Ratios::of(&rates(own), &rates(other));
        say(format!("{name}: {}", ratios.spread()));
        let (cpu, other_cpu) = (self.cpu(own), self.cpu(other));
        vec![
            Figure::new(name, median(&rates(own)), self.unit).against(median(&rates(other)), ratios.median()),
            Figure::new(cpu_name, cpu, self.cpu).against(other_cpu, cpu / other_cpu),
            Figure::new(loopback_name, median(&rates(loopback)), self.unit),
        ]
    }

    /// CPU time of one portion, over all slices.
    fn cpu(&self, slices: &[Slice]) -> f64 {
        let done: f64 = slices.iter().map(|slice| slice.per_second * SLICE.as_secs_f64()).sum();
        slices.iter().map(|slice| slice.busy).sum::<f64>() / done * self.portion
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(COMPARISONS[1].figures([&own, &other, &loopback], drop), expected);
    }
}
