//! Limits of bandwidth on a real node, by the annotations that Kubernetes knows: what is sent to a pod and what it sends, from everywhere.

use std::{sync::OnceLock, time::Duration};

use anyhow::{Context, Result, ensure};
use netkeel_e2e::{
    wait_until,
    workload::{Client, ECHO_PORT, Pod, Workload, node_names, shared},
};
use serde_json::{Value, json};

const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// Mbit/s of every limit, and the share of it that a stream takes: the limit counts headers, and a machine that is busy with other
/// tests is late with the next packet now and then.
const LIMIT: f64 = 20.0;
const SHARE: std::ops::Range<f64> = 0.7..1.1;
/// 1.6 s at the limit. The server sends all back, so one limit of the pod's two directions bounds both.
const BYTES: u64 = 4_000_000;

struct Pods {
    workload: Workload<'static>,
    node: String,
}

/// On the first node a server with a limit on what is sent to it, one with a limit on what it sends, one without and a
/// client; a client on the second.
fn pods() -> &'static Pods {
    static PODS: OnceLock<Pods> = OnceLock::new();
    PODS.get_or_init(|| make_pods().expect("the pods of the tests"))
}

fn make_pods() -> Result<Pods> {
    let workload = Workload::new(shared(), "bandwidth")?;
    let nodes = node_names(shared());
    workload.apply(vec![
        limited("ingress", &nodes[0], &json!({INGRESS: "20M"})),
        limited("egress", &nodes[0], &json!({EGRESS: "20M"})),
        Pod::server("free", &nodes[0]).json(),
        Pod::server("near", &nodes[0]).json(),
        Pod::server("far", &nodes[1]).json(),
    ])?;
    workload.ready()?;
    Ok(Pods { workload, node: nodes[0].clone() })
}

fn limited(name: &str, node: &str, annotations: &Value) -> Value {
    let mut pod = Pod::server(name, node).json();
    pod["metadata"]["annotations"] = annotations.clone();
    pod
}

impl Pods {
    fn pod(&self, name: &str) -> Client<'static> {
        self.workload.client(name).expect(name)
    }
}

#[test]
fn a_stream_takes_the_limit_of_a_pod_from_everywhere_in_each_direction() {
    let pods = pods();
    let node = Client::on_node(shared(), &pods.node).unwrap();
    for from in [pods.pod("near"), pods.pod("far"), node] {
        for to in ["ingress", "egress"] {
            let rate = from.transfer(&pods.pod(to).address, ECHO_PORT, BYTES);
            let rate = rate.with_context(|| format!("{from} -> {to}")).unwrap();
            println!("{from} -> {to}: {rate:.1} Mbit/s");
            assert!(SHARE.contains(&(rate / LIMIT)), "{from} -> {to}: {rate} Mbit/s");
        }
    }
}

#[test]
fn a_pod_with_a_limit_on_what_it_sends_is_a_client_too_and_one_beside_it_is_not_slowed() {
    let pods = pods();
    let free = pods.pod("free").address;
    let rate = pods.pod("egress").transfer(&free, ECHO_PORT, BYTES).unwrap();
    assert!(SHARE.contains(&(rate / LIMIT)), "with a limit: {rate} Mbit/s");
    for from in ["near", "far"] {
        let rate = pods.pod(from).transfer(&free, ECHO_PORT, BYTES).unwrap();
        assert!(rate > 5.0 * LIMIT, "{from}: {rate} Mbit/s");
    }
}

#[test]
fn a_rate_that_cannot_be_had_is_told_in_the_pods_events() {
    let pods = pods();
    for (name, rate, said) in
        [("slow", "10", "resource is unreasonably small"), ("words", "fast", "quantities must match")]
    {
        pods.workload.apply(vec![limited(name, &pods.node, &json!({INGRESS: rate}))]).unwrap();
        wait_until("the event", Duration::from_secs(30), || {
            let field = format!("involvedObject.name={name}");
            let events = pods.workload.kubectl(&["get", "events", "--field-selector", &field])?;
            ensure!(events.contains("FailedCreatePodSandBox") && events.contains(said), "{events}");
            Ok(())
        })
        .unwrap();
        pods.workload.delete("pod", name).unwrap();
    }
}
