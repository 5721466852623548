//! `dns-ready`: from the start of netkeel-dns to its first answer in a cluster with 10,000 Services. `dns-endpoint-p50` and `-p99`: from the API
//! server's answer to a changed endpoint until a headless Service is answered with it. Asked every millisecond over the loopback device.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Api, Written};
use super::bed::Bed;
use super::dns_qps::{SERVICES, command, name, namespace};
use super::figure::{Figure, Unit, median};
use super::loads::Attached;
use super::policy_update::{millis, percentile};

const STARTS: usize = 5;
/// Of the server whose start is watched; those before are taken.
const PORT: &str = "5304";
/// How long a start is watched.
const START: Duration = Duration::from_secs(4);
const CHANGES: u32 = 300;
/// One that is not answered by then counts as that long.
const WATCHED: Duration = Duration::from_millis(500);

/// On the cluster of `dns-qps`, whose server still runs.
pub(super) fn run(bed: &Bed, api: &Api) -> Result<Vec<Figure>> {
    let starts = (0..STARTS).map(|_| start(bed)).collect::<Result<Vec<f64>>>()?;
    bed.progress.say(format!("dns-ready: {starts:.0?} ms"));
    let mut figures = vec![Figure::new("dns-ready", median(&starts), Unit::Milliseconds)];
    figures.extend(changes(bed, api)?);
    Ok(figures)
}

/// When each address was first answered, microseconds since 1970.
#[derive(Deserialize)]
struct Seen {
    first_us: HashMap<String, u64>,
}

/// Asks for a name on the first CPU until it is finished.
fn prober(bed: &Bed, port: &str, name: &str) -> Result<Attached> {
    let [node, _] = bed.nodes()?;
    let mut command = Attached::client(bed, bed.cluster.node_command(node)?);
    Attached::start(command.args(["bench-names", name, "--to", &format!("127.0.0.1:{port}")]))
}

/// Milliseconds from one start, with the command around it, to the first answer.
fn start(bed: &Bed) -> Result<f64> {
    let last = SERVICES - 1;
    let prober = prober(bed, PORT, &format!("{}.{}.svc.cluster.local", name(last), namespace(last)))?;
    let mut command = command(bed, PORT, "5313")?;
    bed.settle()?;
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let server = Attached::start(&mut command)?;
    thread::sleep(START);
    let seen: Seen = prober.finish()?;
    drop(server);
    let first = seen.first_us.values().min().context("netkeel-dns was not ready in time")?;
    Ok(millis(first.saturating_sub(u64::try_from(began.as_micros())?)))
}

fn changes(bed: &Bed, api: &Api) -> Result<Vec<Figure>> {
    let place = namespace(0);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "changing"},
        "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}});
    api.create(&format!("/api/v1/namespaces/{place}/services"), &service)?;
    let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{place}/endpointslices");
    let mut slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "changing-1", "labels": {"kubernetes.io/service-name": "changing"}}});
    slice["endpoints"] = endpoints(CHANGES);
    api.create(&slices, &slice)?;
    let prober = prober(bed, "5301", &format!("changing.{place}.svc.cluster.local"))?;
    thread::sleep(Duration::from_secs(1));
    let path = format!("{slices}/changing-1");
    let mut written = Vec::new();
    for number in 0..CHANGES {
        written.push(api.merge(&path, &json!({"endpoints": endpoints(number)}))?);
        // Uneven, so that no beat of the machine meets every change.
        thread::sleep(Duration::from_millis(u64::from(30 + number * 7 % 19)));
    }
    thread::sleep(WATCHED);
    let seen: Seen = prober.finish()?;
    Ok(figures(&written, &seen))
}

/// The address of a change.
fn address(number: u32) -> String {
    format!("10.99.{}.{}", number / 250, number % 250)
}

fn endpoints(number: u32) -> Value {
    json!([{"addresses": [address(number)], "conditions": {"ready": true}}])
}

fn figures(written: &[Written], seen: &Seen) -> Vec<Figure> {
    let limit = u64::try_from(WATCHED.as_micros()).unwrap_or(u64::MAX);
    let took = |(number, written): (u32, &Written)| {
        let first = seen.first_us.get(&address(number));
        first.map_or(limit, |first| first.saturating_sub(written.answered)).min(limit)
    };
    let mut times: Vec<u64> = (0..).zip(written).map(took).collect();
    times.sort_unstable();
    let figure = |name, share| Figure::new(name, millis(percentile(&times, share)), Unit::Milliseconds);
    vec![figure("dns-endpoint-p50", 500), figure("dns-endpoint-p99", 990)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_takes_from_the_answer_to_its_write_to_the_first_answer_with_its_address() {
        let written = [1_000_000, 2_000_000, 3_000_000].map(|sent| Written { sent, answered: sent + 5_000 });
        let first = [(address(0), 1_003_000), (address(1), 2_011_000)];
        let seen = Seen { first_us: first.into_iter().collect() };
        let expected = [("dns-endpoint-p50", 6.0), ("dns-endpoint-p99", 500.0)];
        assert_eq!(
            figures(&written, &seen),
            expected.map(|(name, value)| Figure::new(name, value, Unit::Milliseconds))
        );
    }

    #[test]
    fn every_change_has_an_address_of_its_own() {
        let all: std::collections::HashSet<String> = (0..=CHANGES).map(address).collect();
        assert_eq!(all.len(), CHANGES as usize + 1);
        assert!(all.iter().all(|text| text.parse::<std::net::Ipv4Addr>().is_ok()));
    }
}
