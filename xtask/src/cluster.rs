//! `cargo xtask cluster`: the test cluster from the command line.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command as Process;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use netkeel_e2e::workload::install::{NAMESPACE, helm_upgrade, values, wait_available};
use netkeel_e2e::{Cluster, DEFAULT_NAME, IpFamily, Options, Progress, jaeger};

use crate::{image, setup};

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
        /// Families of nodes, Services and pods.
        #[arg(long, value_enum, default_value_t = Family::Ipv4)]
        ip_family: Family,
        /// Leave the nodes without a network: they register, but stay `NotReady`.
        #[arg(long)]
        without_netkeel: bool,
        /// Leave out Jaeger and Prometheus, about 200 MB of memory.
        #[arg(long)]
        without_observability: bool,
    },
    /// Take a cluster down, also what is left of one that crashed.
    Down {
        #[command(flatten)]
        name: Name,
        /// Every cluster of this machine, also those that others are using.
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
    /// Print a trace as a tree, with times in milliseconds.
    Trace {
        #[command(flatten)]
        name: Name,
        /// The newest of these.
        #[arg(long, value_enum, default_value_t = Last::Edit)]
        last: Last,
        /// This one, by its id of 32 hex digits.
        #[arg(long, conflicts_with = "last")]
        id: Option<String>,
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
    /// End everything on a node at once, as a power failure does, and start it again: `/run`, bpffs and all namespaces
    /// are new, its disks are kept.
    Reboot {
        #[command(flatten)]
        name: Name,
        /// n1, n2, ...
        node: String,
    },
    /// Build the image anew, load it on every node and restart one component.
    Reload {
        #[command(flatten)]
        name: Name,
        component: Component,
    },
    /// Load an image archive on every node.
    Load {
        #[command(flatten)]
        name: Name,
        archive: PathBuf,
    },
}

/// Families of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    /// IPv4 alone.
    Ipv4,
    /// IPv6 alone.
    Ipv6,
    /// Both, IPv4 first.
    Dual,
}

/// Which trace is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Last {
    /// A change of the `ClusterNetwork`.
    Edit,
    /// The first change, by which the network came to be.
    Install,
    /// A pod's start.
    Pod,
    /// A pod's end.
    PodEnd,
    /// A question to DNS that was sampled.
    Dns,
}

impl Last {
    /// Program and operation of the trace's first span.
    fn root(self) -> (&'static str, &'static str) {
        match self {
            Self::Install => ("netkeel-operator", "install"),
            Self::Edit => ("netkeel-operator", "edit"),
            Self::Pod => ("netkeel-agent", "CNI ADD"),
            Self::PodEnd => ("netkeel-agent", "CNI DEL"),
            Self::Dns => ("netkeel-dns", "dns query"),
        }
    }
}

/// A component of Netkeel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Component {
    Agent,
    Dns,
    Operator,
}

impl Component {
    /// Namespace and name of the object that owns its pods.
    fn owner(self) -> (&'static str, &'static str) {
        match self {
            Self::Agent => (NAMESPACE, "netkeel-agent"),
            Self::Dns => ("kube-system", "netkeel-dns"),
            Self::Operator => (NAMESPACE, "netkeel-operator"),
        }
    }
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Up { name, nodes, ip_family, without_netkeel, without_observability } => {
            let ip_family = match ip_family {
                Family::Ipv4 => IpFamily::Ipv4,
                Family::Ipv6 => IpFamily::Ipv6,
                Family::Dual => IpFamily::Dual,
            };
            let options = Options { name: name.name.clone(), nodes: *nodes, ip_family };
            up(&options, !without_netkeel, !without_observability)
        }
        Command::Trace { name, last, id } => trace(&Cluster::attach(&name.name)?, *last, id.as_deref()),
        Command::Down { all: true, .. } => Cluster::list().iter().try_for_each(|name| down(name)),
        Command::Down { name, .. } => down(&name.name),
        Command::Status => {
            status();
            Ok(())
        }
        Command::Kubectl { name, arguments } => {
            Err(become_process(Cluster::attach(&name.name)?.kubectl_command()?.args(arguments)))
        }
        Command::Helm { name, arguments } => {
            Err(become_process(Cluster::attach(&name.name)?.helm_command()?.args(arguments)))
        }
        Command::Node { name, node, command } => {
            Err(become_process(Cluster::attach(&name.name)?.node_command(node)?.args(command)))
        }
        Command::Reboot { name, node } => reboot(&Cluster::attach(&name.name)?, node),
        Command::Reload { name, component } => reload(&Cluster::attach(&name.name)?, *component),
        Command::Load { name, archive } => Cluster::attach(&name.name)?.load_image(archive),
    }
}

