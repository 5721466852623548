//! The cluster as tests and `cargo xtask cluster` use it.
//! Its folder is `/var/tmp/netkeel/<name>`; its processes are exactly those in the cgroup `netkeel/<name>`.

mod kubectl;
mod options;
pub(crate) mod start;

use std::fs::{self, File, TryLockError};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::config::addresses::OUTSIDE_SERVER;
use crate::node::Spec;
use crate::process::ProcessId;
use crate::{Progress, process, wait_until};

pub use options::{IpFamily, Options};

const FOLDERS: &str = "/var/tmp/netkeel";
/// The cluster that is meant when no name is given.
pub const DEFAULT_NAME: &str = "dev";
const NODE_PROGRAM: &str = "netkeel-e2e-node";

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    /// Its first one.
    pub address: IpAddr,
}

/// What `cluster.json` holds, written when the cluster is complete.
#[derive(Serialize, Deserialize)]
struct State {
    nodes: Vec<Node>,
    kubectl: PathBuf,
    helm: PathBuf,
    #[serde(default)]
    ip_family: IpFamily,
}

/// A running cluster. Dropping it leaves it running.
pub struct Cluster {
    name: String,
    folder: PathBuf,
    state: State,
    kubectl: kubectl::Kubectl,
}

impl Cluster {
    /// Brings the cluster up. One that runs is left alone but for members that died, which are started again; the rest of
    /// one that crashed is taken down first.
    ///
    /// # Errors
    /// A part cannot be built or does not become ready; what was started stays for inspection.
    pub fn up(options: &Options, progress: &Progress) -> Result<Self> {
        check_name(&options.name)?;
        let _lock = lock(&options.name)?;
        start::up(options, progress)
    }

    /// A cluster that was brought up before.
    ///
    /// # Errors
    /// There is no complete cluster of this name.
    pub fn attach(name: &str) -> Result<Self> {
        let folder = folder(name);
        let text = fs::read_to_string(folder.join("cluster.json"))
            .with_context(|| format!("no cluster {name} is up: cargo xtask cluster up --name {name}"))?;
        let state = serde_json::from_str(&text)?;
        Ok(Self { name: name.into(), state, folder, kubectl: kubectl::Kubectl::default() })
    }

    /// Ends everything that belongs to the cluster and removes its folder. Also for what is left of one that crashed.
    ///
    /// # Errors
    /// A process does not end or a folder cannot be removed; all else is removed nevertheless.
    pub fn down(name: &str) -> Result<()> {
        check_name(name)?;
        let _lock = lock(name)?;
        start::remove(name)
    }

    /// Names of all clusters that have a folder, complete or not.
    #[must_use]
    pub fn list() -> Vec<String> {
        let entries = fs::read_dir(FOLDERS).into_iter().flatten().filter_map(Result::ok);
        let folders = entries.filter(|entry| entry.path().is_dir());
        let mut names: Vec<_> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder with logs (`<member>/log/`), certificates and node data.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.state.nodes
    }

    /// Which families its nodes and Services have.
    #[must_use]
    pub fn ip_family(&self) -> IpFamily {
        self.state.ip_family
    }

    /// Addresses that only the host outside the cluster has, of the families that nodes have. It has a route to no pod.
    #[must_use]
    pub fn outside_addresses(&self) -> Vec<IpAddr> {
        OUTSIDE_SERVER.of(self.ip_family())
    }

    /// Those of both families: the resolver outside tells them to whoever asks for that host.
    #[must_use]
    pub fn outside_records(&self) -> Vec<IpAddr> {
        OUTSIDE_SERVER.of(IpFamily::Dual)
    }

