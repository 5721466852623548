//! The cluster that figures are measured on: two nodes, Netkeel by helm, blocks large enough for hundreds of ADDs at once.

use std::path::PathBuf;

use anyhow::{Context, Result};
use netkeel_e2e::workload::install;
use netkeel_e2e::{Cluster, Options, Progress};

use super::machine;
use crate::image;

const NAME: &str = "bench";
/// A /26 has 64 addresses, and a freed one rests for half a minute.
const VALUES: &str = r#"clusterNetwork.spec={"podNetwork":{"pools":[{"name":"default","cidrs":["10.244.0.0/16"],"blockSizes":{"ipv4":22}}]}}"#;

pub(super) struct Bed {
    pub(super) cluster: Cluster,
    pub(super) progress: Progress,
}

impl Bed {
    /// One that runs is used as it is. Where a step fails, what is up stays for inspection.
    pub(super) fn up(progress: Progress) -> Result<Self> {
        let archive = image::build()?;
        let cluster = Cluster::up(&Options { name: NAME.into(), nodes: 2 }, &progress)?;
        cluster.load_image(&archive)?;
        progress.say("the image is loaded on both nodes");
        if !install::is_installed(&cluster) {
            install::helm_install(&cluster, &["--set-json", VALUES])?;
            progress.say("the chart is installed");
        }
        install::wait_available(&cluster)
            .context("look at: cargo xtask cluster kubectl --name bench -- -n netkeel-system get pods")?;
        progress.say("the network is available");
        Ok(Self { cluster, progress })
    }

    pub(super) fn down(self) -> Result<()> {
        Cluster::down(NAME)?;
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

    /// The test workload's program, at the same path on every node.
    pub(super) fn peer(&self) -> PathBuf {
        self.cluster.folder().join("netkeel-e2e-peer")
    }
}
