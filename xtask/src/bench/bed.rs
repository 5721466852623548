//! The cluster that figures are measured on: two nodes, Netkeel by helm, blocks large enough for hundreds of ADDs at once.

use std::path::PathBuf;

use anyhow::{Context, Result};
use netkeel_e2e::workload::{Workload, install, of_family};
use netkeel_e2e::{Cluster, IpFamily, Options, Progress};

use super::{cilium, flannel, machine};
use crate::image;

/// Large blocks: hundreds of pods are made at once, and a freed address rests for half a minute.
const IPV4: &str = r#""10.240.0.0/12""#;
const DUAL: &str = r#""10.240.0.0/12","fd00:10:240::/100""#;

fn values(ip_family: IpFamily) -> String {
    let cidrs = if ip_family == IpFamily::Ipv4 { IPV4 } else { DUAL };
    format!(
        r#"clusterNetwork.spec={{"podNetwork":{{"pools":[{{"name":"default","cidrs":[{cidrs}],"blockSizes":{{"ipv4":21,"ipv6":117}}}}]}}}}"#
    )
}

/// Who makes the cluster's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    Netkeel,
    /// The same on a cluster that a figure makes useless for others.
    NetkeelLarge,
    /// Only for comparison.
    Cilium,
    /// Only for comparison, with kube-proxy.
    Flannel,
}

impl Network {
    /// The name of its cluster.
    fn cluster(self, ip_family: IpFamily) -> &'static str {
        match self {
            Self::Netkeel if ip_family == IpFamily::Ipv4 => "bench",
            Self::Netkeel => "bench-dual",
            Self::NetkeelLarge => "bench-large",
            Self::Cilium => "bench-cilium",
            Self::Flannel if ip_family == IpFamily::Ipv4 => "bench-flannel",
            Self::Flannel => "bench-flannel-dual",
        }
    }

    /// How names of figures end that are there only for comparison.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Netkeel | Self::NetkeelLarge => "",
            Self::Cilium => "-cilium",
            Self::Flannel => "-flannel",
        }
    }
}

pub(super) struct Bed {
    pub(super) network: Network,
    pub(super) cluster: Cluster,
    pub(super) progress: Progress,
}

impl Bed {
    /// One that runs is used as it is. Where a step fails, what is up stays for inspection. With `Dual` everything is measured
    /// by addresses of IPv6.
    pub(super) fn up(network: Network, ip_family: IpFamily) -> Result<Self> {
        let progress = Progress::start();
        let options = Options { name: network.cluster(ip_family).into(), ip_family, ..Options::default() };
        let cluster = match network {
            Network::Netkeel | Network::NetkeelLarge => netkeel(&options, &progress),
            Network::Cilium => cilium::up(&options, &progress),
            Network::Flannel => flannel::up(&options, &progress),
        }?;
        let bed = Self { network, cluster, progress };
        bed.progress.say("the network is available");
        Ok(bed)
    }

    /// Takes the cluster down, or says how to do so later.
    pub(super) fn end(self, keep: bool) -> Result<()> {
        let name = self.cluster.name().to_owned();
        if keep {
            self.progress.say(format!("the cluster stays up: cargo xtask cluster down --name {name}"));
            return Ok(());
        }
        Cluster::down(&name)?;
        self.progress.say("the cluster is down");
        Ok(())
    }

    /// Waits until the machine has little else to do.
    pub(super) fn settle(&self) -> Result<()> {
        machine::settle(&self.progress)
    }

    /// The first node, which also runs the control plane, and the second.
    pub(super) fn nodes(&self) -> Result<[&str; 2]> {
        let mut names = self.cluster.nodes().iter().map(|node| node.name.as_str());
        let pair = names.next().zip(names.next()).context("the cluster has two nodes")?;
        Ok(pair.into())
    }

    /// The address of a node that is measured.
    pub(super) fn address(&self, node: &str) -> Result<String> {
        let path = "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}";
        let addresses = self.cluster.kubectl(&["get", "node", node, "-o", path])?;
        of_family(&addresses, self.is_ipv6())
            .with_context(|| format!("no address of that family: {addresses}"))
    }

    /// The address of a pod that is measured.
    pub(super) fn pod_address(&self, workload: &Workload<'_>, pod: &str) -> Result<String> {
        workload.address(pod, self.is_ipv6())
    }

    /// The address of the loopback device that is measured.
    pub(super) fn loopback(&self) -> &'static str {
        if self.is_ipv6() { "::1" } else { "127.0.0.1" }
    }

    pub(super) fn is_ipv6(&self) -> bool {
        self.cluster.ip_family() == IpFamily::Dual
    }

    /// The test workload's program, at the same path on every node.
    pub(super) fn peer(&self) -> PathBuf {
        self.cluster.folder().join("netkeel-e2e-peer")
    }
}

/// The chart, with the values of this file.
fn netkeel(options: &Options, progress: &Progress) -> Result<Cluster> {
    let archive = image::build()?;
    let cluster = Cluster::up(options, progress)?;
    cluster.load_image(&archive)?;
    progress.say("the image is loaded on both nodes");
    if !install::is_installed(&cluster) {
        install::helm_install(&cluster, &["--set-json", &values(options.ip_family)])?;
        progress.say("the chart is installed");
    }
    install::wait_available(&cluster).with_context(|| {
        format!("look at: cargo xtask cluster kubectl --name {} -- -n netkeel-system get pods", options.name)
    })?;
    Ok(cluster)
}
