//! Agents killed at random points, and replaced by those of another image.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::images::{self, ANOTHER};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::{Prober, install, node_names};

use crate::bed::{Bed, HEALED, Random, cluster, kill, settled};
use crate::probes::Probes;

const KILLS: usize = 50;
/// A killed agent had lived for this long at most.
const LIFE: Duration = Duration::from_millis(2500);

const PODS: [(&str, usize); 4] = [("client", 0), ("server", 1), ("stranger", 0), ("neighbour", 1)];

/// Probers of every kind: one client is allowed; another node's and the own node's stranger, and the server's own wish to
/// begin something, are not.
fn probed<'a>(
    bed: &Bed,
    [client, server, stranger, neighbour]: &'a [Prober<'static>; 4],
) -> Result<Probes<'a>> {
    let mut probes = Probes::default();
    probes.allowed(client, server, &bed.service)?;
    probes.forbidden(stranger, server)?;
    probes.forbidden(neighbour, server)?;
    probes.forbidden(server, client)?;
    Ok(probes)
}

fn places(bed: &Bed) -> Result<[Prober<'static>; 4]> {
    let [client, server, stranger, neighbour] = PODS.map(|(pod, _)| bed.prober(pod));
    Ok([client?, server?, stranger?, neighbour?])
}

/// Kills so many agents of one node, each at another moment of its life. Deleting the pod keeps the kubelet's growing pause
/// between restarts out of it.
fn kill_agents(node: &str, kills: usize, mut random: Random) -> Result<()> {
    let field = format!("--field-selector=spec.nodeName={node}");
    for _ in 0..kills {
        wait_until(&format!("an agent runs on {node}"), HEALED, || {
            cluster().node_exec(node, &["pidof", "netkeel-agent"])
        })?;
        std::thread::sleep(random.pause(LIFE));
        wait_until(&format!("the agent of {node} is killed"), HEALED, || {
            ensure!(kill(node, "netkeel-agent"), "none runs");
            Ok(())
        })?;
        let which = ["-n", install::NAMESPACE, "-l", install::AGENT, &field];
        cluster().kubectl(&[&["delete", "pod", "--force", "--grace-period=0"], which.as_slice()].concat())?;
    }
    Ok(())
}

#[test]
fn agents_killed_fifty_times_at_random_points_lose_nothing_and_let_nothing_in() {
    let bed = Bed::new("killed-agents", &PODS).unwrap();
    let places = places(&bed).unwrap();
    let mut probes = probed(&bed, &places).unwrap();
    let nodes = node_names(cluster());
    std::thread::scope(|scope| {
        let threads: Vec<_> = nodes
            .iter()
            .map(|node| {
                let random = Random::new();
                scope.spawn(move || kill_agents(node, KILLS / 2, random))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
    settled().unwrap();
    probes.go_on().unwrap();
    let outcome = probes.end("agents killed", KILLS).unwrap();
    outcome.assert_unharmed();
    outcome.assert_no_connect_failed();
    bed.workload.end().unwrap();
}

/// Images of the agents that run, each once.
fn running() -> Result<Vec<String>> {
    let path = "jsonpath={range .items[*]}{.spec.containers[0].image}{'\\n'}{end}";
    let text =
        cluster().kubectl(&["get", "pod", "-n", install::NAMESPACE, "-l", install::AGENT, "-o", path])?;
    let mut images: Vec<String> = text.lines().map(str::to_owned).collect();
    images.sort();
    images.dedup();
    Ok(images)
}

/// Digest of the agent's program that runs on each node.
fn programs() -> Result<Vec<String>> {
    let line = ["sh", "-c", "sha256sum < /proc/$(pidof netkeel-agent)/exe"];
    node_names(cluster()).iter().map(|node| cluster().node_exec(node, &line)).collect()
}

/// Installs with these arguments and waits until agents of that image alone run.
fn roll(arguments: &[&str], image: &str) -> Result<()> {
    install::helm_upgrade(cluster(), arguments)?;
    wait_until(&format!("agents of {image} run"), Duration::from_mins(3), || {
        let running = running()?;
        ensure!(running == [image], "running: {}", running.join(", "));
        // All of them are made by now, if not started: the rollout that is waited for is this one.
        settled()
    })
}

#[test]
fn a_roll_to_another_build_and_back_loses_nothing_and_lets_nothing_in() {
    let bed = Bed::new("rolled-agents", &PODS).unwrap();
    let places = places(&bed).unwrap();
    let image = running().unwrap().pop().context("an agent runs").unwrap();
    let (repository, _) = image.rsplit_once(':').unwrap();
    let other = format!("{repository}:{ANOTHER}");
    cluster().load_image(&images::another()).context("run `cargo xtask image --another` first").unwrap();
    let before = programs().unwrap();
    let mut probes = probed(&bed, &places).unwrap();
    roll(&["--set", &format!("image.tag={ANOTHER}")], &other).unwrap();
    for (program, another) in before.iter().zip(programs().unwrap()) {
        assert_ne!(*program, another, "the same program as before");
    }
    // Without values of its own an upgrade keeps those of the one before.
    roll(&["--reset-values"], &image).unwrap();
    assert_eq!(programs().unwrap(), before);
    probes.go_on().unwrap();
    let outcome = probes.end("agents rolled", 2).unwrap();
    outcome.assert_unharmed();
    outcome.assert_no_connect_failed();
    bed.workload.end().unwrap();
}
