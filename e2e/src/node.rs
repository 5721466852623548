//! A process that is part of the cluster: the fabric, the outside host, a program beside them, or a node.
//! Each joins its own cgroup first, so that whatever happens later it can be found and ended.

mod mounts;
mod network;
mod supervise;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::process::ProcessId;

/// What one member of the cluster is and runs. Written to `spec.json` in its folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub name: String,
    /// Its cgroup, a path below the root of every hierarchy.
    pub group: String,
    /// Its folder on the host: `spec.json`, `pid`, `log/`, and what it mounts.
    pub folder: PathBuf,
    /// How it is joined to the fabric; the fabric itself has none.
    pub link: Option<Link>,
    /// `PATH` of everything that runs in it.
    pub path: String,
    /// Folders of the host that it sees: from, to.
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// Files that are written into its own root: path, text.
    pub files: Vec<(PathBuf, String)>,
    pub daemons: Vec<Daemon>,
}

/// One end of a veth pair whose other end is a port of the fabric's bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Process id of the fabric.
    pub fabric: u32,
    /// Addresses and prefix lengths of `eth0`.
    pub addresses: Vec<String>,
    /// Where the default routes go, one of each family at most.
    pub gateways: Vec<String>,
    /// More addresses, on the loopback device.
    pub loopback: Vec<String>,
}

/// A program that is started again when it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    pub name: String,
    pub command: Vec<String>,
    /// Started once this address takes a TCP connection.
    pub after: Option<std::net::SocketAddr>,
}

impl Spec {
    /// Reads `spec.json` of a folder.
    ///
    /// # Errors
    /// There is none or it does not parse.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("spec.json");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Writes `spec.json` and the folders that it needs.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write(&self) -> Result<()> {
        for folder in ["log", "root", "stopped"] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        for (from, _) in &self.binds {
            fs::create_dir_all(from).with_context(|| from.display().to_string())?;
        }
        fs::write(self.folder.join("spec.json"), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }

    /// The process that runs it, if it runs.
    #[must_use]
    pub fn process(&self) -> Option<ProcessId> {
        let text = fs::read_to_string(self.folder.join("pid")).ok()?;
        serde_json::from_str::<ProcessId>(&text).ok().filter(ProcessId::alive)
    }

    fn record(&self, pid: u32) -> Result<()> {
        let text = serde_json::to_vec(&ProcessId::of(pid)?)?;
        fs::write(self.folder.join("pid.new"), text)?;
        Ok(fs::rename(self.folder.join("pid.new"), self.folder.join("pid"))?)
    }

    fn system_group(&self) -> String {
        format!("{}/system", self.group)
    }
}

/// The programs that the binary `netkeel-e2e-node` offers, by their first argument.
///
/// # Errors
/// Whatever keeps the member from running.
pub fn main(arguments: &[String]) -> Result<()> {
    let [role, folder, command @ ..] = arguments else {
        bail!("usage: netkeel-e2e-node fabric|outside|beside|node|init|exec FOLDER [COMMAND...]");
    };
    let spec = Spec::read(Path::new(folder))?;
    match role.as_str() {
        "fabric" => fabric(&spec),
        "outside" => outside(&spec),
        "beside" => beside(&spec),
        "node" => node(&spec),
        "init" => init(&spec),
        "exec" => exec(&spec, command),
        other => bail!("unknown role {other}"),
    }
}

fn detach(spec: &Spec) -> Result<()> {
    nix::unistd::setsid().context("setsid")?;
    cgroup::join(&spec.group)
}

fn fabric(spec: &Spec) -> Result<()> {
    detach(spec)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    network::bridge()?;
    spec.record(std::process::id())?;
    loop {
        std::thread::park();
    }
}

fn outside(spec: &Spec) -> Result<()> {
    detach(spec)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    network::connect(spec)?;
    become_program(spec)
}

/// Runs its program in the network namespace of the fabric.
fn beside(spec: &Spec) -> Result<()> {
    detach(spec)?;
    let link = spec.link.as_ref().context("the fabric is not named")?;
    let namespace = format!("/proc/{}/ns/net", link.fabric);
    setns(fs::File::open(&namespace).context(namespace)?, CloneFlags::CLONE_NEWNET)?;
    become_program(spec)
}

fn become_program(spec: &Spec) -> Result<()> {
    spec.record(std::process::id())?;
    let daemon = spec.daemons.first().with_context(|| format!("{} runs one program", spec.name))?;
    let (program, arguments) = daemon.command.split_first().context("a command has a program")?;
    Err(Command::new(program).args(arguments).exec()).context(program.clone())
}

/// Makes the namespaces; the first process in them is [`init`].
fn node(spec: &Spec) -> Result<()> {
    detach(spec)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    network::connect(spec)?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP
            | CloneFlags::CLONE_NEWPID,
    )?;
    // On a machine with cgroup2 alone the root of a node must hold no process, or no controller can be handed down.
    cgroup::join(&spec.system_group())?;
    let me = std::env::current_exe()?;
    let mut child = Command::new(me).arg("init").arg(&spec.folder).stdin(Stdio::piped()).spawn()?;
    spec.record(child.id())?;
    // The child waits for this: its new root becomes this process's too, and there /proc knows other numbers.
    drop(child.stdin.take());
    let status = child.wait()?;
    bail!("the first process of {} ended: {status}", spec.name)
}

fn init(spec: &Spec) -> Result<()> {
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).context("wait for the parent")?;
    fs::write("/proc/sys/kernel/hostname", &spec.name).context("host name")?;
    mounts::enter_root(spec)?;
    supervise::run(spec)
}

/// Runs a command as a process of the node: in its namespaces and in its cgroups.
fn exec(spec: &Spec, command: &[String]) -> Result<()> {
    let process = spec.process().with_context(|| format!("{} does not run", spec.name))?;
    cgroup::join(&spec.system_group())?;
    let mut enter = Command::new("nsenter");
    enter.args(["-t", &process.pid.to_string(), "-m", "-u", "-n", "-p", "-C", "--"]);
    Err(enter.args(command).env("PATH", &spec.path).exec()).context("nsenter")
}
