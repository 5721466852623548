//! A DNS server on every node: the move there and back under load, answers from the own node, and from the other while the own server is silent.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::prober::{Asked, Names, Probe, Prober};
use netkeel_e2e::workload::{node_names, shared};
use serde_json::{Value, json};

use super::{AsItWas, names};

const NAME: &str = "web.dns.svc.cluster.local.";
/// A question that is waited for so long is lost, milliseconds.
const LOST: u32 = 2000;
/// Where something is silent for a while, the next question should come soon, milliseconds.
const SHORT: u32 = 200;
/// The longest time without an answer while the node's own server is silent, milliseconds.
const GAP: f64 = 3000.0;
const MOVED: Duration = Duration::from_secs(40);
const SOON: Duration = Duration::from_secs(10);

/// A DNS server.
struct Server {
    node: String,
    pod: String,
    address: String,
    container: String,
}

fn servers() -> Result<Vec<Server>> {
    let list = shared().kubectl_json(&["get", "pods", "-n", "kube-system", "-l", "k8s-app=kube-dns"])?;
    let running = list["items"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(running
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| Server {
            node: text(&pod["spec"]["nodeName"]),
            pod: text(&pod["metadata"]["name"]),
            address: text(&pod["status"]["podIP"]),
            container: text(&pod["status"]["containerStatuses"][0]["containerID"])
                .replace("containerd://", ""),
        })
        .collect())
}

impl Server {
    fn on(node: &str) -> Result<Self> {
        let mut found = servers()?.into_iter().filter(|server| server.node == node);
        let one = found.next().with_context(|| format!("no DNS server on {node}"))?;
        ensure!(found.next().is_none(), "two DNS servers on {node}");
        Ok(one)
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let signal = ["ctr", "-n", "k8s.io", "tasks", "kill", "-s", signal, &self.container];
        shared().node_exec(&self.node, &signal).map(drop)
    }

    /// Questions of clients that it has had.
    fn asked(&self, from: &Prober<'_>) -> Result<u64> {
        let client = names().workload.client(&from.pod)?;
        let text = client.text(&["wget", "-q", "-O-", &format!("http://{}:9472/metrics", self.address)])?;
        let counts = text.lines().filter(|line| line.starts_with("coredns_dns_requests_total{"));
        let counts = counts.filter(|line| line.contains("type=\"A\""));
        Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }
}

/// Whether the agent of a node says that its DNS questions are answered there.
fn is_local(node: &str) -> Result<bool> {
    let ask = ["wget", "-q", "-O-", "http://127.0.0.1:9470/metrics"];
    let text = shared().node_exec(node, &ask)?;
    let line = text.lines().find(|line| line.starts_with("netkeel_agent_dns_local "));
    Ok(line.context("the agent has no such metric")?.ends_with(" 1"))
}

fn wait_local(node: &str, local: bool) -> Result<()> {
    wait_until(&format!("DNS is local on {node}: {local}"), SOON, || {
        ensure!(is_local(node)? == local, "it is not so");
        Ok(())
    })
}

/// Moves the servers, and waits until no others are left.
fn place(placement: &str, message: &str) -> Result<()> {
    let cluster = shared();
    let patch = json!({"spec": {"dns": {"placement": placement}}}).to_string();
    cluster.kubectl(&["patch", "clusternetwork", "default", "--type=merge", "-p", &patch])?;
    let condition = "jsonpath={.status.conditions[?(@.type=='DNSReady')].message}";
    wait_until(&format!("DNS is placed: {placement}"), MOVED, || {
        let told = cluster.kubectl(&["get", "clusternetwork", "default", "-o", condition])?;
        ensure!(told == message, "{told}");
        let left = servers()?;
        ensure!(left.len() == 2, "{} servers run", left.len());
        Ok(())
    })
}

/// A hundred questions a second of both kinds of sockets that are looked up anew for each question.
fn ask(client: &Prober<'_>, timeout_ms: u32) -> Result<[Probe<Names>; 2]> {
    let start = |socket| {
        let asked = Asked { socket, timeout_ms, interval_us: 10_000, ..Asked::default() };
        client.names(NAME, &names().service, asked)
    };
    Ok([start("fresh")?, start("kept")?])
}

