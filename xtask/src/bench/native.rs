//! `native-rr` and `native-crr`: from a pod on the first node to a pod on the second over native routes, with connection tracking
//! and a policy that selects both, beside the same programs as processes of the nodes.

use anyhow::Result;
use netkeel_e2e::workload::install;
use serde_json::{Value, json};

use super::bed::Bed;
use super::figure::Figure;
use super::loads::Exchange;
use super::pod_path::{self, Names};

pub(super) fn run(bed: &Bed, exchange: Exchange) -> Result<Vec<Figure>> {
    encapsulate(bed, "None")?;
    let names = Names { path: "native", loopback: "native-loopback", suffix: "", exchange };
    let figures = pod_path::between_nodes(bed, &names, vec![policy()]);
    encapsulate(bed, "VXLAN")?;
    figures
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
