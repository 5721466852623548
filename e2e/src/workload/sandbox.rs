//! What a node's containerd and agent hold of pods, read on the node itself: the API server may be away or behind.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{Cluster, wait_until};

/// A pod's sandbox.
#[derive(Clone)]
pub struct Sandbox<'a> {
    cluster: &'a Cluster,
    node: String,
    pub id: String,
    /// Process id of its first process, as the node counts.
    pub pid: u32,
}

/// The agent's record of an address.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    container_id: String,
    #[serde(default)]
    pod: String,
    freed_boot_millis: Option<u64>,
}

impl<'a> Sandbox<'a> {
    /// The running sandbox of a pod on that node.
    ///
    /// # Errors
    /// There is none.
    pub fn of(cluster: &'a Cluster, node: &str, namespace: &str, pod: &str) -> Result<Self> {
        let label = |name: &str, value: &str| format!("labels.\"{name}\"==\"{value}\"");
        let filter = [
            label("io.cri-containerd.kind", "sandbox"),
            label("io.kubernetes.pod.namespace", namespace),
            label("io.kubernetes.pod.name", pod),
        ]
        .join(",");
        let known = cluster.node_exec(node, &["ctr", "-n", "k8s.io", "containers", "ls", "-q", &filter])?;
        let running = tasks(cluster, node)?;
        let mut found = known.lines().filter_map(|id| Some((id, *running.get(id)?)));
        let (id, pid) = found.next().with_context(|| format!("pod {pod} has no sandbox on {node}"))?;
        Ok(Self { cluster, node: node.into(), id: id.into(), pid })
    }

    /// Ends the sandbox as a crash of it would; the kubelet makes another.
    ///
    /// # Errors
    /// It has ended before.
    pub fn kill(&self) -> Result<()> {
        self.cluster.node_exec(&self.node, &["kill", "-KILL", &self.pid.to_string()]).map(drop)
    }

    /// The address of `eth0` inside.
    ///
    /// # Errors
    /// It has none.
    pub fn address(&self) -> Result<String> {
        let pid = self.pid.to_string();
        let show = ["nsenter", "-t", &pid, "-n", "ip", "-4", "-o", "address", "show", "dev", "eth0"];
        let text = self.cluster.node_exec(&self.node, &show)?;
        let address = text.split_ascii_whitespace().skip_while(|word| *word != "inet").nth(1);
        let address = address.and_then(|address| address.split('/').next());
        Ok(address.with_context(|| format!("no address of {}: {text:?}", self.id))?.to_owned())
    }
}

/// Process ids of the containers that run on a node, by id.
fn tasks(cluster: &Cluster, node: &str) -> Result<HashMap<String, u32>> {
    let text = cluster.node_exec(node, &["ctr", "-n", "k8s.io", "tasks", "ls"])?;
    let running = text.lines().filter(|line| line.trim_end().ends_with("RUNNING"));
    Ok(running
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect())
}

/// Addresses of a node that are held for a sandbox that does not run: address and pod.
fn leaked_on(cluster: &Cluster, node: &str) -> Result<Vec<String>> {
    let read = "cd /run/netkeel/ipam && for file in *; do echo \"$file $(cat \"$file\")\"; done";
    let records = cluster.node_exec(node, &["sh", "-c", read])?;
    let running = tasks(cluster, node)?;
    let mut leaked = Vec::new();
    for (address, text) in records.lines().filter_map(|line| line.split_once(' ')) {
        let record: Record =
            serde_json::from_str(text).with_context(|| format!("{node}: {address} {text}"))?;
        if record.freed_boot_millis.is_none() && !running.contains_key(&record.container_id) {
            leaked.push(format!("{address} of {} on {node}", record.pod));
        }
    }
    Ok(leaked)
}

/// Addresses of all nodes that are held for sandboxes that do not run, after as long as it takes kubelets to clean up.
///
/// # Errors
/// A node cannot be asked.
pub fn leaked(cluster: &Cluster) -> Result<Vec<String>> {
    let all = || -> Result<Vec<String>> {
        let lists = cluster.nodes().iter().map(|node| leaked_on(cluster, &node.name));
        Ok(lists.collect::<Result<Vec<_>>>()?.concat())
    };
    let none = wait_until("no address is leaked", Duration::from_secs(45), || {
        let leaked = all()?;
        ensure!(leaked.is_empty(), "{}", leaked.join(", "));
        Ok(())
    });
    if none.is_ok() { Ok(Vec::new()) } else { all() }
}
