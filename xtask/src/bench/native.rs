//! `native-rr` and `native-crr`: from a pod on the first node to a pod on the second over native routes, with connection tracking
//! and a policy that selects both, beside the same programs as processes of the nodes.

use anyhow::Result;
use netkeel_e2e::workload::{Workload, install};
use serde_json::{Value, json};

use super::bed::Bed;
use super::figure::Figure;
use super::loads::{self, Attached, Exchange, Lane};
use super::pod_path::{self, Names};

const NAMESPACE: &str = "bench-native";

pub(super) fn run(bed: &Bed, exchange: Exchange) -> Result<Vec<Figure>> {
    encapsulate(bed, "None")?;
    let figures = measure(bed, exchange);
    encapsulate(bed, "VXLAN")?;
    figures
}

fn measure(bed: &Bed, exchange: Exchange) -> Result<Vec<Figure>> {
    let [first, second] = bed.nodes()?;
    let workload = Workload::new(&bed.cluster, NAMESPACE)?;
    workload.apply(vec![policy(), loads::client("client", first), loads::server("server", second)])?;
    workload.ready()?;
    let pod = bed.pod_address(&workload, "server")?;
    let node = bed.address(second)?;
    let _servers = [Attached::node_server(bed, first)?, Attached::node_server(bed, second)?];
    let mut lanes = [
        Lane::in_pod(bed, NAMESPACE, "client", &pod)?,
        Lane::on_node(bed, first, &node)?,
        Lane::on_node(bed, first, bed.loopback())?,
    ];
    for (lane, server) in lanes.iter_mut().zip([pod.as_str(), &node, bed.loopback()]) {
        lane.wait_served(server)?;
    }
    let names = Names { path: "native", loopback: "native-loopback", suffix: "", exchange };
    let figures = pod_path::compare(bed, &names, &mut lanes)?;
    drop(lanes);
    workload.delete_namespace()?;
    Ok(figures)
}

/// Selects both pods in both directions and allows what is measured.
fn policy() -> Value {
    let here = json!([{"podSelector": {}}]);
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "among-themselves"},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": here}],
            "egress": [{"to": here}],
        },
    })
}

/// Changes the way between the nodes, and waits until both have it in force.
fn encapsulate(bed: &Bed, encapsulation: &str) -> Result<()> {
    install::set_encapsulation(&bed.cluster, encapsulation)?;
    install::wait_available(&bed.cluster)?;
    bed.progress.say(format!("the way between nodes: {encapsulation}"));
    Ok(())
}
