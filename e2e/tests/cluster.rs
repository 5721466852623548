//! The harness itself, without Netkeel: what the other tests stand on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use netkeel_e2e::{Cluster, Options, Progress, fetch_go, go_command, node::Spec, process, wait_until};

const WAIT: Duration = Duration::from_mins(1);

fn up(name: &str, nodes: u8) -> Result<Cluster> {
    Cluster::up(&Options { name: name.into(), nodes, ..Options::default() }, &Progress::start())
}

fn host_pod(name: &str, node: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{hostNetwork: true, nodeName: {node}, \
         tolerations: [{{operator: Exists}}], terminationGracePeriodSeconds: 0, containers: [{{name: c, \
         image: 'localhost/netkeel-e2e:1', imagePullPolicy: Never, command: [/netkeel-e2e-peer, serve, --name, {name}]}}]}}}}"
    )
}

fn process_ids(cluster: &Cluster) -> Vec<u32> {
    let members = ["fabric", "outside", "n1", "n2"];
    let process = |member: &&str| Spec::read(&cluster.folder().join(member)).ok()?.process();
    members.iter().filter_map(process).map(|process| process.pid).collect()
}

/// Cgroups of a cluster in any hierarchy.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts =
        mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    mounts.map(|mount| Path::new(mount).join("netkeel").join(name)).filter(|folder| folder.exists()).collect()
}

