//! Pod addresses: pools by annotation and by namespace, fixed addresses, blocks on demand, a full node and its recovery.
//! On a cluster of its own, whose pools are tiny.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netkeel_e2e::workload::{Pod, Workload, install, node_names};
use netkeel_e2e::{Cluster, IpFamily, wait_until};
use serde_json::{Value, json};

/// Seven addresses a node from `default`, three at a time from `fast`, three in all from `pay`, which is for one team, and three at a
/// time from `old`, to those alone who ask for it.
const POOLS: &str = r#"clusterNetwork.spec.podNetwork.pools=[
    {"name":"default","cidrs":["10.200.0.0/28"],"blockSizes":{"ipv4":29},"priority":10},
    {"name":"fast","cidrs":["10.201.0.0/24"],"blockSizes":{"ipv4":30},"priority":-1,"reserved":["10.201.0.1/32"]},
    {"name":"pay","cidrs":["10.202.0.0/30"],"blockSizes":{"ipv4":30},
     "namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"ipam-pay"}}},
    {"name":"old","cidrs":["10.203.0.0/24"],"blockSizes":{"ipv4":30},"priority":-2}]"#;

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let pools: String = POOLS.split_whitespace().collect();
        let values = ["--set-json", pools.as_str()];
        install::installed_with("ipam", IpFamily::Ipv4, &values).expect("a cluster with these pools")
    })
}

/// A pod with annotations.
fn annotated(name: &str, node: &str, annotations: &Value) -> Value {
    let mut pod = Pod::server(name, node).json();
    pod["metadata"]["annotations"] = annotations.clone();
    pod
}

fn address(workload: &Workload<'_>, pod: &str) -> Result<String> {
    workload.wait_ready(pod)?;
    workload.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])
}

/// Waits until the events of the workload's namespace say something.
fn told(workload: &Workload<'_>, text: &str) {
    wait_until(&format!("an event says: {text}"), Duration::from_mins(1), || {
        let messages = "jsonpath={range .items[*]}{.message}{'\\n'}{end}";
        let events = workload.kubectl(&["get", "events", "-o", messages])?;
        ensure!(events.contains(text), "{events}");
        Ok(())
    })
    .expect(text);
}

#[test]
fn a_pod_gets_the_pool_and_the_address_that_it_asks_for_or_is_told_why_not() {
    let workload = Workload::new(cluster(), "ipam-fixed").unwrap();
    let nodes = node_names(cluster());
    let began = Instant::now();
    workload
        .apply(vec![
            annotated("fast", &nodes[0], &json!({"netkeel.io/pool": "fast"})),
            annotated("fixed", &nodes[1], &json!({"netkeel.io/ip-addresses": "10.201.0.42"})),
        ])
        .unwrap();
    let fast = address(&workload, "fast").unwrap();
    println!("pods of a pool without a block ran after {:?}", began.elapsed());
    assert!(fast.starts_with("10.201.0.") && fast != "10.201.0.1", "{fast}: the reserved one is nobody's");
    assert_eq!(address(&workload, "fixed").unwrap(), "10.201.0.42");
    let from = workload.client("fast").unwrap();
    let seen = from.connect("10.201.0.42", netkeel_e2e::workload::ECHO_PORT, 5).unwrap();
    assert_eq!(seen.clients.keys().collect::<Vec<_>>(), [&fast], "the pools reach each other");
    workload
        .apply(vec![
            annotated("taken", &nodes[1], &json!({"netkeel.io/ip-addresses": "10.201.0.42"})),
            annotated("elsewhere", &nodes[0], &json!({"netkeel.io/ip-addresses": "10.201.0.43"})),
            annotated("unknown", &nodes[0], &json!({"netkeel.io/pool": "slow"})),
            annotated("closed", &nodes[0], &json!({"netkeel.io/pool": "pay"})),
        ])
        .unwrap();
    told(&workload, "10.201.0.42 is held by another pod: ipam-fixed/fixed");
    told(&workload, "10.201.0.43 lies in no block of this node");
    told(&workload, "there is no pool slow");
    told(&workload, "pool pay is not open to the pod's namespace");
    workload.delete_namespace().unwrap();
}

#[test]
fn a_namespace_has_a_pool_of_its_own() {
    let workload = Workload::new(cluster(), "ipam-pay").unwrap();
    let node = &node_names(cluster())[0];
    cluster().kubectl(&["annotate", "namespace", "ipam-pay", "netkeel.io/pool=pay", "--overwrite"]).unwrap();
    workload.pod("paid", node).unwrap();
    let paid = address(&workload, "paid").unwrap();
    assert!(paid.starts_with("10.202.0."), "{paid}");
    workload.delete_namespace().unwrap();
}

/// Status and reason of a condition of a node's `NodeNetwork`.
fn available(node: &str) -> Result<String> {
    let path = "jsonpath={.status.conditions[?(@.type=='AddressesAvailable')].status}";
    cluster().kubectl(&["get", "nodenetwork", node, "-o", path])
}

