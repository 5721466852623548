//! The development loop: `cargo xtask cluster reload` replaces one component in seconds, and the network goes on.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netkeel_e2e::workload::{install, shared};
use netkeel_e2e::{process, wait_until};

/// Seconds on a quiet machine; this is one that does other things as well.
const SECONDS: Duration = Duration::from_secs(90);

/// UID and start of every pod of a component, oldest first.
fn pods(namespace: &str, label: &str) -> Result<Vec<(String, String)>> {
    let listed = shared().kubectl_json(&["get", "pods", "-n", namespace, "-l", label])?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut pods: Vec<_> = listed["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| {
            let running = &pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"];
            (text(&pod["metadata"]["uid"]), text(running))
        })
        .collect();
    pods.sort();
    Ok(pods)
}

fn reload(component: &str, namespace: &str, label: &str) {
    let before = pods(namespace, label).expect("the pods");
    assert!(!before.is_empty(), "{component} does not run");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let start = Instant::now();
    let mut command = process::cargo();
    command.current_dir(root).args(["xtask", "cluster", "reload", component, "--name", shared().name()]);
    process::text(&mut command).expect("the reload");
    let took = start.elapsed();
    println!("{component}: {} s", took.as_secs());
    assert!(took < SECONDS, "{took:?}");
    let after = wait_until("as many pods run as before", SECONDS, || {
        let now = pods(namespace, label)?;
        let running = now.iter().filter(|(_, started)| !started.is_empty()).count();
        ensure!(running == before.len() && now.len() == before.len(), "{now:?}");
        Ok(now)
    })
    .expect("the new pods");
    let same = after.iter().filter(|(uid, _)| before.iter().any(|(old, _)| old == uid)).count();
    assert_eq!(same, 0, "a pod of {component} still runs the old program");
    install::wait_available(shared()).expect("the network goes on");
}

#[test]
fn agents_are_reloaded_in_seconds() {
    reload("agent", install::NAMESPACE, install::AGENT);
}

#[test]
fn the_operator_is_reloaded_in_seconds() {
    reload("operator", install::NAMESPACE, install::OPERATOR);
}

#[test]
fn dns_is_reloaded_in_seconds() {
    reload("dns", "kube-system", "k8s-app=kube-dns");
}
