//! `policy-crr`: connect, request, response, close from a pod on the first node to a pod on the second, which a hundred
//! network policies select and of which the last allows it, beside the same between two pods that none selects. Slices of
//! both take turns, so that whatever else the machine does falls on both.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::Workload;
use serde_json::{Value, json};

use super::awake::Awake;
use super::bed::Bed;
use super::figure::{Figure, Unit, median};
use super::loads::{self, CLOSING_PORT, Exchange, Lane, PORT, column, take_turns};
use super::ratio::Ratios;

const NAMESPACE: &str = "bench-policy";
const POLICIES: u16 = 100;
const ROUNDS: usize = 400;
/// Short slices: what else the machine does in a while of seconds then falls on both sides of a round.
const SLICE: Duration = Duration::from_millis(100);
const WARM_UP: Duration = Duration::from_millis(500);
const IN_FORCE: Duration = Duration::from_secs(20);

pub(super) fn run(bed: &Bed) -> Result<Vec<Figure>> {
    let [first, second] = bed.nodes()?;
    let workload = Workload::new(&bed.cluster, NAMESPACE)?;
    let clients = ["client", "free-client"].map(|name| loads::client(name, first));
    let servers = ["server", "free-server"].map(|name| loads::server(name, second));
    workload.apply([clients, servers].concat())?;
    workload.ready()?;
    let (server, free) = (bed.pod_address(&workload, "server")?, bed.pod_address(&workload, "free-server")?);
    let mut lanes = [
        Lane::in_pod(bed, NAMESPACE, "client", &server)?,
        Lane::in_pod(bed, NAMESPACE, "free-client", &free)?,
    ];
    lanes.iter_mut().try_for_each(Lane::wait_served)?;
    workload.apply((0..POLICIES).map(policy).collect())?;
    wait_until("the policies are in force", IN_FORCE, || in_force(&mut lanes, &server, &free))?;
    bed.settle()?;
    let awake = Awake::start()?;
    take_turns(&mut lanes, Exchange::Connection, 1, WARM_UP)?;
    let slices = take_turns(&mut lanes, Exchange::Connection, ROUNDS, SLICE)?;
    drop((awake, lanes));
    workload.delete_namespace()?;
    let [with, without] = slices.try_into().ok().context("there are two lanes")?;
    let [with, without] = [with, without].map(|slices| column(&slices, |slice| slice.per_second));
    let ratios = Ratios::of(&with, &without);
    bed.progress.say(format!("policy-crr: {}", ratios.spread()));
    let figure = Figure::new("policy-crr", median(&with), Unit::Connections);
    Ok(vec![figure.against(median(&without), ratios.median())])
}

/// Egress is the client's node's to decide, ingress the server's: both must do so, and nobody for the free pair.
fn in_force([policed, unpoliced]: &mut [Lane; 2], server: &str, free: &str) -> Result<()> {
    let (measured, baseline) = (policed.reaches(server, PORT)?, unpoliced.reaches(free, PORT)?);
    let egress = policed.reaches(free, CLOSING_PORT)?;
    let ingress = unpoliced.reaches(server, CLOSING_PORT)?;
    ensure!(
        measured && baseline && !egress && !ingress,
        "client to server is {}, the free pair {}, client to free server {}, free client to server {}",
        opened(measured),
        opened(baseline),
        opened(egress),
        opened(ingress)
    );
    Ok(())
}

fn opened(open: bool) -> &'static str {
    if open { "open" } else { "closed" }
}

/// One of the policies. All select both pods in both directions; the last allows what is measured, each other a pod that is
/// not there.
fn policy(index: u16) -> Value {
    let last = index + 1 == POLICIES;
    let absent = format!("absent-{index}");
    let [client, server, port] = if last {
        [json!("client"), json!("server"), json!(PORT)]
    } else {
        [json!(absent), json!(absent), json!(10_000 + index)]
    };
    let peer = |app: Value| json!([{"podSelector": {"matchLabels": {"app": app}}}]);
    let ports = json!([{"protocol": "TCP", "port": port}]);
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": format!("policy-{index}")},
        "spec": {
            "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["client", "server"]}]},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peer(client), "ports": ports}],
            "egress": [{"to": peer(server), "ports": ports}],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_policy_alone_allows_what_is_measured() {
        let allows = |index: &u16| {
            let spec = &policy(*index)["spec"];
            spec["ingress"][0]["from"][0]["podSelector"]["matchLabels"]["app"] == "client"
                && spec["egress"][0]["to"][0]["podSelector"]["matchLabels"]["app"] == "server"
                && spec["ingress"][0]["ports"][0]["port"] == PORT
                && spec["egress"][0]["ports"][0]["port"] == PORT
        };
        assert_eq!((0..POLICIES).filter(allows).collect::<Vec<_>>(), [POLICIES - 1]);
    }
}
