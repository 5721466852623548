//! What every cluster with IPv6 is asked, whatever other family it has: the two programs that have such clusters share it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::{
    Cluster, wait_until,
    workload::{Client, ECHO_PORT, PAIRS, Workload, install, node_names, of_family},
};
use serde_json::json;

use crate::traffic::{self, Mode, Traffic};

/// Headers of IPv6 and UDP.
const UDP_HEADERS: usize = 48;
/// For a policy to be in force everywhere.
const SOON: Duration = Duration::from_secs(20);

/// A namespace with the pods of [`Workload::peers`], which are ready.
pub(crate) fn peers<'a>(cluster: &'a Cluster, namespace: &str) -> Result<Workload<'a>> {
    let workload = Workload::new(cluster, namespace)?;
    workload.peers()?;
    workload.ready()?;
    Ok(workload)
}

/// The address of a family that the Node object has.
fn node_address(cluster: &Cluster, node: &str, ipv6: bool) -> Result<String> {
    let path = "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}";
    let text = cluster.kubectl(&["get", "node", node, "-o", path])?;
    of_family(&text, ipv6).with_context(|| format!("{node} has {text:?}"))
}

/// Connections and datagrams of these families between nodes, all at once, go on while the way changes to every other and back.
pub(crate) fn traffic_goes_on_while_the_way_changes(
    cluster: &'static Cluster,
    namespace: &str,
    families: &[bool],
) -> Result<()> {
    let mode = Mode::new(cluster);
    let workload = traffic::peers(cluster, namespace)?;
    let start = |ipv6: &bool| Traffic::start(&workload, *ipv6);
    let traffic = families.iter().map(start).collect::<Result<Vec<_>>>()?;
    let changes = ["None", "VXLANCrossSubnet", "VXLAN"];
    mode.change(&changes)?;
    traffic.into_iter().try_for_each(|traffic| traffic.end(changes.len()))
}

/// TCP and UDP between pods of one node and of two, which keep their addresses.
pub(crate) fn pods_reach_each_other(workload: &Workload<'_>, ipv6: bool) -> Result<()> {
    for (from, to) in PAIRS {
        let client = workload.client(from)?;
        let (target, own) = (workload.address(to, ipv6)?, workload.address(from, ipv6)?);
        ensure!(client.sources(&target)? == std::slice::from_ref(&own), "{from} -> {to}");
        let seen = client.udp(&target, ECHO_PORT, 20, false)?;
        seen.none_failed().with_context(|| format!("{from} -> {to}"))?;
        ensure!(seen.clients.keys().eq([&own]), "{from} -> {to}: {:?}", seen.clients);
    }
    Ok(())
}

/// Streams, and datagrams around the MTU and above it.
pub(crate) fn every_size_arrives(workload: &Workload<'_>, ipv6: bool) -> Result<()> {
    for (from, to) in [("first-0", "second-0"), ("first-0", "first-1")] {
        let client = workload.client(from)?;
        let target = workload.address(to, ipv6)?;
        client.transfer(&target, ECHO_PORT, 8 << 20)?;
        let full = client.mtu()? - UDP_HEADERS;
        for size in [1, 500, full - 100, full - 1, full, full + 1, 3 * full] {
            let seen = client.udp_of(&target, ECHO_PORT, size)?;
            seen.none_failed().with_context(|| format!("{from} -> {to}, {size} bytes"))?;
        }
    }
    Ok(())
}

/// From pods of two nodes to the outside, which sees the node's address of the family.
pub(crate) fn the_outside_sees_the_node(workload: &Workload<'_>, ipv6: bool) -> Result<()> {
    let cluster = workload.cluster();
    let outside = cluster.outside_addresses().into_iter().find(|address| address.is_ipv6() == ipv6);
    let outside = outside.context("the outside has the family")?.to_string();
    for (index, node) in node_names(cluster).iter().enumerate().take(2) {
        let own = node_address(cluster, node, ipv6)?;
        let client = workload.client(&format!("first-{index}"))?;
        ensure!(client.sources(&outside)? == [own], "from {node}");
    }
    Ok(())
}

