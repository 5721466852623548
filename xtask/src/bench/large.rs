//! `footprint-…-large`: memory in a cluster with 50,000 pods on a hundred other nodes, 500 Services with a hundred endpoints each, and 250
//! pods on the second node. The other nodes and their pods are objects that no kubelet stands behind: to an agent they
//! look like all others. The cluster is good for nothing else afterwards.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::Workload;
use serde_json::{Value, json};

use super::api::Api;
use super::bed::Bed;
use super::cni_add;
use super::figure::Figure;
use super::footprint;
use super::loads::Attached;

const NODES: usize = 100;
const PODS_PER_NODE: usize = 500;
const SERVICES: usize = 500;
const ENDPOINTS_PER_SERVICE: usize = 100;
/// Pods on the node that is looked at.
const LOCAL: u32 = 250;
/// A namespace's pods have as many different labels.
const APPS: usize = 10;
const NAMESPACES: usize = 50;
/// Requests under way at once.
const PARALLEL: usize = 8;
const KNOWN: Duration = Duration::from_mins(5);
const IDENTITIES: &str = "netkeel_agent_policy_identities";

pub(super) fn run(bed: &Bed) -> Result<Vec<Figure>> {
    let [_, node] = bed.nodes()?;
    let api = Api::start(bed)?;
    for index in 0..NAMESPACES {
        Workload::new(&bed.cluster, &namespace(index))?.apply(vec![policy()])?;
    }
    many(NODES, |index| ghost(&api, index))?;
    let blocks = blocks(bed)?;
    bed.progress.say(format!("{NODES} nodes have their blocks"));
    many(NODES * PODS_PER_NODE, |index| pod(&api, &blocks, index))?;
    bed.progress.say(format!("{} pods are on them", NODES * PODS_PER_NODE));
    many(SERVICES, |index| service(&api, &blocks, index))?;
    let configuration = cni_add::configuration(bed, node)?;
    let mut local = Attached::start(&mut cni_add::command(bed, node, LOCAL, 0)?)?;
    local.tell(&configuration)?;
    ensure!(local.line()?.starts_with("ready"), "the {LOCAL} pods of {node} do not come up");
    wait_until("the agent knows all pods", KNOWN, || {
        let metrics = bed.cluster.node_exec(node, &["busybox", "wget", "-qO-", footprint::METRICS])?;
        let known =
            metrics.lines().find_map(|line| line.strip_prefix(IDENTITIES)?.trim().parse::<f64>().ok());
        #[expect(clippy::cast_precision_loss, reason = "a few thousands")]
        let all = (NODES * PODS_PER_NODE) as f64;
        ensure!(known.is_some_and(|known| known >= all), "it knows {known:?}");
        Ok(())
    })?;
    bed.settle()?;
    footprint::measure(bed, "-large")
}

fn namespace(index: usize) -> String {
    format!("bench-large-{index}")
}

/// Runs `job` for every number, several at once.
pub(super) fn many(count: usize, job: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(());
            }
            job(index)?;
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..PARALLEL).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().map_err(|_| anyhow::anyhow!("a worker panicked")).and_then(|done| done)
        })
    })
}

fn ghost_name(index: usize) -> String {
    format!("ghost-{index}")
}

