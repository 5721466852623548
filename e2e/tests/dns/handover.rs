//! Coming from another DNS: its Service `kube-dns` is handed over under load.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::prober::Asked;
use netkeel_e2e::workload::shared;
use serde_json::{Value, json};

use super::names;

const NAME: &str = "web.dns.svc.cluster.local.";
const FORMER: &str = "former-dns";
const SOON: Duration = Duration::from_secs(40);

fn in_system(arguments: &[&str]) -> Result<String> {
    shared().kubectl(&[&["-n", "kube-system"], arguments].concat())
}

fn service() -> Result<Value> {
    shared().kubectl_json(&["-n", "kube-system", "get", "service", "kube-dns"])
}

fn reason() -> Result<String> {
    let path = "jsonpath={.status.conditions[?(@.type=='DNSReady')].reason}";
    shared().kubectl(&["get", "clusternetwork", "default", "-o", path])
}

fn wait_reason(wanted: &str) -> Result<()> {
    wait_until(&format!("DNSReady has the reason {wanted}"), SOON, || {
        let reason = reason()?;
        ensure!(reason == wanted, "it has {reason}");
        Ok(())
    })
}

/// Servers that are not the operator's, with the labels that another DNS has.
fn start_former() -> Result<()> {
    let mut set = shared().kubectl_json(&["-n", "kube-system", "get", "deployment", "netkeel-dns"])?;
    let labels = json!({"app": FORMER, "k8s-app": "kube-dns"});
    set["metadata"] = json!({"name": FORMER, "namespace": "kube-system"});
    set["spec"]["selector"] = json!({"matchLabels": {"app": FORMER}});
    set["spec"]["template"]["metadata"] = json!({"labels": labels});
    set["spec"]["replicas"] = 1.into();
    set["status"] = Value::Null;
    shared().apply(&set.to_string())?;
    in_system(&["rollout", "status", "deployment", FORMER, "--timeout=60s"]).map(drop)
}

/// Makes the Service one as kubeadm leaves it, and waits until nothing of Netkeel's answers.
fn make_foreign() -> Result<()> {
    let ports = json!([
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
        {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153},
    ]);
    let patch = json!([
        {"op": "remove", "path": "/metadata/labels/app.kubernetes.io~1part-of"},
        {"op": "replace", "path": "/spec/selector", "value": {"k8s-app": "kube-dns"}},
        {"op": "replace", "path": "/spec/ports", "value": ports},
    ]);
    in_system(&["patch", "service", "kube-dns", "--type=json", "-p", &patch.to_string()])?;
    wait_reason("ForeignService")?;
    in_system(&["delete", "deployment", "netkeel-dns", "--wait=false"]).map(drop)
}

/// Hands the Service over, also after a failure.
struct HandedOver;

impl HandedOver {
    fn label() -> Result<()> {
        let label = "app.kubernetes.io/part-of=netkeel";
        in_system(&["label", "--overwrite", "service", "kube-dns", label]).map(drop)
    }
}

impl Drop for HandedOver {
    fn drop(&mut self) {
        let former = ["delete", "deployment", FORMER, "--ignore-not-found", "--wait=false"];
        for done in [Self::label(), wait_reason("Serving"), in_system(&former).map(drop)] {
            if let Err(error) = done {
                println!("kube-dns is left changed: {error:#}");
            }
        }
    }
}

#[test]
fn a_service_of_another_dns_is_handed_over_without_a_question_lost() -> Result<()> {
    let before = service()?;
    start_former()?;
    let handed_over = HandedOver;
    make_foreign()?;
    let clients = [0, 1].map(|index| names().workload.prober(&format!("client-{index}")));
    let clients: Vec<_> = clients.into_iter().collect::<Result<_>>()?;
    let asked = |socket| Asked { socket, interval_us: 5000, ..Asked::default() };
    let probes = clients.iter().flat_map(|client| {
        ["fresh", "kept"].map(|socket| client.names(NAME, &names().service, asked(socket)))
    });
    let probes: Vec<_> = probes.collect::<Result<_>>()?;

    HandedOver::label()?;
    wait_reason("Serving")?;
    drop(handed_over); // ends the former servers
    let after = service()?;
    for field in ["clusterIP", "ports", "selector"] {
        ensure!(after["spec"][field] == before["spec"][field], "{field}: {}", after["spec"][field]);
    }
    in_system(&["wait", "--for=delete", "pod", "-l", &format!("app={FORMER}"), "--timeout=60s"])?;
    for probe in probes {
        let seen = probe.end().context("questions while kube-dns was handed over")?;
        println!("handed over: {seen:?}");
        ensure!(seen.answered == seen.asked && seen.asked > 100, "{seen:?}");
    }
    Ok(())
}
