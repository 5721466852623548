//! A dual-stack cluster: pods, Services, names, policy, the outside and the kubelet's probes in each family.
//! All tests share one cluster of their own.

use std::{net::IpAddr, sync::OnceLock, time::Duration};

use anyhow::{Context, Result, ensure};
use netkeel_e2e::{
    Cluster, IpFamily, wait_until,
    workload::{Client, ECHO_PORT, Pod, Workload, install, manifest, node_names},
};
use serde_json::json;

/// The outside host's address of IPv6, which no pod's address is routed to.
const OUTSIDE: &str = "fd00:30::1";
/// Headers of IPv6 and UDP.
const UDP_HEADERS: usize = 48;

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        install::installed("families", IpFamily::Dual).expect("a dual-stack cluster with Netkeel")
    })
}

/// Two pods on each node.
fn peers() -> &'static Workload<'static> {
    static PEERS: OnceLock<Workload<'static>> = OnceLock::new();
    PEERS.get_or_init(|| make_peers("families").expect("the pods of the tests"))
}

fn make_peers(namespace: &str) -> Result<Workload<'static>> {
    let workload = Workload::new(cluster(), namespace)?;
    for (index, node) in node_names(cluster()).iter().enumerate().take(2) {
        workload.pod(&format!("first-{index}"), node)?;
        workload.pod(&format!("second-{index}"), node)?;
    }
    workload.ready()?;
    Ok(workload)
}

/// A pod's address of a family, as its status has it.
fn address(workload: &Workload<'_>, pod: &str, ipv6: bool) -> Result<String> {
    let text = workload.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIPs[*].ip}"])?;
    let found = text.split(' ').find(|ip| ip.contains(':') == ipv6);
    Ok(found.with_context(|| format!("{pod} has {text:?}"))?.to_owned())
}

/// Connects ten times and returns the addresses that the server saw.
fn sources(from: &Client<'_>, to: &str) -> Result<Vec<String>> {
    let seen = from.connect(to, ECHO_PORT, 10)?;
    ensure!(seen.errors.is_empty(), "{from} -> {to}: {:?}", seen.errors);
    Ok(seen.clients.into_keys().collect())
}

#[test]
fn every_pod_has_an_address_of_each_family_from_the_nodes_blocks() {
    let workload = peers();
    for pod in ["first-0", "second-0", "first-1", "second-1"] {
        let (four, six) = (address(workload, pod, false).unwrap(), address(workload, pod, true).unwrap());
        assert!(four.starts_with("10.244.") && six.starts_with("fd00:10:244:"), "{pod}: {four}, {six}");
    }
}

#[test]
fn pods_reach_each_other_in_each_family_and_keep_their_source_address() {
    let workload = peers();
    for (from, to) in
        [("first-0", "second-0"), ("first-1", "second-1"), ("first-0", "first-1"), ("first-1", "first-0")]
    {
        for ipv6 in [false, true] {
            let client = workload.client(from).unwrap();
            let target = address(workload, to, ipv6).unwrap();
            let own = address(workload, from, ipv6).unwrap();
            assert_eq!(sources(&client, &target).unwrap(), std::slice::from_ref(&own), "{from} -> {to}");
            let seen = client.udp(&target, ECHO_PORT, 20, false).unwrap();
            assert!(seen.errors.is_empty(), "{from} -> {to}: {:?}", seen.errors);
            assert_eq!(seen.clients.keys().collect::<Vec<_>>(), [&own], "{from} -> {to}");
        }
    }
}

#[test]
fn streams_and_datagrams_of_every_size_arrive_unchanged_over_ipv6() {
    let workload = peers();
    for (from, to) in [("first-0", "second-0"), ("first-0", "first-1")] {
        let client = workload.client(from).unwrap();
        let target = address(workload, to, true).unwrap();
        client.transfer(&target, ECHO_PORT, 8 << 20).unwrap();
        let full = client.mtu().unwrap() - UDP_HEADERS;
        for size in [1, 500, full - 100, full - 1, full, full + 1, 3 * full] {
            let seen = client.udp_of(&target, ECHO_PORT, size).unwrap();
            assert!(seen.errors.is_empty(), "{from} -> {to}, {size} bytes: {:?}", seen.errors);
        }
    }
}

