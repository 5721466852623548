//! Pod addresses: pools by annotation and by namespace, fixed addresses, blocks on demand, a full node and its recovery.
//! On a cluster of its own, whose pools are tiny.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netkeel_e2e::workload::client::{Flow, Seen, Streams};
use netkeel_e2e::workload::prober::Probe;
use netkeel_e2e::workload::{Client, ECHO_PORT, Pod, Workload, install, node_names};
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
    let seen = from.connect("10.201.0.42", ECHO_PORT, 5).unwrap();
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
    workload.end().unwrap();
}

#[test]
fn a_namespace_has_a_pool_of_its_own() {
    let workload = Workload::new(cluster(), "ipam-pay").unwrap();
    let node = &node_names(cluster())[0];
    cluster().kubectl(&["annotate", "namespace", "ipam-pay", "netkeel.io/pool=pay", "--overwrite"]).unwrap();
    workload.pod("paid", node).unwrap();
    let paid = address(&workload, "paid").unwrap();
    assert!(paid.starts_with("10.202.0."), "{paid}");
    workload.end().unwrap();
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
    wait_until("the others run when the freed addresses have rested", Duration::from_mins(4), || {
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
    workload.end().unwrap();
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

fn drain(name: &str) -> Result<String> {
    edit_pools(|pools| {
        pools
            .iter_mut()
            .filter(|pool| pool["name"] == name)
            .for_each(|pool| pool["state"] = json!("Draining"));
    })
}

/// A node's IPv4 addresses on the overlay.
fn overlay(node: &str) -> Result<Vec<String>> {
    let show = ["ip", "-4", "-o", "address", "show", "dev", "netkeel.vxlan"];
    let text = cluster().node_exec(node, &show)?;
    let words = text.lines().filter_map(|line| line.split_ascii_whitespace().nth(3));
    Ok(words.map(|address| address.trim_end_matches("/32").to_owned()).collect())
}

/// The addresses with which a node's own processes talk to pods of other nodes.
fn talks_from(node: &str) -> Result<Vec<String>> {
    let show = ["ip", "-4", "route", "show", "proto", "110", "dev", "netkeel.vxlan"];
    let routes = cluster().node_exec(node, &show)?;
    let source = |line: &str| Some(line.split_once(" src ")?.1.split(' ').next()?.to_owned());
    Ok(routes.lines().filter_map(source).collect())
}

/// Waits until something holds for addresses of every node.
fn wait_own(what: &str, look: fn(&str) -> Result<Vec<String>>, holds: impl Fn(&String) -> bool) {
    wait_until(what, Duration::from_secs(30), || {
        for node in node_names(cluster()) {
            let own = look(&node)?;
            ensure!(!own.is_empty() && own.iter().all(&holds), "{node} has {own:?}");
        }
        Ok(())
    })
    .expect(what);
}

/// Traffic between the nodes while the pool goes out of which they have their own addresses on the overlay: connections of pods that have
/// theirs from another, and a node's own, old and new ones.
struct Moving {
    workload: Workload<'static>,
    streams: [Probe<Streams>; 2],
    process: Client<'static>,
    knocking: Flow<Seen>,
    from_old: Flow<Streams>,
}

impl Moving {
    fn start(namespace: &str) -> Result<Self> {
        let (workload, nodes) = (Workload::new(cluster(), namespace)?, node_names(cluster()));
        let asks = json!({"netkeel.io/pool": "fast"});
        workload.apply(vec![annotated("peer-0", &nodes[0], &asks), annotated("peer-1", &nodes[1], &asks)])?;
        workload.ready()?;
        let (one, other) = (workload.prober("peer-0")?, workload.prober("peer-1")?);
        let streams =
            [one.streams(&other.address, ECHO_PORT, 8)?, other.streams(&one.address, ECHO_PORT, 8)?];
        let process = Client::on_node(cluster(), &nodes[0])?;
        let knocking = process.knock(&other.address, ECHO_PORT, 8)?;
        // Longer than it takes until the address changes, shorter than an address rests: the old one is there so long.
        let from_old = process.streams(&other.address, ECHO_PORT, 8, 20)?;
        Ok(Self { workload, streams, process, knocking, from_old })
    }

    /// Nothing broke, and the nodes reach each other's pods from their new addresses.
    fn end(self) -> Result<()> {
        self.knocking.finish()?.none_failed().context("new connections of a node")?;
        let from_old = self.from_old.finish()?;
        let held = from_old.errors.is_empty() && from_old.exchanges > 1000;
        ensure!(held, "a node's connections from its old address: {from_old:?}");
        let [one, other] = [self.workload.client("peer-0")?, self.workload.client("peer-1")?];
        for (from, to) in [(&one, &other), (&other, &one)] {
            ensure!(from.sources(&to.address)? == [from.address.as_str()], "{from} -> {to}");
        }
        let (seen, own) = (self.process.sources(&other.address)?, overlay(&node_names(cluster())[0])?);
        ensure!(seen == own, "a process of a node comes from {seen:?}, not from {own:?}");
        for streams in self.streams {
            let streams = streams.end()?;
            let held = streams.errors.is_empty() && streams.exchanges > 1000;
            ensure!(held, "connections of pods of another pool: {streams:?}");
        }
        self.workload.end()
    }
}

/// The last test in the order of names: it takes the pool away from which the others have their pods. One pool waits while the other does:
/// addresses rest for half a minute.
#[test]
fn pools_are_drained_live_and_removed_even_that_of_the_nodes_own_addresses() {
    let workload = Workload::new(cluster(), "ipam-drain").unwrap();
    let node = node_names(cluster())[0].clone();
    let asks = json!({"netkeel.io/pool": "old"});
    workload.apply(vec![annotated("stays", &node, &asks), annotated("asks", &node, &json!({}))]).unwrap();
    let stays = address(&workload, "stays").unwrap();
    assert!(stays.starts_with("10.203.0."), "{stays}");
    workload.wait_ready("asks").unwrap();
    let without = |name| edit_pools(|pools| pools.retain(|pool| pool["name"] != name));
    let refused = without("old").unwrap_err().to_string();
    assert!(refused.contains("set its state to Draining"), "{refused}");
    drain("old").unwrap();
    wait_pool("old", "Draining 1 1", Duration::from_secs(20));
    let drained = Instant::now();
    workload.apply(vec![annotated("late", &node, &asks)]).unwrap();
    told(&workload, "pool old is being drained");
    let seen = workload.client("asks").unwrap().connect(&stays, ECHO_PORT, 5).unwrap();
    assert_eq!(seen.failed, 0, "the pod keeps its address");
    assert!(without("old").unwrap_err().to_string().contains("when status.pools says Removable"));
    let moving = Moving::start("ipam-moving").unwrap();
    let old = |address: &String| address.starts_with("10.200.");
    wait_own("nodes talk from the first pool", talks_from, old);
    drain("default").unwrap();
    wait_own("nodes talk from another pool", talks_from, |address| !old(address));
    workload.delete_all("pod", &["stays", "late", "asks"].map(str::to_owned)).unwrap();
    let dns = ["-n", "kube-system", "delete", "pods", "-l", "k8s-app=kube-dns"];
    cluster().kubectl(&dns).unwrap();
    for name in ["old", "default"] {
        wait_pool(name, "Removable 0 0", Duration::from_mins(2));
        println!("pool {name} was drained {:?} after the first one's state was set", drained.elapsed());
        without(name).unwrap();
    }
    wait_own("nothing is left of the first pool", overlay, |address| !old(address));
    wait_until("the pools are gone", Duration::from_secs(20), || {
        let said = pool("old")? + &pool("default")?;
        ensure!(said.is_empty(), "{said}");
        let held =
            cluster().kubectl(&["get", "nodenetworks", "-o", "jsonpath={.items[*].spec.config.podCIDRs}"])?;
        ensure!(!held.contains("10.203") && !held.contains("10.200"), "{held}");
        Ok(())
    })
    .unwrap();
    moving.end().unwrap();
    install::wait_available(cluster()).unwrap();
    workload.end().unwrap();
}
