//! `cargo xtask cluster`: the test cluster from the command line.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command as Process;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use netkeel_e2e::{Cluster, DEFAULT_NAME, Options, Progress};

use crate::setup;

#[derive(Args)]
pub(crate) struct Name {
    /// Name of the cluster; several run side by side.
    #[arg(long, global = true, default_value = DEFAULT_NAME)]
    name: String,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Bring a cluster up; one that runs is left alone, members that died are started again.
    Up {
        #[command(flatten)]
        name: Name,
        /// Number of nodes; the first one also runs the control plane.
        #[arg(long, default_value_t = 2)]
        nodes: u8,
        /// Leave the nodes without a network: they register, but stay `NotReady`.
        #[arg(long)]
        without_netkeel: bool,
    },
    /// Take a cluster down, also what is left of one that crashed.
    Down {
        #[command(flatten)]
        name: Name,
        /// Every cluster of this machine.
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// Say which clusters there are and how their nodes do.
    Status,
    /// kubectl as the administrator.
    Kubectl {
        #[command(flatten)]
        name: Name,
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// helm as the administrator.
    Helm {
        #[command(flatten)]
        name: Name,
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run a command as a process of a node.
    Node {
        #[command(flatten)]
        name: Name,
        /// n1, n2, ...
        node: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Load an image archive on every node.
    Load {
        #[command(flatten)]
        name: Name,
        archive: PathBuf,
    },
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Up { name, nodes, without_netkeel } => up(&name.name, *nodes, *without_netkeel),
        Command::Down { all: true, .. } => Cluster::list().iter().try_for_each(|name| down(name)),
        Command::Down { name, .. } => down(&name.name),
        Command::Status => status(),
        Command::Kubectl { name, arguments } => {
            Err(become_process(Cluster::attach(&name.name)?.kubectl_command()?.args(arguments)))
        }
        Command::Helm { name, arguments } => {
            Err(become_process(Cluster::attach(&name.name)?.helm_command()?.args(arguments)))
        }
        Command::Node { name, node, command } => {
            Err(become_process(Cluster::attach(&name.name)?.node_command(node)?.args(command)))
        }
        Command::Load { name, archive } => Cluster::attach(&name.name)?.load_image(archive),
    }
}

fn up(name: &str, nodes: u8, without_netkeel: bool) -> Result<()> {
    setup::run()?;
    let progress = Progress::start();
    let cluster = Cluster::up(&Options { name: name.to_owned(), nodes }, &progress)?;
    if !without_netkeel {
        bail!("Netkeel cannot be installed yet: use --without-netkeel");
    }
    let flag = if name == DEFAULT_NAME { String::new() } else { format!(" --name {name}") };
    println!(
        "cluster {name} is up with {} nodes; its folder is {}",
        cluster.nodes().len(),
        cluster.folder().display()
    );
    println!("  use it:     cargo xtask cluster kubectl{flag} -- get pods -A");
    println!("  take down:  cargo xtask cluster down{flag}");
    Ok(())
}

fn down(name: &str) -> Result<()> {
    Cluster::down(name)?;
    println!("cluster {name} is down");
    Ok(())
}

fn status() -> Result<()> {
    for name in Cluster::list() {
        match Cluster::attach(&name) {
            Err(_) => println!("{name}: not complete (cargo xtask cluster down --name {name})"),
            Ok(cluster) => {
                println!("{name}: {} nodes, {}", cluster.nodes().len(), cluster.folder().display());
                match cluster.kubectl(&["get", "nodes", "-o", "wide"]) {
                    Ok(nodes) => print!("{nodes}"),
                    Err(error) => println!("  {error:#}"),
                }
            }
        }
    }
    Ok(())
}

/// Replaces this process, so that terminals, signals and exit codes are the command's own.
fn become_process(command: &mut Process) -> anyhow::Error {
    command.exec().into()
}
