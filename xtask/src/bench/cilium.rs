//! `--peer cilium`: a cluster whose network Cilium makes, as few of its features on as its default datapath needs. Its
//! programs run as processes of the nodes, so they end with the cluster.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::cilium::Cilium;
use netkeel_e2e::workload::install;
use netkeel_e2e::{Cluster, Options, Progress, wait_until};

use crate::setup;

/// The agent compiles its programs on the node.
const COMPILER: &str = "/usr/lib/llvm-14/bin";
const PACKAGES: [(&str, &str); 2] =
    [("/usr/lib/llvm-14/bin/clang", "clang-14"), ("/usr/lib/llvm-14/bin/llvm-objcopy", "llvm-14")];
/// Of the operator and the agents alike.
const COMMON: [&str; 5] = [
    "--enable-ipv4=true",
    "--enable-ipv6=false",
    "--ipam=cluster-pool",
    "--identity-allocation-mode=crd",
    "--k8s-namespace=kube-system",
];
const OPERATOR: [&str; 3] = [
    "--cluster-pool-ipv4-cidr=10.244.0.0/16",
    "--cluster-pool-ipv4-mask-size=24",
    "--operator-api-serve-addr=127.0.0.1:9234",
];
const AGENT: [&str; 13] = [
    "--kube-proxy-replacement=true",
    "--routing-mode=tunnel",
    "--tunnel-protocol=vxlan",
    "--enable-bpf-masquerade=true",
    "--devices=eth0",
    "--enable-l7-proxy=false",
    "--enable-hubble=false",
    "--enable-health-checking=false",
    "--enable-endpoint-health-checking=false",
    "--bpf-root=/sys/fs/bpf",
    "--state-dir=/var/run/cilium",
    "--write-cni-conf-when-ready=/etc/cni/net.d/05-cilium.conflist",
    // A node of the test cluster sees the machine's memory and would take a share of it for maps.
    "--bpf-map-dynamic-size-ratio=0.0025",
];
/// The agent compiles one program after the other before the node is Ready.
const READY: Duration = Duration::from_mins(5);

/// One that runs is used as it is.
pub(super) fn up(options: &Options, progress: &Progress) -> Result<Cluster> {
    setup::require(&PACKAGES)?;
    let cilium = Cilium::ensure(progress)?;
    let cluster = Cluster::up(options, progress)?;
    if !runs(&cluster) {
        start(&cluster, &cilium)?;
        progress.say("Cilium is started");
    }
    wait_until("every node is Ready", READY, || {
        let nodes = install::not_ready(&cluster)?;
        ensure!(nodes.is_empty(), "not ready: {}", nodes.join(", "));
        Ok(())
    })
    .with_context(|| format!("look at {}/n*/log/cilium-*.log", cluster.folder().display()))?;
    Ok(cluster)
}

/// Whether an agent runs on the first node.
fn runs(cluster: &Cluster) -> bool {
    let first = cluster.nodes().first();
    first.is_some_and(|node| cluster.node_exec(&node.name, &["busybox", "pidof", "daemon"]).is_ok())
}

fn start(cluster: &Cluster, cilium: &Cilium) -> Result<()> {
    let kubeconfig = format!("--k8s-kubeconfig-path={}", cluster.kubeconfig().display());
    for (index, node) in cluster.nodes().iter().enumerate() {
        let logs = cluster.folder().join(&node.name).join("log");
        let plugin = cilium.plugin();
        cluster.node_exec(&node.name, &["cp", &plugin.display().to_string(), "/opt/cni/bin/"])?;
        if index == 0 {
            let mut operator = cluster.node_command(&node.name)?;
            operator.arg(cilium.operator()).arg(&kubeconfig).args(COMMON).args(OPERATOR);
            spawn(&mut operator, &logs.join("cilium-operator.log"))?;
        }
        let mounts = cluster.node_exec(&node.name, &["cat", "/proc/mounts"])?;
        let cgroup = cgroup2(&mounts).with_context(|| format!("cgroup2 is not mounted on {}", node.name))?;
        let mut agent = cluster.node_command(&node.name)?;
        agent.args(["sh", "-c", &format!("PATH={COMPILER}:$PATH exec \"$@\""), "sh", "env"]);
        agent.arg(format!("K8S_NODE_NAME={}", node.name)).arg(cilium.agent()).arg(&kubeconfig);
        agent.arg(format!("--lib-dir={}", cilium.sources().display()));
        agent.arg(format!("--cgroup-root={cgroup}")).args(COMMON).args(AGENT);
        spawn(&mut agent, &logs.join("cilium-agent.log"))?;
    }
    Ok(())
}

/// It runs until the cluster is taken down.
pub(super) fn spawn(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| log.display().to_string())?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    command.spawn().with_context(|| log.display().to_string()).map(drop)
}

/// Where it is mounted, in lines of `/proc/mounts`.
fn cgroup2(mounts: &str) -> Option<&str> {
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.find_map(|fields| match fields.as_slice() {
        [_, path, "cgroup2", ..] => Some(*path),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_beside_version_1() {
        let mounts =
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2(mounts), Some("/sys/fs/cgroup/unified"));
        assert_eq!(cgroup2("proc /proc proc rw 0 0\n"), None);
    }
}
