//! `--peer flannel`: a cluster with flannel's VXLAN backend, the bridge plugin and kube-proxy in iptables mode, each with its
//! default settings. They run as processes of the nodes, so they end with the cluster.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::workload::install;
use netkeel_e2e::{Cluster, Node, Options, Progress, flannel, wait_until};
use serde_json::json;

use super::cilium::spawn;

const PODS: &str = "10.244.0.0/16";
const SUBNET_FILE: &str = "/run/flannel/subnet.env";
/// What needs rights that a node in a network namespace does not have is left as it is.
const PROXY: [&str; 5] = [
    "--proxy-mode=iptables",
    "--cluster-cidr=10.244.0.0/16",
    "--conntrack-max-per-core=0",
    "--conntrack-tcp-timeout-established=0s",
    "--conntrack-tcp-timeout-close-wait=0s",
];
const READY: Duration = Duration::from_mins(2);

/// One that runs is used as it is.
pub(super) fn up(options: &Options, progress: &Progress) -> Result<Cluster> {
    let programs = flannel(progress)?;
    let cluster = Cluster::up(options, progress)?;
    let configuration = cluster.folder().join("net-conf.json");
    fs::write(&configuration, json!({"Network": PODS, "Backend": {"Type": "vxlan"}}).to_string())?;
    for (index, node) in cluster.nodes().iter().enumerate() {
        if cluster.node_exec(&node.name, &["busybox", "pidof", "flannel"]).is_err() {
            start(&cluster, node, &programs, &configuration, &format!("10.244.{index}.0/24"))
                .with_context(|| format!("look at {}/n*/log/flannel.log", cluster.folder().display()))?;
        }
    }
    progress.say("flannel and kube-proxy are started");
    wait_until("every node is Ready", READY, || {
        let nodes = install::not_ready(&cluster)?;
        ensure!(nodes.is_empty(), "not ready: {}", nodes.join(", "));
        Ok(())
    })?;
    Ok(cluster)
}

fn start(cluster: &Cluster, node: &Node, programs: &Path, configuration: &Path, subnet: &str) -> Result<()> {
    let (name, logs) = (&node.name, cluster.folder().join(&node.name).join("log"));
    let patch = json!({"spec": {"podCIDR": subnet, "podCIDRs": [subnet]}}).to_string();
    cluster.kubectl(&["patch", "node", name, "-p", &patch])?;
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let mut daemon = cluster.node_command(name)?;
    daemon.args(["env", &format!("NODE_NAME={name}")]).arg(programs.join("flannel"));
    daemon.args(["--kubeconfig-file", &kubeconfig, "--public-ip", &node.address.to_string()]);
    daemon.arg("--net-config-path").arg(configuration).args(["--subnet-file", SUBNET_FILE]);
    spawn(&mut daemon, &logs.join("flannel.log"))?;
    let mut proxy = cluster.node_command(name)?;
    proxy.args(["kube", "kube-proxy", &format!("--kubeconfig={kubeconfig}")]);
    proxy.arg(format!("--hostname-override={name}")).args(PROXY);
    spawn(&mut proxy, &logs.join("kube-proxy.log"))?;
    let said =
        wait_until("flannel has its subnet", READY, || cluster.node_exec(name, &["cat", SUBNET_FILE]))?;
    for plugin in ["bridge", "host-local"] {
        cluster.node_exec(name, &["cp", &programs.join(plugin).display().to_string(), "/opt/cni/bin/"])?;
    }
    let conflist = conflist(&said)?;
    let write = format!("echo '{conflist}' > /etc/cni/net.d/10-flannel.conflist");
    cluster.node_exec(name, &["sh", "-c", &write]).map(drop)
}

/// What flannel's own plugin would hand to the bridge plugin.
fn conflist(subnet_file: &str) -> Result<String> {
    let value = |key: &str| {
        let line = subnet_file.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.with_context(|| format!("{SUBNET_FILE} has no {key}: {subnet_file}"))
    };
    let (subnet, mtu): (_, u32) = (value("FLANNEL_SUBNET")?, value("FLANNEL_MTU")?.parse()?);
    let (gateway, _) = subnet.split_once('/').context("a subnet has a length")?;
    let network = gateway.rsplit_once('.').context("an IPv4 subnet")?.0;
    let ipam = json!({"type": "host-local", "subnet": format!("{network}.0/24"), "routes": [{"dst": PODS}]});
    let bridge = json!({
        "type": "bridge", "bridge": "cni0", "mtu": mtu, "isDefaultGateway": true, "hairpinMode": true, "ipMasq": false,
        "ipam": ipam,
    });
    Ok(json!({"cniVersion": "1.0.0", "name": "cbr0", "plugins": [bridge]}).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_gets_the_subnet_and_the_mtu_of_flannel() {
        let file = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
        let text = conflist(file).unwrap();
        assert!(text.contains(r#""subnet":"10.244.1.0/24""#) && text.contains(r#""mtu":1450"#), "{text}");
        assert!(conflist("FLANNEL_MTU=1450").is_err());
    }
}