fn up(options: &Options, netkeel: bool, observability: bool) -> Result<()> {
    setup::run()?;
    let progress = Progress::start();
    let cluster = Cluster::up(options, &progress)?;
    if observability {
        cluster.observe(&progress)?;
    }
    if netkeel {
        install(&cluster, &progress)?;
    }
    let name = &options.name;
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

/// Loads the image and installs the chart, as a user does; waits until every node is Ready.
pub(crate) fn install(cluster: &Cluster, progress: &Progress) -> Result<()> {
    let archive = image::build()?;
    cluster.load_image(&archive)?;
    progress.say("the image is loaded on every node");
    helm_upgrade(cluster, values(cluster.ip_family()))?;
    progress.say("the chart is installed");
    wait_available(cluster).context("look at: cargo xtask cluster kubectl -- -n netkeel-system get pods")?;
    progress.say("the network is available, every node is Ready");
    Ok(())
}

fn reboot(cluster: &Cluster, node: &str) -> Result<()> {
    let progress = Progress::start();
    cluster.restart_node(node)?;
    progress.say(format!("{node} runs again; its kubelet starts the pods now"));
    Ok(())
}

fn reload(cluster: &Cluster, component: Component) -> Result<()> {
    let progress = Progress::start();
    let archive = image::build()?;
    cluster.load_image(&archive)?;
    progress.say("the image is loaded on every node");
    let (namespace, name) = component.owner();
    // DNS servers are of either kind.
    let named = format!("metadata.name={name}");
    let owners = ["-n", namespace, "get", "deployments,daemonsets", "--field-selector", &named];
    let object = &cluster.kubectl_json(&owners)?["items"][0];
    let kind = object["kind"].as_str().with_context(|| format!("{namespace} has no {name}"))?;
    let owner = format!("{}/{name}", kind.to_lowercase());
    let labels = object["spec"]["selector"]["matchLabels"]
        .as_object()
        .context("the owner selects its pods by labels")?;
    let pairs: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    cluster.kubectl(&["-n", namespace, "delete", "pods", "-l", &pairs.join(",")])?;
    cluster.kubectl(&["-n", namespace, "rollout", "status", &owner, "--timeout=2m"])?;
    progress.say(format!("{owner} runs the new program"));
    Ok(())
}

fn trace(cluster: &Cluster, last: Last, id: Option<&str>) -> Result<()> {
    let trace = if let Some(id) = id {
        cluster.jaeger_trace(id)?
    } else {
        let (program, operation) = last.root();
        let mut traces = cluster.jaeger_traces(program, Some(operation), &[])?.into_iter();
        let found = if last == Last::Install { traces.next_back() } else { traces.next() };
        found.with_context(|| format!("Jaeger has no trace of {operation} yet"))?
    };
    print!("{}", jaeger::tree(&trace));
    Ok(())
}

fn down(name: &str) -> Result<()> {
    Cluster::down(name)?;
    println!("cluster {name} is down");
    Ok(())
}

fn status() {
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
}

/// Replaces this process, so that terminals, signals and exit codes are the command's own.
fn become_process(command: &mut Process) -> anyhow::Error {
    command.exec().into()
}
