//! A node starts anew: its namespaces, `/run` and bpffs are gone, its disks are not.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::sandbox::Sandbox;
use netkeel_e2e::workload::{ECHO_PORT, install, node_names};

use crate::bed::{Bed, HEALED, cluster, settled};
use crate::probes::Probes;

/// Things that a node loses when it starts anew.
const LOST: [&str; 2] = ["/run/before-the-reboot", "/sys/fs/bpf/before-the-reboot"];

/// Addresses of the pod network in the API are there once, and each is the one that the pod's sandbox has.
fn addresses_are_right() -> Result<usize> {
    let pods = cluster().kubectl_json(&["get", "pods", "-A"])?;
    let mut seen = HashSet::new();
    for pod in pods["items"].as_array().context("a list of pods")? {
        if pod["spec"]["hostNetwork"] == true {
            continue;
        }
        let text = |path: &str| pod.pointer(path).and_then(|value| value.as_str()).context(path.to_owned());
        let (name, address) = (text("/metadata/name")?, text("/status/podIP")?);
        let sandbox = Sandbox::of(cluster(), text("/spec/nodeName")?, text("/metadata/namespace")?, name)?;
        let has = sandbox.address()?;
        ensure!(has == address, "the API says that {name} has {address}, it has {has}");
        ensure!(seen.insert(address.to_owned()), "{address} of {name} is there twice");
    }
    Ok(seen.len())
}

/// Starts the node anew and waits until the kubelet has said so, and the network is whole.
fn reboot(node: &str) -> Result<()> {
    for folder in LOST {
        cluster().node_exec(node, &["mkdir", folder])?;
    }
    let start = Instant::now();
    cluster().restart_node(node)?;
    for folder in LOST {
        ensure!(cluster().node_exec(node, &["test", "-e", folder]).is_err(), "{folder} survived");
    }
    // Until the first heartbeat the API has the node as it was before.
    wait_until(&format!("an agent runs on {node}"), HEALED, || {
        cluster().node_exec(node, &["pidof", "netkeel-agent"])
    })?;
    install::wait_available(cluster())?;
    settled()?;
    println!("{node} is whole again after {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

#[test]
fn a_reboot_is_felt_on_no_other_node_and_leaves_addresses_and_policy_right() {
    let pods = [("client", 0), ("server", 0), ("stranger", 0), ("phoenix", 1)];
    let bed = Bed::new("rebooted", &pods).unwrap();
    bed.enforced("phoenix").unwrap();
    let [client, server, stranger, phoenix] = pods.map(|(pod, _)| bed.prober(pod).unwrap());
    let before = phoenix.sandbox().unwrap().id;
    let mut probes = Probes::default();
    probes.allowed(&client, &server, &bed.service).unwrap();
    probes.forbidden(&stranger, &server).unwrap();
    let at_phoenix = stranger.forbidden(&phoenix.address, ECHO_PORT).unwrap();
    reboot(&node_names(cluster())[1]).unwrap();
    let again = wait_until("phoenix is back", HEALED, || {
        let now = bed.prober("phoenix")?;
        let sandbox = now.sandbox()?;
        ensure!(sandbox.id != before && sandbox.address()? == now.address, "not yet");
        Ok(now)
    })
    .unwrap();
    bed.workload.ready().unwrap();
    bed.enforced("phoenix").unwrap();
    let at_new_phoenix = stranger.forbidden(&again.address, ECHO_PORT).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    let right = wait_until("all addresses are right", HEALED, addresses_are_right).unwrap();
    println!("{right} pods have the addresses that the API says, each another");
    assert!(right >= pods.len(), "only {right} pods were looked at");
    for probe in [at_phoenix, at_new_phoenix] {
        let seen = probe.end().context("the stranger").unwrap();
        assert!(seen.connects > 20 && seen.connected + seen.answered == 0, "{seen:?}");
    }
    probes.go_on().unwrap();
    let outcome = probes.end("node rebooted", 1).unwrap();
    outcome.assert_unharmed();
    outcome.assert_no_connect_failed();
    bed.workload.delete_namespace().unwrap();
}
