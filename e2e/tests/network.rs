//! The pod network: every way a packet can go between pods, nodes and the outside.
//! All tests share one cluster with Netkeel installed without values.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netkeel_e2e::workload::client::greeting;
use netkeel_e2e::workload::{Client, ECHO_PORT, HTTP_PORT, PAIRS, Pod, Workload, node_names, shared};
use netkeel_e2e::{Cluster, wait_until};
use serde_json::{Value, json};

/// Two pods on each node, and a host-network pod on each node.
struct Peers {
    workload: Workload<'static>,
    nodes: Vec<String>,
}

/// Headers of IPv4 and UDP.
const UDP_HEADERS: usize = 28;
const STREAM_BYTES: u64 = 32 << 20;

fn peers() -> &'static Peers {
    static PEERS: OnceLock<Peers> = OnceLock::new();
    PEERS.get_or_init(|| make_peers().expect("the pods of the network tests"))
}

fn make_peers() -> Result<Peers> {
    let cluster = shared();
    let workload = Workload::new(cluster, "network")?;
    let nodes = node_names(cluster);
    workload.peers()?;
    for (index, node) in nodes.iter().enumerate().take(2) {
        workload.host_pod(&format!("host-{index}"), node)?;
    }
    workload.ready()?;
    Ok(Peers { workload, nodes })
}

impl Peers {
    fn pod(&self, name: &str) -> Client<'static> {
        self.workload.client(name).expect(name)
    }

    /// A process of the n-th node, outside every pod.
    fn node(&self, index: usize) -> Client<'static> {
        Client::on_node(shared(), &self.nodes[index]).expect("a process of a node")
    }

    /// Pod to pod: same node, and both directions between the nodes.
    fn pod_pairs(&self) -> Vec<(Client<'static>, Client<'static>)> {
        PAIRS.map(|(from, to)| (self.pod(from), self.pod(to))).into()
    }
}

/// The address that the server sees.
fn sources(from: &Client, to: &Client) -> String {
    from.sources(&to.address).expect("every connection works").join(", ")
}

#[test]
fn nodes_are_ready_after_helm_install() {
    let cluster = shared();
    let ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
    let nodes = cluster.kubectl(&["get", "nodes", "-o", ready]).unwrap();
    assert_eq!(nodes.split_whitespace().collect::<Vec<_>>(), vec!["True"; cluster.nodes().len()]);
}

#[test]
fn pods_reach_each_other_with_tcp_and_keep_their_source_address() {
    for (from, to) in peers().pod_pairs() {
        assert_eq!(sources(&from, &to), from.address, "{from} -> {to}");
    }
}

#[test]
fn pods_reach_each_other_with_udp_and_keep_their_source_address() {
    for (from, to) in peers().pod_pairs() {
        let seen = from.udp(&to.address, ECHO_PORT, 20, false).unwrap();
        assert!(seen.errors.is_empty(), "{from} -> {to}: {:?}", seen.errors);
        assert_eq!(seen.clients.keys().collect::<Vec<_>>(), [&from.address], "{from} -> {to}");
    }
}

#[test]
fn full_size_streams_arrive_unchanged() {
    for (from, to) in peers().pod_pairs() {
        let rate = from.transfer(&to.address, ECHO_PORT, STREAM_BYTES).unwrap();
        println!("{from} -> {to}: {rate:.0} Mbit/s there and back");
    }
}

#[test]
fn datagrams_of_every_size_arrive_unchanged() {
    for (from, to) in peers().pod_pairs() {
        let full = from.mtu().unwrap() - UDP_HEADERS;
        let answer_full = full - greeting(&to.to_string(), &from.address).len();
        for size in
            [1, 500, answer_full - 1, answer_full, answer_full + 1, full - 1, full, full + 1, 3 * full]
        {
            let seen = from.udp_of(&to.address, ECHO_PORT, size).unwrap();
            assert!(
                seen.errors.is_empty(),
                "{from} -> {to}, {size} bytes of at most {full}: {:?}",
                seen.errors
            );
        }
    }
}

#[test]
fn a_pod_reaches_the_outside_with_its_nodes_address() {
    let peers = peers();
    let cluster = shared();
    for (index, node) in peers.nodes.iter().enumerate().take(2) {
        let source = peers.pod(&format!("first-{index}")).outside_source().unwrap();
        assert_eq!(
            source,
            Client::on_node(cluster, node).unwrap().address,
            "seen from outside, pod of {node}"
        );
    }
}

