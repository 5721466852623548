//! Bringing a cluster up and taking it down.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::kubectl::Kubectl;
use super::{Cluster, NODE_PROGRAM, Node, Options, State, folder};
use crate::binaries::Binaries;
use crate::config::{Plan, addresses, group, node_name};
use crate::node::Spec;
use crate::process::ProcessId;
use crate::{Progress, cgroup, images, observe, process, wait_until};

const PEER_PROGRAM: &str = "netkeel-e2e-peer";
const START: Duration = Duration::from_mins(1);

pub(super) fn up(options: &Options, progress: &Progress) -> Result<Cluster> {
    if !(1..=100).contains(&options.nodes) {
        bail!("a cluster has 1 to 100 nodes, not {}", options.nodes);
    }
    let binaries = Binaries::ensure(progress)?;
    let folder = folder(&options.name);
    let before = Cluster::attach(&options.name).ok();
    let runs = ["fabric", "outside"].iter().all(|member| process_of(&folder, member).is_some());
    if folder.exists() && (before.is_none() || !runs) {
        progress.say("taking down what is left of an earlier cluster of this name");
        remove(&options.name)?;
    }
    let ip_family = before.as_ref().map_or(options.ip_family, Cluster::ip_family);
    let nodes = before.map_or(0, |cluster| cluster.nodes().len()).max(usize::from(options.nodes));
    let nodes = u8::try_from(nodes)?;
    let plan = Plan { cluster: &options.name, folder: &folder, nodes, ip_family, binaries: &binaries };
    start(&plan, progress)
}

/// Builds what the harness itself is made of, and copies it, so that the next build does not change what the running
/// cluster uses.
fn build_programs(folder: &Path, progress: &Progress) -> Result<()> {
    let peer = images::peer(progress)?;
    let mut cargo = process::cargo();
    cargo.args(["build", "--quiet", "--package", "netkeel-e2e", "--bin", NODE_PROGRAM]);
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    process::run_long(&mut cargo, "building the harness", progress)?;
    let node = images::target_folder().join("debug").join(NODE_PROGRAM);
    fs::create_dir_all(folder)?;
    for (source, name) in [(node, NODE_PROGRAM), (peer, PEER_PROGRAM)] {
        fs::copy(&source, folder.join(name)).with_context(|| source.display().to_string())?;
    }
    progress.say("programs of the harness are built");
    Ok(())
}

fn start(plan: &Plan<'_>, progress: &Progress) -> Result<Cluster> {
    if !plan.folder.join("cluster.json").exists() {
        build_programs(plan.folder, progress)?;
    }
    plan.secrets()?;
    let fabric = launch(plan.folder, "fabric", &plan.fabric())?;
    observe::prepare(plan.folder)?;
    launch(plan.folder, "outside", &plan.outside(fabric.pid, &plan.folder.join(PEER_PROGRAM)))?;
    let node = |index| Node { name: node_name(index), address: addresses::node(index).first(plan.ip_family) };
    let nodes: Vec<Node> = (1..=plan.nodes).map(node).collect();
    let dead: Vec<u8> =
        (1..=plan.nodes).filter(|index| process_of(plan.folder, &node_name(*index)).is_none()).collect();
    std::thread::scope(|scope| {
        let launches: Vec<_> = dead
            .iter()
            .map(|index| scope.spawn(|| launch(plan.folder, "node", &plan.node(*index, fabric.pid)?)))
            .collect();
        launches.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result.map(drop),
            Err(_) => bail!("starting a node panicked"),
        })
    })?;
    let state = State {
        nodes,
        kubectl: plan.binaries.kubectl(),
        helm: plan.binaries.helm(),
        ip_family: plan.ip_family,
    };
    let kubectl = Kubectl::default();
    let cluster = Cluster { name: plan.cluster.into(), folder: plan.folder.into(), state, kubectl };
    let dead: Vec<String> = dead.into_iter().map(node_name).collect();
    progress.say(if dead.is_empty() {
        "all nodes run".into()
    } else {
        format!("started {}", dead.join(", "))
    });
    ready(&cluster, &dead.iter().map(String::as_str).collect::<Vec<_>>(), progress)?;
    fs::write(plan.folder.join("cluster.json"), serde_json::to_vec_pretty(&cluster.state)?)?;
    Ok(cluster)
}