    /// The kubeconfig of the administrator. Its address is reachable from the fabric only.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("pki/admin.kubeconfig")
    }

    /// helm in the fabric's network namespace, arguments to be added.
    ///
    /// # Errors
    /// The fabric does not run.
    pub fn helm_command(&self) -> Result<Command> {
        let mut command = self.fabric_command(&self.state.helm)?;
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(variable, self.folder.join("helm").join(folder));
        }
        Ok(command)
    }

    /// Runs helm and returns what it printed.
    ///
    /// # Errors
    /// helm fails; the error has its stderr.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        process::text(self.helm_command()?.args(arguments))
    }

    /// A command that runs as a process of the node, program and arguments to be added.
    ///
    /// # Errors
    /// There is no such node.
    pub fn node_command(&self, node: &str) -> Result<Command> {
        if !self.state.nodes.iter().any(|known| known.name == node) {
            let names: Vec<_> = self.state.nodes.iter().map(|node| node.name.as_str()).collect();
            bail!("cluster {} has no node {node}: there are {}", self.name, names.join(", "));
        }
        let mut command = Command::new(self.folder.join(NODE_PROGRAM));
        command.arg("exec").arg(self.folder.join(node));
        Ok(command)
    }

    /// Runs a command as a process of the node and returns what it printed.
    ///
    /// # Errors
    /// The command fails; the error has its stderr.
    pub fn node_exec(&self, node: &str, command: &[&str]) -> Result<String> {
        process::text(self.node_command(node)?.args(command))
    }

    /// A command in the network namespace of the host outside the cluster.
    ///
    /// # Errors
    /// The outside host does not run.
    pub fn outside_command(&self, program: &Path) -> Result<Command> {
        self.in_network_of("outside", program)
    }

    /// Loads an image archive on every node, all at once.
    ///
    /// # Errors
    /// A node's containerd refuses it.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let names: Vec<&str> = self.state.nodes.iter().map(|node| node.name.as_str()).collect();
        self.load_image_on(&names, archive)
    }

    fn load_image_on(&self, nodes: &[&str], archive: &Path) -> Result<()> {
        self.on_each(nodes, |node| {
            let file = File::open(archive).with_context(|| archive.display().to_string())?;
            let mut command = self.node_command(node)?;
            command.args(["ctr", "-n", "k8s.io", "images", "import", "--snapshotter", "overlayfs", "-"]);
            let output = command.stdin(Stdio::from(file)).output()?;
            if !output.status.success() {
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                bail!("load {} on {node}: {stderr}", archive.display());
            }
            Ok(())
        })
    }

    /// Runs `work` for all of these nodes at once; the first error wins.
    fn on_each(&self, nodes: &[&str], work: impl Fn(&str) -> Result<()> + Sync) -> Result<()> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = nodes.iter().map(|node| scope.spawn(|| work(node))).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(_) => bail!("a thread of cluster {} panicked", self.name),
            })
        })
    }

    /// Ends a program of a node (`kubelet`, `containerd`, `kube-apiserver`, ...) and keeps it down.
    ///
    /// # Errors
    /// The node does not run.
    pub fn stop_program(&self, node: &str, program: &str) -> Result<()> {
        let folder = self.folder.join(node);
        fs::write(folder.join("stopped").join(program), "")?;
        let pid = fs::read_to_string(folder.join("log").join(format!("{program}.pid")))
            .with_context(|| format!("{program} never ran on {node}"))?;
        // Signal 0 fails once the process is gone: then it was down before.
        if self.node_exec(node, &["kill", "-0", &pid]).is_err() {
            return Ok(());
        }
        self.node_exec(node, &["kill", "-KILL", &pid])?;
        wait_until(&format!("{program} of {node} ends"), Duration::from_secs(10), || {
            if self.node_exec(node, &["kill", "-0", &pid]).is_ok() {
                bail!("still runs");
            }
            Ok(())
        })
    }

    /// Lets a program that [`Cluster::stop_program`] ended run again.
    ///
    /// # Errors
    /// It was not stopped.
    pub fn start_program(&self, node: &str, program: &str) -> Result<()> {
        let mark = self.folder.join(node).join("stopped").join(program);
        fs::remove_file(&mark).with_context(|| format!("{program} of {node} was not stopped"))
    }

    /// Ends everything on a node at once, as a power failure does, and starts it again. Its disks survive, `/run` does not.
    ///
    /// # Errors
    /// A process does not end, or the node does not start.
    pub fn restart_node(&self, node: &str) -> Result<()> {
        let _lock = lock(&self.name)?;
        start::restart(self, node)
    }

    /// A command in the fabric's network namespace that finds the cluster by its kubeconfig, arguments to be added.
    ///
    /// # Errors
    /// The fabric does not run.
    pub fn fabric_command(&self, program: &Path) -> Result<Command> {
        let mut command = self.in_fabric(program)?;
        command.env("KUBECONFIG", self.kubeconfig());
        Ok(command)
    }

    fn in_fabric(&self, program: &Path) -> Result<Command> {
        self.in_network_of("fabric", program)
    }

    /// The process of the fabric, whose network namespace reaches every node.
    pub(crate) fn fabric(&self) -> Result<ProcessId> {
        self.process_of("fabric")
    }

    pub(crate) fn process_of(&self, member: &str) -> Result<ProcessId> {
        Spec::read(&self.folder.join(member))?.process().with_context(|| {
            format!("{member} of cluster {0} does not run: cargo xtask cluster up --name {0}", self.name)
        })
    }

    fn in_network_of(&self, member: &str, program: &Path) -> Result<Command> {
        let process = self.process_of(member)?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", process.pid)).arg(program);
        Ok(command)
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(FOLDERS).join(name)
}

fn check_name(name: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 32 || !name.bytes().all(fits) || name.starts_with('-') {
        bail!("{name:?} is no name of a cluster: use up to 32 of a-z, 0-9 and -");
    }
    Ok(())
}

/// Keeps two commands from changing one cluster at the same time; the kernel lets go of it with the process.
fn lock(name: &str) -> Result<File> {
    fs::create_dir_all(FOLDERS)?;
    let path = Path::new(FOLDERS).join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another command is changing cluster {name}: wait until it is done")
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_folder_are_refused() {
        for bad in ["", "..", "a/b", "A", "-x", &"x".repeat(33)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        check_name("dev-2").unwrap();
    }

    #[test]
    fn one_cluster_is_changed_by_one_command_at_a_time() {
        let name = format!("locktest-{}", std::process::id());
        let held = lock(&name).unwrap();
        assert!(lock(&name).unwrap_err().to_string().contains("another command"));
        drop(held);
        lock(&name).unwrap();
        fs::remove_file(Path::new(FOLDERS).join(format!("{name}.lock"))).unwrap();
    }
}
