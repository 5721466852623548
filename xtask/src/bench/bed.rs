//! The cluster that figures are measured on: two nodes, Netkeel by helm, blocks large enough for hundreds of ADDs at once.

use std::path::PathBuf;

use anyhow::{Context, Result};
use netkeel_e2e::workload::install;
use netkeel_e2e::{Cluster, Options, Progress};

use super::{cilium, flannel, machine};
use crate::image;

/// A /26 has 64 addresses, and a freed one rests for half a minute.
const VALUES: &str = r#"clusterNetwork.spec={"podNetwork":{"pools":[{"name":"default","cidrs":["10.244.0.0/16"],"blockSizes":{"ipv4":22}}]}}"#;

/// Who makes the cluster's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    Netkeel,
    /// Only for comparison.
    Cilium,
    /// Only for comparison, with kube-proxy.
    Flannel,
}

impl Network {
    /// The name of its cluster.
    fn cluster(self) -> &'static str {
        match self {
            Self::Netkeel => "bench",
            Self::Cilium => "bench-cilium",
            Self::Flannel => "bench-flannel",
        }
    }
}

pub(super) struct Bed {
    pub(super) network: Network,
    pub(super) cluster: Cluster,
    pub(super) progress: Progress,
}

impl Bed {
    /// One that runs is used as it is. Where a step fails, what is up stays for inspection.
    pub(super) fn up(network: Network) -> Result<Self> {
        let progress = Progress::start();
        let options = Options { name: network.cluster().into(), ..Options::default() };
        let cluster = match network {
            Network::Netkeel => netkeel(&options, &progress),
            Network::Cilium => cilium::up(&options, &progress),
            Network::Flannel => flannel::up(&options, &progress),
        }?;
        let bed = Self { network, cluster, progress };
        bed.progress.say("the network is available");
        Ok(bed)
    }

    /// Takes the cluster down, or says how to do so later.
    pub(super) fn end(self, keep: bool) -> Result<()> {
        let name = self.network.cluster();
        if keep {
            self.progress.say(format!("the cluster stays up: cargo xtask cluster down --name {name}"));
            return Ok(());
        }
        Cluster::down(name)?;
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

    /// The address of a node.
    pub(super) fn address(&self, node: &str) -> Result<String> {
        let known = self.cluster.nodes().iter().find(|known| known.name == node);
        Ok(known.with_context(|| format!("there is no node {node}"))?.address.to_string())
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
        install::helm_install(&cluster, &["--set-json", VALUES])?;
        progress.say("the chart is installed");
    }
    install::wait_available(&cluster)
        .context("look at: cargo xtask cluster kubectl --name bench -- -n netkeel-system get pods")?;
    Ok(cluster)
}