#[test]
fn a_pod_reaches_the_outside_with_its_nodes_address_of_the_family() {
    let workload = peers();
    for (index, node) in node_names(cluster()).iter().enumerate().take(2) {
        let path = "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}";
        let text = cluster().kubectl(&["get", "node", node, "-o", path]).unwrap();
        let own = text.split(' ').find(|ip| ip.contains(':')).expect("the node has IPv6");
        let client = workload.client(&format!("first-{index}")).unwrap();
        assert_eq!(sources(&client, OUTSIDE).unwrap(), [own], "from {node}");
    }
}

#[test]
fn a_service_of_both_families_is_reached_in_both_and_has_names_in_both() {
    let workload = Workload::new(cluster(), "families-service").unwrap();
    workload.deployment("web", 2).unwrap();
    let mut service = manifest::service("web", "web", false);
    service["spec"]["ipFamilyPolicy"] = json!("RequireDualStack");
    workload.apply(vec![service]).unwrap();
    workload.apply(vec![Pod::server("client", &node_names(cluster())[0]).json()]).unwrap();
    workload.ready().unwrap();
    let path = "jsonpath={.spec.clusterIPs[*]}";
    let addresses = workload.kubectl(&["get", "service", "web", "-o", path]).unwrap();
    let addresses: Vec<IpAddr> = addresses.split(' ').map(|ip| ip.parse().unwrap()).collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    let client = workload.client("client").unwrap();
    for address in &addresses {
        let text = address.to_string();
        wait_until(&format!("{text} is served by both pods"), Duration::from_secs(20), || {
            let seen = client.connect(&text, ECHO_PORT, 20)?;
            ensure!(seen.errors.is_empty() && seen.backends.len() == 2, "{seen:?}");
            ensure!(seen.clients.keys().all(|ip| ip.contains(':') == address.is_ipv6()), "{seen:?}");
            Ok(())
        })
        .unwrap();
        let seen = client.udp(&text, ECHO_PORT, 20, false).unwrap();
        assert!(seen.errors.is_empty(), "UDP to {text}: {:?}", seen.errors);
    }
    workload.delete_namespace().unwrap();
}

#[test]
fn dns_answers_over_both_families_and_with_both() {
    let workload = peers();
    let path = "jsonpath={.spec.clusterIPs[*]}";
    let servers =
        cluster().kubectl(&["-n", "kube-system", "get", "service", "kube-dns", "-o", path]).unwrap();
    let servers: Vec<&str> = servers.split(' ').collect();
    assert_eq!(servers.len(), 2, "kube-dns has {servers:?}");
    let client = workload.client("first-1").unwrap();
    for server in &servers {
        for (kind, wanted) in [("A", false), ("AAAA", true)] {
            let name = "kube-dns.kube-system.svc.cluster.local.";
            let answer = client.resolve_at(server, name, kind).unwrap();
            let expected = servers.iter().find(|ip| ip.contains(':') == wanted).unwrap();
            assert_eq!(answer.data(), [*expected], "{kind} from {server}");
        }
    }
}

#[test]
fn a_policy_holds_in_both_families() {
    let workload = make_peers("families-policy").unwrap();
    workload
        .apply(vec![json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "only-one"},
            "spec": {"podSelector": {"matchLabels": {"app": "first-1"}}, "policyTypes": ["Ingress"],
                     "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "first-0"}}}]}]},
        })])
        .unwrap();
    for ipv6 in [false, true] {
        let target = address(&workload, "first-1", ipv6).unwrap();
        let (friend, stranger) = (workload.client("first-0").unwrap(), workload.client("second-0").unwrap());
        wait_until(&format!("{target} is closed to the stranger"), Duration::from_secs(20), || {
            let seen = stranger.connect(&target, ECHO_PORT, 1)?;
            ensure!(seen.backends.is_empty(), "{seen:?}");
            Ok(())
        })
        .unwrap();
        let own = address(&workload, "first-0", ipv6).unwrap();
        assert_eq!(sources(&friend, &target).unwrap(), [own], "the friend passes");
        let node = Client::on_node(cluster(), &node_names(cluster())[1]).unwrap();
        assert!(sources(&node, &target).is_ok(), "and the pod's own node");
    }
    workload.delete_namespace().unwrap();
}