/// The same from the pods of both nodes.
fn load(clients: &[Prober<'_>]) -> Result<Vec<Probe<Names>>> {
    let all: Result<Vec<_>> = clients.iter().map(|client| ask(client, LOST)).collect();
    Ok(all?.into_iter().flatten().collect())
}

/// All of them were answered, and as they should be. Returns how many.
fn none_lost(probes: impl IntoIterator<Item = Probe<Names>>) -> Result<u64> {
    let mut answered = 0;
    for probe in probes {
        let seen = probe.end()?;
        ensure!(seen.answered == seen.asked && seen.answered > 0, "{seen:?}");
        answered += seen.answered;
    }
    Ok(answered)
}

#[test]
fn with_a_server_on_every_node_pods_are_answered_there_and_elsewhere_while_it_is_silent() -> Result<()> {
    let _guard = AsItWas;
    let nodes = node_names(shared());
    let clients = [0, 1].map(|index| names().workload.prober(&format!("client-{index}")));
    let clients: Vec<_> = clients.into_iter().collect::<Result<_>>()?;

    let there = load(&clients)?;
    place("EveryNode", "2 of 2 nodes have a ready server")?;
    nodes[..2].iter().try_for_each(|node| wait_local(node, true))?;
    println!("moved to every node: {} questions answered, none lost", none_lost(there)?);

    answered_on_their_node(&clients)?;
    stopped(&clients[0])?;
    killed(&clients[1])?;

    let back = load(&clients)?;
    place("Replicas", "2 of 2 servers ready")?;
    nodes[..2].iter().try_for_each(|node| wait_local(node, false))?;
    println!("moved back: {} questions answered, none lost", none_lost(back)?);
    Ok(())
}

/// Each client's questions come to the server of its node, and no others do.
fn answered_on_their_node(clients: &[Prober<'_>]) -> Result<()> {
    for client in clients {
        let servers = servers()?;
        let count = || -> Result<BTreeMap<String, u64>> {
            servers.iter().map(|server| Ok((server.node.clone(), server.asked(client)?))).collect()
        };
        let before = count()?;
        let probes = ask(client, LOST)?;
        sleep(Duration::from_secs(1));
        let asked = none_lost(probes)?;
        let after = count()?;
        for (node, before) in before {
            let more = after[&node] - before;
            let wanted = if node == client.node { asked } else { 0 };
            // Whoever else asks in the cluster asks little.
            ensure!(
                more >= wanted && more <= wanted + 10,
                "{node} had {more} of {asked} of a pod on {}",
                client.node
            );
        }
    }
    Ok(())
}

/// A server that hangs: the kernel takes datagrams for it, and nobody reads them.
fn stopped(client: &Prober<'_>) -> Result<()> {
    let server = Server::on(&client.node)?;
    let probes = ask(client, SHORT)?;
    server.signal("SIGSTOP")?;
    let elsewhere = wait_local(&client.node, false);
    sleep(Duration::from_secs(1));
    server.signal("SIGCONT")?; // whatever has come of it
    elsewhere?;
    wait_local(&client.node, true)?;
    let lost = gap_is_short(probes, &format!("{} stopped", server.pod))?;
    ensure!(lost > 0, "a server that hangs answers nothing: it was not asked");
    Ok(())
}

/// A server whose process ends: its container starts again.
fn killed(client: &Prober<'_>) -> Result<()> {
    let server = Server::on(&client.node)?;
    let probes = ask(client, SHORT)?;
    server.signal("SIGKILL")?;
    wait_until("the container starts again", SOON, || {
        let now = Server::on(&client.node)?;
        ensure!(now.container != server.container, "it has not");
        Ok(())
    })?;
    wait_local(&client.node, true)?;
    gap_is_short(probes, &format!("{} killed", server.pod)).map(drop)
}

/// Returns how many questions were lost.
fn gap_is_short(probes: [Probe<Names>; 2], what: &str) -> Result<u64> {
    let mut lost = 0;
    for probe in probes {
        let seen = probe.end()?;
        println!(
            "{what}: {:.0} ms without an answer, {} answered, {} not",
            seen.longest_gap_ms, seen.answered, seen.lost
        );
        ensure!(seen.longest_gap_ms <= GAP, "{what}: {seen:?}");
        ensure!(seen.servfail == 0 && seen.wrong == 0 && seen.codes.is_empty(), "{what}: {seen:?}");
        lost += seen.lost;
    }
    Ok(lost)
}