#[test]
fn a_node_without_a_free_address_says_so_and_goes_on_when_pods_go() {
    let workload = Workload::new(cluster(), "ipam-full").unwrap();
    let node = node_names(cluster())[1].clone();
    let names: Vec<String> = (0..9).map(|number| format!("pod-{number}")).collect();
    // from `default` alone, so that `fast` does not help out
    let pods = names.iter().map(|name| annotated(name, &node, &json!({"netkeel.io/pool": "default"})));
    workload.apply(pods.collect()).unwrap();
    told(&workload, "has no free pod address in pool default");
    wait_until("the condition tells", Duration::from_secs(10), || {
        ensure!(available(&node)? == "False", "{}", available(&node)?);
        Ok(())
    })
    .unwrap();
    let about = format!(
        "--field-selector=involvedObject.kind=Node,involvedObject.name={node},reason=AddressesExhausted"
    );
    let events =
        cluster().kubectl(&["get", "events", "-n", "default", &about, "-o", "jsonpath={.items[*].message}"]);
    assert!(events.unwrap().contains("spec.podNetwork.pools"), "an Event on the node says what to do");
    let running = || -> Result<Vec<String>> {
        let path = "jsonpath={range .items[?(@.status.phase=='Running')]}{.metadata.name} {end}";
        let text = workload.kubectl(&["get", "pods", "-o", path])?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    };
    let before = running().unwrap();
    assert!(!before.is_empty() && before.len() < names.len(), "{before:?}");
    workload.delete_all("pod", &before).unwrap();
    wait_until("the others run when the freed addresses have rested", Duration::from_mins(2), || {
        let now = running()?;
        ensure!(now.len() == names.len() - before.len(), "{now:?}");
        Ok(())
    })
    .unwrap();
    wait_until("the condition is good again", Duration::from_mins(3), || {
        let status = available(&node)?;
        (status == "True").then_some(()).context(status)
    })
    .unwrap();
    workload.delete_namespace().unwrap();
}

/// What the ClusterNetwork says of a pool: `state, blocks that nodes have, addresses in use`.
fn pool(name: &str) -> Result<String> {
    let path = format!(
        "jsonpath={{range .status.pools[?(@.name=='{name}')]}}{{.state}} {{.blocks.used}} {{.addresses.used}}{{end}}"
    );
    cluster().kubectl(&["get", "clusternetwork", "default", "-o", &path])
}

fn wait_pool(name: &str, says: &str, time: Duration) {
    wait_until(&format!("pool {name} is {says}"), time, || {
        let said = pool(name)?;
        ensure!(said.starts_with(says), "{said}");
        Ok(())
    })
    .expect(says);
}

/// Changes the pools of the spec.
fn edit_pools(edit: impl FnOnce(&mut Vec<Value>)) -> Result<String> {
    let mut network = cluster().kubectl_json(&["get", "clusternetwork", "default"])?;
    let mut pools: Vec<Value> = serde_json::from_value(network["spec"]["podNetwork"]["pools"].take())?;
    edit(&mut pools);
    let patch = json!({"spec": {"podNetwork": {"pools": pools}}}).to_string();
    cluster().kubectl(&["patch", "clusternetwork", "default", "--type=merge", "-p", &patch])
}

#[test]
fn a_pool_is_drained_live_and_removed() {
    let workload = Workload::new(cluster(), "ipam-drain").unwrap();
    let node = node_names(cluster())[0].clone();
    let asks = json!({"netkeel.io/pool": "old"});
    workload.apply(vec![annotated("stays", &node, &asks), annotated("asks", &node, &json!({}))]).unwrap();
    let stays = address(&workload, "stays").unwrap();
    assert!(stays.starts_with("10.203.0."), "{stays}");
    workload.wait_ready("asks").unwrap();
    let without = || edit_pools(|pools| pools.retain(|pool| pool["name"] != "old"));
    let refused = without().unwrap_err().to_string();
    assert!(refused.contains("set its state to Draining"), "{refused}");
    edit_pools(|pools| {
        pools.iter_mut().filter(|pool| pool["name"] == "old").for_each(|p| p["state"] = json!("Draining"));
    })
    .unwrap();
    wait_pool("old", "Draining 1 1", Duration::from_secs(20));
    let drained = Instant::now();
    workload.apply(vec![annotated("late", &node, &asks)]).unwrap();
    told(&workload, "pool old is being drained");
    let seen = workload.client("asks").unwrap().connect(&stays, netkeel_e2e::workload::ECHO_PORT, 5).unwrap();
    assert_eq!(seen.failed, 0, "the pod keeps its address");
    assert!(without().unwrap_err().to_string().contains("when status.pools says Removable"));
    workload.delete_all("pod", &["stays".to_owned(), "late".to_owned()]).unwrap();
    wait_pool("old", "Removable 0 0", Duration::from_mins(1));
    println!("a pool was drained {:?} after its state was set", drained.elapsed());
    without().unwrap();
    wait_until("the pool is gone", Duration::from_secs(20), || {
        let said = pool("old")?;
        ensure!(said.is_empty(), "{said}");
        let held =
            cluster().kubectl(&["get", "nodenetworks", "-o", "jsonpath={.items[*].spec.config.podCIDRs}"])?;
        ensure!(!held.contains("10.203"), "{held}");
        Ok(())
    })
    .unwrap();
    workload.delete_namespace().unwrap();
}