#[test]
fn pods_run_on_every_node_and_logs_and_exec_reach_them() -> Result<()> {
    let cluster = up("harness", 2)?;
    for node in ["n1", "n2"] {
        let pod = format!("on-{node}");
        cluster.apply(&host_pod(&pod, node))?;
        cluster.kubectl(&["wait", "pod", &pod, "--for=condition=Ready", "--timeout=60s"])?;
        cluster.kubectl(&["logs", &pod])?;
        ensure!(cluster.kubectl(&["exec", &pod, "--", "hostname"])?.trim() == node);
    }
    let failed = cluster.kubectl_output(&["exec", "on-n1", "--", "sh", "-c", "echo why >&2; exit 7"], "")?;
    ensure!(failed.status.code() == Some(7) && failed.stderr.starts_with(b"why"), "{failed:?}");
    let answer = cluster.kubectl(&[
        "exec",
        "on-n1",
        "--",
        "/netkeel-e2e-peer",
        "connect",
        "--to",
        "172.30.0.12:7000",
    ])?;
    ensure!(answer.contains(r#""backends":{"on-n2":1},"clients":{"172.30.0.11":1}"#), "{answer}");
    let outside =
        cluster.kubectl(&["exec", "on-n2", "--", "wget", "-q", "-O-", "http://alias.outside.test/"])?;
    ensure!(outside.contains(r#""name":"outside","client":"172.30.0.12""#), "{outside}");
    cluster.kubectl(&["delete", "pod", "on-n1", "on-n2"])?;
    Ok(())
}

#[test]
fn calls_of_kubectl_at_the_same_time_have_their_own_input_output_and_error() -> Result<()> {
    let cluster = up("harness", 2)?;
    let map = |name: &str| {
        format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{name: {name}}}}}")
    };
    let names: Vec<String> = (0..8).map(|number| format!("logs-{number}")).collect();
    std::thread::scope(|scope| {
        let call = |name: &String| {
            let said = cluster.apply(&map(name))?;
            ensure!(said.contains(&format!("configmap/{name} created")), "{said}");
            let held = cluster.kubectl(&["get", "configmap", name, "-o", "jsonpath={.data.name}"])?;
            ensure!(held == *name, "{name} has {held}");
            let missing = cluster.kubectl_output(&["get", "configmap", &format!("no-{name}")], "")?;
            let error = String::from_utf8_lossy(&missing.stderr);
            ensure!(missing.status.code() == Some(1) && missing.stdout.is_empty(), "{missing:?}");
            ensure!(error.contains(&format!("configmaps \"no-{name}\" not found")), "{error}");
            cluster.kubectl(&["delete", "configmap", name])
        };
        let calls: Vec<_> = names.iter().map(|name| scope.spawn(move || call(name))).collect();
        calls.into_iter().try_for_each(|call| call.join().map_err(|_| anyhow!("panicked"))?.map(drop))
    })
}

#[test]
fn a_second_up_changes_nothing_and_down_leaves_nothing() -> Result<()> {
    let cluster = up("harness-2", 2)?;
    let before = process_ids(&cluster);
    ensure!(before.len() == 4 && process_ids(&up("harness-2", 2)?) == before, "{before:?}");
    ensure!(!cgroups("harness-2").is_empty());
    Cluster::down("harness-2")?;
    ensure!(cgroups("harness-2").is_empty() && !cluster.folder().exists());
    ensure!(before.iter().all(|pid| !Path::new(&format!("/proc/{pid}/ns/net")).exists()), "{before:?}");
    Cluster::down("harness-2")
}

#[test]
fn what_is_left_of_a_dead_cluster_is_replaced() -> Result<()> {
    let cluster = up("harness", 2)?;
    let [fabric, ..] = process_ids(&cluster)[..] else { bail!("no fabric") };
    cluster.node_exec("n1", &["true"])?;
    netkeel_e2e::process::run(std::process::Command::new("kill").args(["-KILL", &fabric.to_string()]))?;
    // A killed process ends when the kernel next runs it.
    wait_until("the fabric is missed", WAIT, || {
        let said = cluster.kubectl(&["version"]).err().map(|error| error.to_string());
        ensure!(said.as_ref().is_some_and(|said| said.contains("fabric")), "{said:?}");
        Ok(())
    })?;
    let cluster = up("harness", 2)?;
    cluster.kubectl(&["get", "node", "n2"])?;
    // The last test in the order of names: nothing here is needed by other test programs.
    Cluster::down("harness")
}

#[test]
fn a_stopped_program_stays_down_until_it_is_started() -> Result<()> {
    let cluster = up("harness", 2)?;
    cluster.stop_program("n1", "kube-apiserver")?;
    ensure!(cluster.kubectl(&["get", "--raw", "/readyz", "--request-timeout=2s"]).is_err());
    cluster.start_program("n1", "kube-apiserver")?;
    wait_until("kube-apiserver is ready again", WAIT, || cluster.kubectl(&["get", "--raw", "/readyz"]))?;
    Ok(())
}

#[test]
fn a_restarted_node_keeps_its_disks_and_runs_its_pods_again() -> Result<()> {
    let cluster = up("harness", 2)?;
    cluster.apply(&host_pod("survivor", "n2"))?;
    cluster.kubectl(&["wait", "pod", "survivor", "--for=condition=Ready", "--timeout=60s"])?;
    for folder in ["/var/lib/netkeel", "/run"] {
        cluster.node_exec("n2", &["touch", &format!("{folder}/mark")])?;
    }
    cluster.restart_node("n2")?;
    cluster.node_exec("n2", &["ls", "/var/lib/netkeel/mark"])?;
    ensure!(cluster.node_exec("n2", &["ls", "/run/mark"]).is_err());
    ensure!(!Path::new("/var/lib/netkeel/mark").exists(), "a node wrote to the machine's own root");
    wait_until("the pod runs again", WAIT, || {
        let path =
            "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}";
        let text = cluster.kubectl(&["get", "pod", "survivor", "-o", path])?;
        ensure!(text.ends_with("true") && !text.starts_with('0'), "{text}");
        Ok(())
    })?;
    cluster.kubectl(&["delete", "pod", "survivor"])?;
    Ok(())
}

#[test]
fn go_is_fetched_where_there_is_none_and_is_new_enough_for_every_module() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let go = fetch_go(folder.path())?;
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
    for module in ["containerd", "helm", "jaeger", "kube"] {
        let wanted = std::fs::read_to_string(modules.join(module).join("go.mod"))?;
        let wanted = wanted.lines().find_map(|line| line.strip_prefix("go ")).unwrap_or_default();
        let has =
            process::text(go_command(&go).args(["env", "GOVERSION"]).current_dir(modules.join(module)))?;
        let has = has.trim().trim_start_matches("go");
        println!("{module} wants Go {wanted}, has {has}");
        ensure!(
            numbers(has) >= numbers(wanted) && numbers(wanted).len() >= 2,
            "{module}: {has} for {wanted}"
        );
    }
    Ok(())
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').filter_map(|number| number.parse().ok()).collect()
}
