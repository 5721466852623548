//! `service-crr`: connect, request, response, close through a `ClusterIP` with one backend, beside the same to the pod itself.
//! Slices of both alternate in one process, so that whatever else the machine does falls on both. Client and server
//! have a CPU each.

use std::time::Duration;

use anyhow::{Context, Result};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::Workload;
use serde::Deserialize;
use serde_json::{Value, json};

use super::bed::Bed;
use super::figure::{Figure, Unit, median};
use super::loads::{self, PEER, PORT, endpoint};
use super::ratio::Ratios;

const NAMESPACE: &str = "bench-crr";
/// Short slices: what else the machine does in a while of seconds then falls on both sides of a pair.
const ROUNDS: &str = "50";
const SLICE_MILLIS: &str = "200";
/// Figure and server, which is also its Service's name.
const PAIRS: [(&str, &str); 2] = [("service-crr", "near"), ("service-crr-remote", "far")];

#[derive(Deserialize)]
struct Measured {
    service: Side,
    direct: Side,
}

#[derive(Deserialize)]
struct Side {
    /// One entry a slice.
    per_second: Vec<f64>,
    p50_us: f64,
    p99_us: f64,
}

pub(super) fn run(bed: &Bed) -> Result<Vec<Figure>> {
    let workload = Workload::new(&bed.cluster, NAMESPACE)?;
    let [first, second] = bed.nodes()?;
    workload.pod("client", first)?;
    workload.apply(vec![
        loads::server("near", first),
        loads::server("far", second),
        service(bed, "near"),
        service(bed, "far"),
    ])?;
    workload.ready()?;
    bed.progress.say("client and servers run");
    let figures = PAIRS.iter().map(|(figure, server)| pair(bed, &workload, figure, server)).collect();
    workload.delete_namespace()?;
    figures
}

fn pair(bed: &Bed, workload: &Workload<'_>, figure: &'static str, server: &str) -> Result<Figure> {
    workload.wait_endpoints(server, 1)?;
    let service = workload.kubectl(&["get", "service", server, "-o", "jsonpath={.spec.clusterIP}"])?;
    let (service, direct) = (endpoint(&service, PORT)?, endpoint(&bed.pod_address(workload, server)?, PORT)?);
    let load = |rounds: &str, slice: &str| {
        let program = ["exec", "client", "--", "/bin/taskset", "1", PEER, "bench-crr"];
        let flags = ["--service", &service, "--direct", &direct, "--rounds", rounds, "--slice", slice];
        workload.kubectl(&[program.as_slice(), &flags].concat())
    };
    wait_until("the Service is served", Duration::from_secs(10), || load("1", "10"))?;
    bed.settle()?;
    let measured: Measured =
        serde_json::from_str(&load(ROUNDS, SLICE_MILLIS)?).context("output of bench-crr")?;
    Ok(measured.figure(figure, |text| bed.progress.say(text)))
}

impl Measured {
    fn figure(&self, name: &'static str, say: impl Fn(String)) -> Figure {
        let ratios = Ratios::of(&self.service.per_second, &self.direct.per_second);
        let (service, direct) = (&self.service, &self.direct);
        say(format!(
            "{name}: {}; p50 {:.1} µs beside {:.1}, p99 {:.1} beside {:.1}",
            ratios.spread(),
            service.p50_us,
            direct.p50_us,
            service.p99_us,
            direct.p99_us
        ));
        let figure = Figure::new(name, median(&service.per_second), Unit::Connections);
        figure.against(median(&direct.per_second), ratios.median())
    }
}

fn service(bed: &Bed, name: &str) -> Value {
    let ports = json!([{"port": PORT, "protocol": "TCP"}]);
    let family = if bed.is_ipv6() { "IPv6" } else { "IPv4" };
    let spec = json!({"selector": {"app": name}, "ports": ports, "ipFamilies": [family]});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_ratios() {
        let side = |per_second: &[f64]| Side { per_second: per_second.into(), p50_us: 1.0, p99_us: 2.0 };
        let measured = Measured { service: side(&[90.0, 50.0, 80.0]), direct: side(&[100.0, 50.0, 160.0]) };
        let expected = Figure::new("service-crr", 80.0, Unit::Connections).against(100.0, 0.9);
        assert_eq!(measured.figure("service-crr", drop), expected);
    }
}