#[test]
fn host_network_pods_and_node_processes_reach_pods_of_both_nodes() {
    let peers = peers();
    for index in 0..2 {
        for from in [peers.pod(&format!("host-{index}")), peers.node(index)] {
            for to in ["first-0", "first-1"].map(|name| peers.pod(name)) {
                println!("{from} of node {index} is seen by {to} as {}", sources(&from, &to));
                from.transfer(&to.address, ECHO_PORT, STREAM_BYTES / 4).unwrap();
                let udp = from.udp(&to.address, ECHO_PORT, 10, true).unwrap();
                assert!(udp.errors.is_empty(), "{from} -> {to}: {:?}", udp.errors);
            }
        }
    }
}

#[test]
fn pods_reach_host_network_pods_of_both_nodes() {
    let peers = peers();
    for (pod, own, other) in [("first-0", "host-0", "host-1"), ("first-1", "host-1", "host-0")] {
        let [pod, own, other] = [pod, own, other].map(|name| peers.pod(name));
        assert_eq!(sources(&pod, &own), pod.address, "{pod} keeps its address towards its own node");
        assert_eq!(sources(&pod, &other), own.address, "{pod} is masqueraded towards the other node");
    }
}

fn becomes_ready(name: &str, node: &str, probe: Value) -> Result<()> {
    let workload = &peers().workload;
    workload.apply(vec![Pod { readiness: Some(probe), ..Pod::server(name, node) }.json()])?;
    workload.wait_ready(name)?;
    workload.delete("pod", name)
}

#[test]
fn pods_with_http_and_tcp_probes_become_ready_on_both_nodes() {
    for node in &peers().nodes {
        becomes_ready("probed-by-tcp", node, json!({"tcpSocket": {"port": ECHO_PORT}, "periodSeconds": 1}))
            .unwrap();
        let get = json!({"path": "/", "port": HTTP_PORT});
        becomes_ready("probed-by-http", node, json!({"httpGet": get, "periodSeconds": 1})).unwrap();
    }
}

#[test]
fn the_api_server_and_kubectl_reach_pods_of_both_nodes() {
    let peers = peers();
    for pod in ["first-0", "first-1"] {
        let path = format!("/api/v1/namespaces/network/pods/{pod}:{HTTP_PORT}/proxy/");
        let answer = shared().kubectl(&["get", "--raw", &path]).unwrap();
        assert!(answer.contains(pod), "proxied answer of {pod}: {answer}");
        peers.workload.kubectl(&["logs", pod]).unwrap();
        assert_eq!(peers.pod(pod).text(&["hostname"]).unwrap().trim(), pod);
    }
}

/// What one node holds for its pods; equal before and after pods that came and went. Fails while it holds something for a pod
/// that is gone: an address that rests has a file.
fn holdings(cluster: &Cluster, node: &str) -> Result<String> {
    let used = cluster.kubectl(&["get", "nodenetwork", node, "-o", "jsonpath={.status.addresses.used}"])?;
    let look = "ls /run/netkeel/ipam | wc -l; ip -o link show | grep -c ': nk' ; \
                bpftool map dump pinned /sys/fs/bpf/netkeel/maps/ENDPOINTS-v* | grep -c key; ip route show | grep -c 'dev nk'; true";
    let counts = cluster.node_exec(node, &["sh", "-c", look])?;
    let counts: Vec<_> = counts.split_whitespace().collect();
    let told = format!("{node}: used {used}, files, links, endpoints, routes: {}", counts.join(" "));
    ensure!(counts.len() == 4 && counts.iter().all(|count| *count == used), "{told}");
    Ok(told)
}

#[test]
fn fifty_pods_made_and_deleted_twice_leave_no_address_behind() {
    let peers = peers();
    let cluster = shared();
    let look = || peers.nodes.iter().map(|node| holdings(cluster, node)).collect::<Result<Vec<_>>>();
    let before = wait_until("pods of other tests are gone", Duration::from_mins(1), look).unwrap();
    for round in 0..2 {
        let names: Vec<String> = (0..50).map(|n| format!("many-{round}-{n}")).collect();
        let pods =
            names.iter().zip(peers.nodes.iter().cycle()).map(|(name, node)| Pod::server(name, node).json());
        let started = Instant::now();
        peers.workload.apply(pods.collect()).unwrap();
        peers.workload.ready().unwrap();
        println!("50 pods ready after {:.1?}", started.elapsed());
        peers.workload.delete_all("pod", &names).unwrap();
    }
    wait_until("addresses, links and endpoints as before", Duration::from_mins(1), || {
        let after = look()?;
        ensure!(after == before, "before {before:?}, now {after:?}");
        Ok(())
    })
    .context("something was left behind")
    .unwrap();
}
