//! What the demo shows of policy, across nodes: denied, allowed, and why.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netkeel_e2e::workload::{Client, ECHO_PORT, Workload, install};
use netkeel_e2e::{Cluster, wait_until};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
const TIMES: u32 = 3;
/// Names of the policies, and of the client that the second lets in. Its server is on the other node.
const CLOSED: &str = "closed";
const ONE_CLIENT: &str = "only-client-0";

fn policy(name: &str, ingress: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": {"app": "client-1"}}, "policyTypes": ["Ingress"], "ingress": ingress},
    })
}

/// No connection and no datagram gets through, looked at several times.
pub(super) fn denies(workload: &Workload<'_>) -> Result<String> {
    let (from, to) = (workload.client("client-0")?, workload.client("client-1")?);
    from.connect(&to.address, ECHO_PORT, TIMES)?.none_failed()?;
    workload.apply(vec![policy(CLOSED, &json!([]))])?;
    let written = Instant::now();
    wait_until("nothing gets through", SOON, || stays_out(&from, &to.address))?;
    let took = written.elapsed();
    stays_out(&from, &to.address)?;
    to.connect(&from.address, ECHO_PORT, TIMES)?.none_failed()?;
    Ok(format!(
        "{from} does not reach {to} any more ({:.1} s with the tries), and is reached by it",
        took.as_secs_f64()
    ))
}

fn stays_out(from: &Client<'_>, to: &str) -> Result<()> {
    let (tcp, udp) = (from.connect(to, ECHO_PORT, 1)?, from.udp(to, ECHO_PORT, 1, false)?);
    ensure!(tcp.ok + udp.ok == 0, "{} connections and {} datagrams got through", tcp.ok, udp.ok);
    Ok(())
}

/// A second policy lets in the one client again.
pub(super) fn allows(workload: &Workload<'_>) -> Result<String> {
    let (from, to) = (workload.client("client-0")?, workload.client("client-1")?);
    let peer = json!({"podSelector": {"matchLabels": {"app": "client-0"}}});
    workload.apply(vec![policy(ONE_CLIENT, &json!([{"from": [peer]}]))])?;
    wait_until("the client is let in", SOON, || {
        from.connect(&to.address, ECHO_PORT, 20)?.none_failed()?;
        from.udp(&to.address, ECHO_PORT, 20, false)?.none_failed()
    })?;
    Ok(format!("{from} → {to}: 20 connections, 20 datagrams"))
}

/// `netkeel why`, in its own words, for the client that is let in; then the policies go.
pub(super) fn why(workload: &Workload<'_>, cluster: &Cluster, namespace: &str) -> Result<String> {
    let mut netkeel: Command = cluster.fabric_command(&install::netkeel()?)?;
    netkeel.args(["why", &format!("{namespace}/client-0"), &format!("{namespace}/client-1:{ECHO_PORT}")]);
    let output = netkeel.output()?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().replace('\n', "\n      ");
    ensure!(output.status.success() && text.contains(ONE_CLIENT), "{}: {text}", output.status);
    for name in [CLOSED, ONE_CLIENT] {
        workload.delete("networkpolicy", name)?;
    }
    Ok(text)
}
