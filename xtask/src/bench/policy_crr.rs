//! `policy-crr`: connect, request, response, close from a pod on the first node to a pod on the second, with a hundred
//! network policies that select both, of which the last allows it, beside the same without any. Blocks of slices with and
//! without take turns; each waits until what was written is in force.

use std::time::Duration;

use anyhow::{Result, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::Workload;
use serde_json::{Value, json};

use super::awake::Awake;
use super::bed::Bed;
use super::figure::{Figure, Unit, median};
use super::loads::{self, CLOSING_PORT, Exchange, Lane, PORT};
use super::ratio::Ratios;

const NAMESPACE: &str = "bench-policy";
const POLICIES: u16 = 100;
const BLOCKS: usize = 10;
const SLICES: usize = 10;
const SLICE: Duration = Duration::from_millis(200);
const WARM_UP: Duration = Duration::from_millis(500);
/// What writing a hundred objects set off is over by then.
const CALM: Duration = Duration::from_secs(2);
const IN_FORCE: Duration = Duration::from_secs(20);

pub(super) fn run(bed: &Bed) -> Result<Vec<Figure>> {
    let [first, second] = bed.nodes()?;
    let workload = Workload::new(&bed.cluster, NAMESPACE)?;
    // The bystander is selected by no policy: from and to it all is open where theirs are not in force.
    let pods =
        [loads::client("client", first), loads::server("server", second), loads::server("bystander", second)];
    workload.apply(pods.into())?;
    workload.ready()?;
    let mut scene = Scene::new(bed, &workload)?;
    bed.settle()?;
    scene.lane.slice(Exchange::Connection, WARM_UP)?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for block in 0..BLOCKS {
        for policed in [block % 2 == 0, block % 2 != 0] {
            let rates = scene.block(policed)?;
            if policed { &mut with } else { &mut without }.push(median(&rates));
        }
    }
    drop(scene);
    workload.delete_namespace()?;
    let ratios = Ratios::of(&with, &without);
    bed.progress.say(format!("policy-crr: {}", ratios.spread()));
    let figure = Figure::new("policy-crr", median(&with), Unit::Connections);
    Ok(vec![figure.against(median(&without), ratios.median())])
}

/// The pods, and who looks whether policies are in force.
struct Scene<'a> {
    workload: &'a Workload<'a>,
    /// From client to server.
    lane: Lane,
    /// From the bystander to the server.
    outsider: Lane,
    server: String,
    bystander: String,
    policed: bool,
}

impl<'a> Scene<'a> {
    fn new(bed: &Bed, workload: &'a Workload<'a>) -> Result<Self> {
        let address = |pod| workload.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"]);
        let (server, bystander) = (address("server")?, address("bystander")?);
        let mut lane = Lane::in_pod(bed, NAMESPACE, "client", &server)?;
        lane.wait_served(&server)?;
        let outsider = Lane::in_pod(bed, NAMESPACE, "bystander", &server)?;
        Ok(Self { workload, lane, outsider, server, bystander, policed: false })
    }

    /// The rates of one block of slices.
    fn block(&mut self, policed: bool) -> Result<Vec<f64>> {
        if policed != self.policed {
            if policed {
                self.workload.apply((0..POLICIES).map(policy).collect())?;
            } else {
                self.workload.kubectl(&["delete", "networkpolicies", "--all", "--wait=true"])?;
            }
            self.policed = policed;
        }
        let what = if policed { "the policies are in force" } else { "the policies are gone" };
        wait_until(what, IN_FORCE, || self.in_force(policed))?;
        std::thread::sleep(CALM);
        let _awake = Awake::start()?;
        self.lane.slice(Exchange::Connection, SLICE)?;
        let slices = (0..SLICES).map(|_| self.lane.slice(Exchange::Connection, SLICE));
        slices.map(|slice| Ok(slice?.per_second)).collect()
    }

    /// Egress is the client's node's to decide, ingress the server's: both must do so.
    fn in_force(&mut self, policed: bool) -> Result<()> {
        let measured = self.lane.reaches(&self.server, PORT)?;
        let egress = self.lane.reaches(&self.bystander, CLOSING_PORT)?;
        let ingress = self.outsider.reaches(&self.server, CLOSING_PORT)?;
        ensure!(
            measured && egress != policed && ingress != policed,
            "client to server is {}, client to bystander {}, bystander to server {}",
            opened(measured),
            opened(egress),
            opened(ingress)
        );
        Ok(())
    }
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