/// Waits for the control plane and the nodes; loads the base images on those that were started now.
fn ready(cluster: &Cluster, started: &[&str], progress: &Progress) -> Result<()> {
    cluster.on_each(started, |node| {
        wait_until(&format!("containerd of {node} answers"), START, || {
            cluster.node_exec(node, &["ctr", "version"])
        })?;
        Ok(())
    })?;
    if !started.is_empty() {
        let peer = cluster.folder.join(PEER_PROGRAM);
        for archive in images::base(&peer, &cluster.folder.join("images"))? {
            cluster.load_image_on(started, &archive)?;
        }
        progress.say("containerd answers, base images are loaded");
    }
    wait_until("kube-apiserver is ready", START, || cluster.kubectl(&["get", "--raw", "/readyz"]))
        .with_context(|| log_hint(cluster, "n1", "kube-apiserver"))?;
    progress.say("kube-apiserver is ready");
    for node in cluster.nodes() {
        wait_until(&format!("node {} is registered", node.name), START, || {
            cluster.kubectl(&["get", "node", &node.name])
        })
        .with_context(|| log_hint(cluster, &node.name, "kubelet"))?;
    }
    progress.say(format!("{} nodes are registered", cluster.nodes().len()));
    Ok(())
}

/// The end of a program's log, for an error.
pub(super) fn log_hint(cluster: &Cluster, member: &str, program: &str) -> String {
    let path = cluster.folder.join(member).join("log").join(format!("{program}.log"));
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n");
    format!("end of {}:\n{last}\n", path.display())
}

fn process_of(folder: &Path, member: &str) -> Option<ProcessId> {
    Spec::read(&folder.join(member)).ok()?.process()
}

/// Starts a member that does not run and waits until its namespaces are there.
pub(crate) fn launch(cluster: &Path, role: &str, spec: &Spec) -> Result<ProcessId> {
    if let Some(running) = spec.process() {
        return Ok(running);
    }
    cgroup::destroy(&spec.group)?;
    spec.write()?;
    drop(fs::remove_file(spec.folder.join("pid")));
    let path = spec.folder.join("log").join("member.log");
    let log = File::options().create(true).append(true).open(&path)?;
    let mut child = Command::new(cluster.join(NODE_PROGRAM))
        .arg(role)
        .arg(&spec.folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        .spawn()
        .context(NODE_PROGRAM)?;
    wait_until(&format!("{} starts", spec.name), START, || {
        if let Some(status) = child.try_wait()? {
            let said = fs::read_to_string(&path).unwrap_or_default();
            return Ok(Err(anyhow!("{} ended ({status}): {said}", spec.name)));
        }
        spec.process().map(Ok).context("it has not said its process id")
    })?
}

/// Ends everything on a node at once, as a power failure does, and starts it again.
pub(super) fn restart(cluster: &Cluster, node: &str) -> Result<()> {
    let spec = Spec::read(&cluster.folder.join(node))?;
    cgroup::destroy(&spec.group)?;
    // The first process of a PID namespace leaves its cgroup before it has seen all others end.
    wait_until(&format!("the first process of {node} ends"), START, || {
        ensure!(spec.process().is_none(), "it is still there");
        Ok(())
    })?;
    launch(&cluster.folder, "node", &spec)?;
    wait_until(&format!("containerd of {node} answers"), START, || {
        cluster.node_exec(node, &["ctr", "version"])
    })?;
    Ok(())
}

/// Ends all processes of the cluster, then removes its cgroups and its folder.
pub(super) fn remove(name: &str) -> Result<()> {
    let folder = folder(name);
    drop(fs::remove_file(folder.join("cluster.json")));
    cgroup::destroy(&group(name))?;
    cgroup::remove_empty("netkeel");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}