/// A node that no kubelet stands behind. Its pods must tolerate what the node controller thinks of it.
fn ghost(api: &Api, index: usize) -> Result<()> {
    let name = ghost_name(index);
    let labels = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
    api.create("/api/v1/nodes", &node)?;
    // Of a network for measurements alone (RFC 2544).
    let address = format!("198.19.0.{}", index + 1);
    let status = json!({"status": {"addresses": [
        {"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name},
    ]}});
    api.merge(&format!("/api/v1/nodes/{name}/status"), &status).map(drop)
}

/// The first address of each ghost's first block.
fn blocks(bed: &Bed) -> Result<Vec<IpAddr>> {
    let of = |index: usize| -> Result<IpAddr> {
        let name = ghost_name(index);
        let path = "jsonpath={.spec.blocks[0]}";
        let block = bed.cluster.kubectl(&["get", "nodenetwork", &name, "-o", path])?;
        let (address, _) = block.split_once('/').with_context(|| format!("{name} has no block"))?;
        Ok(address.parse()?)
    };
    wait_until("every node has a block", KNOWN, || of(NODES - 1))?;
    (0..NODES).map(|index| wait_until("a node's block", KNOWN, || of(index))).collect()
}

/// The address of one of all pods; the first of a block is the node's own.
fn address(blocks: &[IpAddr], index: usize) -> Result<IpAddr> {
    let block = blocks.get(index / PODS_PER_NODE).context("a node")?;
    let host = u32::try_from(index % PODS_PER_NODE)? + 1;
    Ok(match block {
        IpAddr::V4(block) => IpAddr::V4((u32::from(*block) + host).into()),
        IpAddr::V6(block) => IpAddr::V6((u128::from(*block) + u128::from(host)).into()),
    })
}

fn pod(api: &Api, blocks: &[IpAddr], index: usize) -> Result<()> {
    let (name, namespace) = (format!("pod-{index}"), namespace(index % NAMESPACES));
    let app = format!("app-{}", index / NAMESPACES % APPS);
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {
            "app": app, "pod-template-hash": format!("{:08x}", index % 500), "tier": "bench",
        }},
        "spec": {
            "nodeName": ghost_name(index / PODS_PER_NODE),
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "main", "image": "nobody.invalid/none"}],
        },
    });
    api.create(&format!("/api/v1/namespaces/{namespace}/pods"), &object)?;
    let ip = address(blocks, index)?.to_string();
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
    api.merge(&format!("/api/v1/namespaces/{namespace}/pods/{name}/status"), &status).map(drop)
}

/// With one slice of endpoints, which nobody else writes.
fn service(api: &Api, blocks: &[IpAddr], index: usize) -> Result<()> {
    let (name, namespace) = (format!("service-{index}"), namespace(index % NAMESPACES));
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    let meta = json!({"name": name, "labels": {"kubernetes.io/service-name": name}});
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": ports}});
    api.create(&format!("/api/v1/namespaces/{namespace}/services"), &service)?;
    let pods = (0..ENDPOINTS_PER_SERVICE).map(|pod| address(blocks, index * ENDPOINTS_PER_SERVICE + pod));
    let endpoints: Vec<Value> = pods
        .map(|address| Ok(json!({"addresses": [address?.to_string()], "conditions": {"ready": true}})))
        .collect::<Result<_>>()?;
    let ports = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4",
        "endpoints": endpoints, "ports": ports,
    });
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    api.create(&path, &slice).map(drop)
}

/// Tells pods of a namespace apart by their labels.
fn policy() -> Value {
    let app = |name: &str| json!({"podSelector": {"matchLabels": {"app": name}}});
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "to-the-first"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "app-0"}},
            "ingress": [{"from": [app("app-1"), app("app-2")], "ports": [{"port": 8080}]}],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_have_addresses_of_their_nodes_blocks() {
        let blocks: Vec<IpAddr> = ["10.240.8.0", "10.240.16.0"].map(|text| text.parse().unwrap()).into();
        let of = |index| address(&blocks, index).unwrap().to_string();
        assert_eq!((of(0), of(PODS_PER_NODE - 1)), ("10.240.8.1".to_owned(), "10.240.9.244".to_owned()));
        assert_eq!(of(PODS_PER_NODE), "10.240.16.1");
        assert!(address(&blocks, 2 * PODS_PER_NODE).is_err());
    }

    #[test]
    fn every_number_is_done_once_and_an_error_is_told() {
        let sum = AtomicUsize::new(0);
        many(100, |index| {
            sum.fetch_add(index, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 4950);
        assert!(many(3, |index| anyhow::bail!("number {index}")).is_err());
    }
}
