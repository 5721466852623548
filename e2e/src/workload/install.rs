//! Netkeel on a test cluster: image, chart, and what "installed" means.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{Cluster, IpFamily, Options, Progress, images, wait_until};

/// Name of the cluster that test programs share.
const SHARED: &str = "e2e";

/// The default pool with IPv6 alone.
const IPV6_POOL: &str =
    r#"clusterNetwork.spec.podNetwork.pools=[{"name":"default","cidrs":["fd00:10:244::/56"]}]"#;
/// The default pool, with IPv6 beside it.
const DUAL_POOL: &str = r#"clusterNetwork.spec.podNetwork.pools=[{"name":"default","cidrs":["10.244.0.0/16","fd00:10:244::/56"]}]"#;

/// The namespace that the install command of the README makes.
pub const NAMESPACE: &str = "netkeel-system";
/// Label of the operator's pods.
pub const OPERATOR: &str = "app.kubernetes.io/component=operator";
/// Label of the agents' pods.
pub const AGENT: &str = "app.kubernetes.io/component=agent";

/// `helm install` without values, as the README says, with `more` arguments of a test.
pub fn helm_install(cluster: &Cluster, more: &[&str]) -> Result<String> {
    helm(cluster, &["install"], more)
}

/// The values of the chart that a cluster of these families needs: a pool of those that it has.
#[must_use]
pub fn values(ip_family: IpFamily) -> &'static [&'static str] {
    match ip_family {
        IpFamily::Ipv4 => &[],
        IpFamily::Ipv6 => &["--set-json", IPV6_POOL],
        IpFamily::Dual => &["--set-json", DUAL_POOL],
    }
}

/// `helm upgrade --install`.
pub fn helm_upgrade(cluster: &Cluster, more: &[&str]) -> Result<String> {
    helm(cluster, &["upgrade", "--install"], more)
}

pub fn helm_uninstall(cluster: &Cluster) -> Result<String> {
    cluster.helm(&["uninstall", "netkeel", "-n", NAMESPACE])
}

fn helm(cluster: &Cluster, verb: &[&str], more: &[&str]) -> Result<String> {
    let chart = repository().join("helm/netkeel").display().to_string();
    let what = ["netkeel", &chart, "-n", NAMESPACE, "--create-namespace"];
    cluster.helm(&[verb, &what, more].concat())
}

/// After an absence of the API server the node controller may take nodes for lost, until its own watches have come back (30 s
/// and more), for one grace period (50 s) and the kubelet's next word (10 s).
const AVAILABLE: Duration = Duration::from_mins(3);

/// Waits until the ClusterNetwork says Available and every node is Ready.
pub fn wait_available(cluster: &Cluster) -> Result<()> {
    wait_until("the network is available", AVAILABLE, || {
        let path = "jsonpath={range .status.conditions[?(@.type=='Available')]}{.status} {.message}{end}";
        let available = cluster.kubectl(&["get", "clusternetwork", "default", "-o", path])?;
        ensure!(available.starts_with("True"), "ClusterNetwork default is not available: {available}");
        not_ready(cluster).and_then(|nodes| match nodes.as_slice() {
            [] => Ok(()),
            _ => bail!("not ready: {}", nodes.join(", ")),
        })
    })
}

/// Every agent has applied another way between nodes within this.
const CHANGED: Duration = Duration::from_mins(1);

/// Changes the way between nodes and waits until every agent has applied it; returns how long that took.
pub fn set_encapsulation(cluster: &Cluster, encapsulation: &str) -> Result<Duration> {
    let start = Instant::now();
    let patch = json!({"spec": {"podNetwork": {"encapsulation": encapsulation}}}).to_string();
    cluster.kubectl(&["patch", "clusternetwork", "default", "--type=merge", "-p", &patch])?;
    wait_until(&format!("every node has {encapsulation}"), CHANGED, || {
        encapsulated(&cluster.kubectl_json(&["get", "nodenetworks"])?, encapsulation)
    })?;
    Ok(start.elapsed())
}