/// Processes of a node reach pods of that node and of the other one, with the node's own address towards its own pods.
pub(crate) fn a_node_reaches_pods(workload: &Workload<'_>, ipv6: bool) -> Result<()> {
    let cluster = workload.cluster();
    let nodes = node_names(cluster);
    let client = Client::on_node(cluster, &nodes[0])?;
    let own = node_address(cluster, &nodes[0], ipv6)?;
    ensure!(client.sources(&workload.address("first-0", ipv6)?)? == [own.as_str()], "own pod");
    let seen = client.sources(&workload.address("first-1", ipv6)?)?;
    ensure!(seen.len() == 1 && seen[0] != own, "over the overlay it has its address there: {seen:?}");
    Ok(())
}

/// A Service's address, over TCP and UDP, from a client in a pod: both of its pods answer, and see the family.
pub(crate) fn a_service_is_reached(client: &Client<'_>, to: &str, ipv6: bool) -> Result<()> {
    wait_until(&format!("{to} is served by both pods"), SOON, || {
        let seen = client.connect(to, ECHO_PORT, 20)?;
        ensure!(seen.errors.is_empty() && seen.backends.len() == 2, "{seen:?}");
        ensure!(seen.clients.keys().all(|ip| ip.contains(':') == ipv6), "{seen:?}");
        Ok(())
    })?;
    for connected in [false, true] {
        let seen = client.udp(to, ECHO_PORT, 20, connected)?;
        seen.none_failed().with_context(|| format!("UDP to {to}, connected {connected}"))?;
    }
    Ok(())
}

/// `first-1` lets in the pods labelled as `second-1`, of its own node, and `first-0`, of the other one.
pub(crate) fn isolate(workload: &Workload<'_>) -> Result<()> {
    let peer = |app: &str| json!({"podSelector": {"matchLabels": {"app": app}}});
    workload.let_in("only-two", "first-1", &[peer("first-0"), peer("second-1")])
}

/// `second-1` lets in every IPv6 address but that of `second-0`, and no IPv4 address.
pub(crate) fn isolate_by_block(workload: &Workload<'_>) -> Result<()> {
    let except = format!("{}/128", workload.address("second-0", true)?);
    workload.let_in("blocks", "second-1", &[json!({"ipBlock": {"cidr": "::/0", "except": [except]}})])
}

/// What [`isolate_by_block`] says holds over IPv6, and `netkeel why` says so.
pub(crate) fn the_block_holds(workload: &Workload<'_>) -> Result<()> {
    let target = workload.address("second-1", true)?;
    is_closed(&workload.client("second-0")?, &target)?;
    for friend in ["first-0", "first-1"] {
        workload.client(friend)?.sources(&target).with_context(|| format!("{friend} passes"))?;
    }
    let to = format!("[{target}]:{ECHO_PORT}");
    for (from, expected) in [("first-0", Some(0)), ("second-0", Some(1))] {
        let asked = ["why", &format!("{}/{from}", workload.namespace()), &to];
        let (code, text) = install::run_netkeel(workload.cluster(), &asked)?;
        ensure!(code == expected, "{asked:?}: {code:?} {text}");
    }
    Ok(())
}

/// What [`isolate`] says holds: for friends of both nodes, a stranger, and the pod's own node.
pub(crate) fn the_isolation_holds(workload: &Workload<'_>, ipv6: bool) -> Result<()> {
    let target = workload.address("first-1", ipv6)?;
    is_closed(&workload.client("second-0")?, &target)?;
    for friend in ["first-0", "second-1"] {
        let own = workload.address(friend, ipv6)?;
        ensure!(workload.client(friend)?.sources(&target)? == [own], "{friend} passes");
    }
    let cluster = workload.cluster();
    Client::on_node(cluster, &node_names(cluster)[1])?.sources(&target).context("the pod's own node")?;
    Ok(())
}

/// Nothing gets through from a moment on.
pub(crate) fn is_closed(client: &Client<'_>, target: &str) -> Result<()> {
    wait_until(&format!("{target} is closed to {client}"), SOON, || {
        let seen = client.try_connect(target, ECHO_PORT)?;
        ensure!(seen.backends.is_empty(), "{seen:?}");
        Ok(())
    })
}
