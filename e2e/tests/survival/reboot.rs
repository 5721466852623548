//! A node starts anew: its namespaces, `/run` and bpffs are gone, its disks are not.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::sandbox::Sandbox;
use netkeel_e2e::workload::{ECHO_PORT, Prober, install, node_names};
use serde_json::Value;

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

/// How many of a block's addresses are tried: after a reboot a node gives addresses from the front again.
const FRONT: u32 = 4;

/// The addresses that `phoenix` may have before and after the reboot.
fn places(phoenix: &Prober<'static>) -> Result<Vec<String>> {
    let path = "jsonpath={.spec.blocks[0]}";
    let block = cluster().kubectl(&["get", "nodenetwork", &phoenix.node, "-o", path])?;
    let (base, _) = block.trim().split_once('/').with_context(|| format!("a block: {block:?}"))?;
    let base = u32::from(base.parse::<Ipv4Addr>()?);
    let mut places: Vec<_> = (1..=FRONT).map(|next| Ipv4Addr::from(base + next).to_string()).collect();
    if !places.contains(&phoenix.address) {
        places.push(phoenix.address.clone());
    }
    Ok(places)
}

/// Waits until `phoenix` is the one pod on its node that serves echo: an answer from there is its answer. Cluster DNS does
/// not serve it.
fn alone(phoenix: &Prober<'static>) -> Result<()> {
    let field = format!("--field-selector=spec.nodeName={},metadata.namespace!=kube-system", phoenix.node);
    wait_until("no other pod serves on the node", HEALED, || {
        let pods = cluster().kubectl_json(&["get", "pods", "-A", &field])?;
        let pods = pods["items"].as_array().into_iter().flatten();
        let own_address = pods.filter(|pod| pod["spec"]["hostNetwork"] != true);
        let name = |pod: &Value| format!("{}/{}", pod["metadata"]["namespace"], pod["metadata"]["name"]);
        let names: Vec<_> = own_address.map(name).collect();
        ensure!(names.len() == 1, "there are {}", names.join(", "));
        Ok(())
    })
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
    alone(&phoenix).unwrap();
    let places = places(&phoenix).unwrap();
    let knocks: Vec<_> = places.iter().map(|place| stranger.forbidden(place, ECHO_PORT).unwrap()).collect();
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
    assert!(places.contains(&again.address), "{} was not tried: {places:?}", again.address);
    std::thread::sleep(Duration::from_secs(5));
    let right = wait_until("all addresses are right", HEALED, addresses_are_right).unwrap();
    println!("{right} pods have the addresses that the API says, each another");
    assert!(right >= pods.len(), "only {right} pods were looked at");
    for (place, probe) in places.iter().zip(knocks) {
        let seen = probe.end().context("the stranger").unwrap();
        println!("the stranger at {place}: {seen:?}");
        assert!(seen.connects > 20 && seen.connected + seen.answered == 0, "{place}: {seen:?}");
    }
    probes.go_on().unwrap();
    let outcome = probes.end("node rebooted", 1).unwrap();
    outcome.assert_unharmed();
    outcome.assert_no_connect_failed();
    bed.workload.end().unwrap();
}