/// Whether all these `NodeNetworks` have that way between nodes in force.
fn encapsulated(networks: &Value, encapsulation: &str) -> Result<()> {
    for network in networks["items"].as_array().context("a list")? {
        let (name, told) = (&network["metadata"]["name"], &network["spec"]["config"]["encapsulation"]);
        ensure!(told == encapsulation, "{name} is told {told}");
        let (wanted, applied) = (&network["spec"]["revision"], &network["status"]["appliedRevision"]);
        ensure!(wanted == applied, "{name}: {wanted} is wanted, {applied} applied");
    }
    Ok(())
}

/// Names of the nodes that are not Ready.
pub fn not_ready(cluster: &Cluster) -> Result<Vec<String>> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=='Ready')].status}{'\\n'}{end}";
    let text = cluster.kubectl(&["get", "nodes", "-o", path])?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, ready)| *ready != "True")
        .map(|(name, _)| name.into())
        .collect())
}

/// The image archive that `cargo xtask image` writes.
pub fn image() -> Result<PathBuf> {
    let path = repository().join("target/image/netkeel.tar");
    ensure!(path.exists(), "{} does not exist: run `cargo xtask image` first", path.display());
    Ok(path)
}

/// The program `netkeel` that `cargo xtask image` builds for the image.
pub fn netkeel() -> Result<PathBuf> {
    let path = images::static_folder().join("netkeel");
    ensure!(path.exists(), "{} does not exist: run `cargo xtask image` first", path.display());
    Ok(path)
}

/// Runs `netkeel` as somebody outside the cluster does: its exit code and what it printed.
pub fn run_netkeel(cluster: &Cluster, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = cluster.fabric_command(&netkeel()?)?.args(arguments).output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()))
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Whether the release of the README's install command is there.
#[must_use]
pub fn is_installed(cluster: &Cluster) -> bool {
    cluster.helm(&["status", "netkeel", "-n", NAMESPACE]).is_ok()
}

/// A cluster of that name with the image on its nodes, and without Netkeel.
pub fn bare(name: &str) -> Result<Cluster> {
    bare_of(name, IpFamily::Ipv4)
}

fn bare_of(name: &str, ip_family: IpFamily) -> Result<Cluster> {
    let archive = image()?;
    let options = Options { name: name.into(), ip_family, ..Options::default() };
    let cluster = Cluster::up(&options, &Progress::start())?;
    cluster.load_image(&archive)?;
    Ok(cluster)
}

/// The cluster that most test programs share, with Netkeel installed without values; made by the first who asks.
/// It stays up for the next test program and for inspection.
#[expect(clippy::missing_panics_doc, reason = "without its cluster a test can only fail")]
pub fn shared() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| installed(SHARED, IpFamily::Ipv4).expect("a cluster with Netkeel"))
}

/// A cluster of that name with Netkeel, installed now where it is not. `NETKEEL_E2E_CLUSTER` names one to be used instead: as
/// it is, where it is up.
pub fn installed(name: &str, ip_family: IpFamily) -> Result<Cluster> {
    installed_with(name, ip_family, values(ip_family))
}

/// The same with these arguments for helm.
pub fn installed_with(name: &str, ip_family: IpFamily, values: &[&str]) -> Result<Cluster> {
    let instead = std::env::var("NETKEEL_E2E_CLUSTER").ok();
    // One that is there and damaged is not made anew: it may be what somebody wants to look at.
    if let Some(name) = instead.as_ref().filter(|name| Cluster::list().contains(name)) {
        return Cluster::attach(name);
    }
    let cluster = bare_of(instead.as_deref().unwrap_or(name), ip_family)?;
    if !is_installed(&cluster) {
        helm_install(&cluster, values)?;
    }
    wait_available(&cluster)?;
    Ok(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_between_nodes_is_in_force_when_every_agent_has_applied_it() {
        let network = |encapsulation: &str, applied: &str| {
            json!({"metadata": {"name": "a"}, "spec": {"revision": "2", "config": {"encapsulation": encapsulation}},
                   "status": {"appliedRevision": applied}})
        };
        let list = |networks: &[Value]| json!({"items": networks});
        encapsulated(&list(&[network("None", "2"), network("None", "2")]), "None").unwrap();
        for (late, said) in [(network("VXLAN", "2"), "is told"), (network("None", "1"), "is wanted")] {
            let error = encapsulated(&list(&[network("None", "2"), late]), "None").unwrap_err();
            assert!(error.to_string().contains(said), "{error:#}");
        }
    }
}
