//! `--peer flannel`: a cluster with flannel's VXLAN backend, the bridge plugin and kube-proxy in iptables mode, each with its
//! default settings. They run as processes of the nodes, so they end with the cluster.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::workload::install;
use netkeel_e2e::{Cluster, IpFamily, Options, Progress, flannel, wait_until};
use serde_json::json;

use super::cilium::spawn;

const PODS: &str = "10.244.0.0/16";
const PODS_IPV6: &str = "fd00:10:244::/56";
const SUBNET_FILE: &str = "/run/flannel/subnet.env";
/// What needs rights that a node in a network namespace does not have is left as it is.
const PROXY: [&str; 4] = [
    "--proxy-mode=iptables",
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
    let mut network = json!({"Network": PODS, "Backend": {"Type": "vxlan"}});
    if is_dual(&cluster) {
        network["EnableIPv6"] = json!(true);
        network["IPv6Network"] = json!(PODS_IPV6);
    }
    fs::write(&configuration, network.to_string())?;
    for (index, node) in cluster.nodes().iter().enumerate() {
        if cluster.node_exec(&node.name, &["busybox", "pidof", "flannel"]).is_err() {
            let subnets = [format!("10.244.{index}.0/24"), format!("fd00:10:244:{index}::/64")];
            start(&cluster, &node.name, &programs, &configuration, &subnets)
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

fn is_dual(cluster: &Cluster) -> bool {
    cluster.ip_family() == IpFamily::Dual
}

/// The node gets these subnets, of either family, where its cluster has it.
fn start(
    cluster: &Cluster,
    name: &str,
    programs: &Path,
    configuration: &Path,
    subnets: &[String; 2],
) -> Result<()> {
    let logs = cluster.folder().join(name).join("log");
    let subnets = if is_dual(cluster) { subnets.as_slice() } else { &subnets[..1] };
    let patch = json!({"spec": {"podCIDR": subnets[0], "podCIDRs": subnets}}).to_string();
    cluster.kubectl(&["patch", "node", name, "-p", &patch])?;
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let mut daemon = cluster.node_command(name)?;
    daemon.args(["env", &format!("NODE_NAME={name}")]).arg(programs.join("flannel"));
    daemon.args(["--kubeconfig-file", &kubeconfig, "--subnet-file", SUBNET_FILE]);
    daemon.arg("--net-config-path").arg(configuration);
    for (flag, address) in ["--public-ip", "--public-ipv6"].iter().zip(addresses(cluster, name)?) {
        daemon.args([*flag, &address]);
    }
    spawn(&mut daemon, &logs.join("flannel.log"))?;
    let mut proxy = cluster.node_command(name)?;
    proxy.args(["kube", "kube-proxy", &format!("--kubeconfig={kubeconfig}")]);
    let pods = if is_dual(cluster) { format!("{PODS},{PODS_IPV6}") } else { PODS.to_owned() };
    proxy.args([format!("--hostname-override={name}"), format!("--cluster-cidr={pods}")]).args(PROXY);
    spawn(&mut proxy, &logs.join("kube-proxy.log"))?;
    let said =
        wait_until("flannel has its subnet", READY, || cluster.node_exec(name, &["cat", SUBNET_FILE]))?;
    for plugin in ["bridge", "host-local"] {
        cluster.node_exec(name, &["cp", &programs.join(plugin).display().to_string(), "/opt/cni/bin/"])?;
    }
    let conflist = conflist(&said, subnets)?;
    let write = format!("echo '{conflist}' > /etc/cni/net.d/10-flannel.conflist");
    cluster.node_exec(name, &["sh", "-c", &write]).map(drop)
}

/// Of a node, IPv4 first.
fn addresses(cluster: &Cluster, node: &str) -> Result<Vec<String>> {
    let path = "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}";
    let text = cluster.kubectl(&["get", "node", node, "-o", path])?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// What flannel's own plugin would hand to the bridge plugin.
fn conflist(subnet_file: &str, subnets: &[String]) -> Result<String> {
    let line = subnet_file.lines().find_map(|line| line.strip_prefix("FLANNEL_MTU="));
    let mtu: u32 = line.with_context(|| format!("{SUBNET_FILE} has no MTU: {subnet_file}"))?.parse()?;
    let ranges: Vec<_> = subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    let routes: Vec<_> =
        [PODS, PODS_IPV6].iter().take(subnets.len()).map(|pods| json!({"dst": pods})).collect();
    let bridge = json!({
        "type": "bridge", "bridge": "cni0", "mtu": mtu, "isDefaultGateway": true, "hairpinMode": true, "ipMasq": false,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
    });
    Ok(json!({"cniVersion": "1.0.0", "name": "cbr0", "plugins": [bridge]}).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_gets_the_subnet_and_the_mtu_of_flannel() {
        let file = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
        let subnets = ["10.244.1.0/24".to_owned(), "fd00:10:244:1::/64".to_owned()];
        let text = conflist(file, &subnets).unwrap();
        let (four, six) = (r#"[{"subnet":"10.244.1.0/24"}]"#, r#"[{"subnet":"fd00:10:244:1::/64"}]"#);
        assert!(text.contains(r#""mtu":1450"#) && text.contains(&format!("[{four},{six}]")), "{text}");
        assert!(!conflist(file, &subnets[..1]).unwrap().contains("fd00"), "of one family");
        assert!(conflist("FLANNEL_SUBNET=10.244.1.1/24", &subnets).is_err());
    }
}
