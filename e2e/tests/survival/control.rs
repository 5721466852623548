//! The control plane goes away: operators killed, no API server for minutes, a watch that says nothing any more.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::sandbox::Sandbox;
use netkeel_e2e::workload::{ECHO_PORT, Prober, install, manifest, node_names};

use crate::bed::{Bed, HEALED, Random, cluster, kill, settled, until};
use crate::probes::Probes;

const OPERATORS_KILLED: usize = 5;
const ABSENCE: Duration = Duration::from_mins(3);
const API_SERVER: &str = "kube-apiserver";
/// Silence is found and made up for within this.
const FOUND: Duration = Duration::from_secs(20);
const STALLS: usize = 3;

#[test]
fn operators_killed_harm_nobody_and_new_pods_work_meanwhile() {
    let bed = Bed::new("killed-operators", &[("client", 0), ("server", 1), ("stranger", 0)]).unwrap();
    let [client, server, stranger] = ["client", "server", "stranger"].map(|pod| bed.prober(pod).unwrap());
    let mut probes = Probes::default();
    probes.allowed(&client, &server, &bed.service).unwrap();
    probes.forbidden(&stranger, &server).unwrap();
    let nodes = node_names(cluster());
    let mut random = Random::new();
    for round in 0..OPERATORS_KILLED {
        std::thread::sleep(random.pause(Duration::from_secs(4)));
        let killed = nodes.iter().filter(|node| kill(node, "netkeel-operator")).count();
        let name = format!("new-{round}");
        bed.workload.pod(&name, &nodes[round % nodes.len()]).unwrap();
        bed.workload.wait_ready(&name).unwrap();
        println!("round {round}: {killed} operators killed, a new pod is ready");
        let delete = [
            "delete",
            "pod",
            "-n",
            install::NAMESPACE,
            "-l",
            install::OPERATOR,
            "--force",
            "--grace-period=0",
        ];
        cluster().kubectl(&delete).unwrap();
    }
    settled().unwrap();
    probes.go_on().unwrap();
    let outcome = probes.end("operators killed", OPERATORS_KILLED).unwrap();
    outcome.assert_unharmed();
    outcome.assert_no_connect_failed();
    bed.workload.end().unwrap();
}

/// Ends the sandbox of `phoenix` and gives its address once the kubelet has made another.
fn new_sandbox(phoenix: &Prober<'static>) -> Result<Sandbox<'static>> {
    let before = phoenix.sandbox()?;
    before.kill()?;
    wait_until("phoenix has a new sandbox", HEALED, || {
        let now = phoenix.sandbox()?;
        ensure!(now.id != before.id, "still the one before");
        now.address()?;
        Ok(now)
    })
}

/// The agent of a node dies while there is no API server, and knows everything again from its disk.
fn restart_agent(node: &str) -> Result<()> {
    let pid = || cluster().node_exec(node, &["pidof", "netkeel-agent"]);
    let before = pid()?;
    ensure!(kill(node, "netkeel-agent"), "no agent runs on {node}");
    wait_until(&format!("an agent runs on {node} again"), HEALED, || {
        let now = pid()?;
        ensure!(now != before, "still the one before");
        Ok(())
    })
}

/// What the absence of the API server is used for.
fn without_api_server(
    phoenix: &Prober<'static>,
    client: &Prober<'static>,
    stranger: &Prober<'static>,
) -> Result<()> {
    let start = Instant::now();
    cluster().stop_program(&node_names(cluster())[0], API_SERVER)?;
    until(start, Duration::from_secs(10));
    restart_agent(&phoenix.node)?;
    let sandbox = new_sandbox(phoenix)?;
    let address = sandbox.address()?;
    println!(
        "{:.0} s without API server: phoenix has a new sandbox, {address}",
        start.elapsed().as_secs_f64()
    );
    wait_until("the client reaches phoenix", HEALED, || {
        client.connect(&address, ECHO_PORT, 20)?.none_failed()
    })?;
    let probe = stranger.forbidden(&address, ECHO_PORT)?;
    std::thread::sleep(Duration::from_secs(10));
    let seen = probe.end()?;
    println!("the stranger at phoenix's new address: {seen:?}");
    ensure!(seen.connects > 100 && seen.connected + seen.answered == 0, "{seen:?}");
    until(start, ABSENCE);
    Ok(())
}

#[test]
fn three_minutes_without_api_server_harm_nobody_and_a_new_sandbox_has_its_policy() {
    let pods = [("client", 0), ("server", 1), ("stranger", 0), ("phoenix", 1)];
    let bed = Bed::new("no-api-server", &pods).unwrap();
    bed.enforced("phoenix").unwrap();
    let [client, server, stranger, phoenix] = pods.map(|(pod, _)| bed.prober(pod).unwrap());
    let mut probes = Probes::default();
    probes.allowed(&client, &server, &bed.service).unwrap();
    probes.forbidden(&stranger, &server).unwrap();
    let done = without_api_server(&phoenix, &client, &stranger);
    cluster().start_program(&node_names(cluster())[0], API_SERVER).unwrap();
    done.unwrap();
    wait_until("the API server is back", HEALED, || cluster().kubectl(&["get", "--raw", "/readyz"])).unwrap();
    settled().unwrap();
    let now = phoenix.sandbox().unwrap().address().unwrap();
    wait_until("the API knows phoenix's new address", HEALED, || {
        let known = bed.prober("phoenix")?.address;
        ensure!(known == now, "it is {now}, the API says {known}");
        Ok(())
    })
    .unwrap();
    bed.enforced("phoenix").unwrap();
    probes.go_on().unwrap();
    // The node controller may have taken pods for unready: new connections through the Service are not its to promise.
    probes.end("no API server", 1).unwrap().assert_unharmed();
    bed.workload.end().unwrap();
}

/// The black hole of a node: what the agent's present connections to the API server send or get is dropped, and nobody is told.
struct Stall<'a> {
    node: &'a str,
    connections: usize,
}

impl<'a> Stall<'a> {
    fn new(node: &'a str) -> Result<Self> {
        let list = ["ss", "-Htnp", "state", "established", "( dport = :6443 )"];
        let text = cluster().node_exec(node, &list)?;
        let ports: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("netkeel-agent"))
            .filter_map(|line| line.split_ascii_whitespace().nth(2)?.rsplit_once(':'))
            .map(|(_, port)| port)
            .collect();
        if ports.is_empty() {
            bail!("the agent of {node} has no connection to the API server: {text}");
        }
        let ports_text = ports.join(", ");
        let rules = format!(
            "table inet stall {{\n\
             chain out {{ type filter hook output priority -400; tcp dport 6443 tcp sport {{ {ports_text} }} drop; }}\n\
             chain in {{ type filter hook input priority -400; tcp sport 6443 tcp dport {{ {ports_text} }} drop; }}\n\
             }}\n"
        );
        let mut command = cluster().node_command(node)?;
        netkeel_e2e::process::text_with_input(command.args(["nft", "-f", "-"]), &rules)?;
        Ok(Self { node, connections: ports.len() })
    }
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        drop(cluster().node_exec(self.node, &["nft", "delete", "table", "inet", "stall"]));
    }
}

/// Makes a Service and gives the time until a process of `node` can use it.
fn service_reaches(bed: &Bed, node: &str, name: &str) -> Result<Duration> {
    let start = Instant::now();
    bed.workload.apply(vec![manifest::service(name, "server", false)])?;
    let address = bed.workload.kubectl(&["get", "service", name, "-o", "jsonpath={.spec.clusterIP}"])?;
    let program = cluster().folder().join("netkeel-e2e-peer").display().to_string();
    let to = format!("{address}:{ECHO_PORT}");
    wait_until(&format!("{node} knows Service {name}"), HEALED, || {
        cluster().node_exec(node, &[&program, "connect", "--to", &to, "--timeout", "300"])
    })
    .context("a change never reached the node")?;
    Ok(start.elapsed())
}

#[test]
fn a_watch_that_stalls_silently_is_found_within_twenty_seconds() {
    let bed = Bed::new("stalled", &[("client", 0), ("server", 1), ("stranger", 0)]).unwrap();
    let [client, server, stranger] = ["client", "server", "stranger"].map(|pod| bed.prober(pod).unwrap());
    let mut probes = Probes::default();
    probes.allowed(&client, &server, &bed.service).unwrap();
    probes.forbidden(&stranger, &server).unwrap();
    let node = &node_names(cluster())[1];
    let usual = service_reaches(&bed, node, "usual").unwrap();
    println!("without a stall a Service is known after {:.1} s", usual.as_secs_f64());
    for round in 0..STALLS {
        let stall = Stall::new(node).unwrap();
        let took = service_reaches(&bed, node, &format!("late-{round}")).unwrap();
        println!("{} connections stalled: known after {:.1} s", stall.connections, took.as_secs_f64());
        assert!(took > usual, "the stall held nothing up");
        assert!(took <= FOUND, "found after {took:?}");
    }
    let outcome = probes.end("watches stalled", STALLS).unwrap();
    outcome.assert_unharmed();
    outcome.assert_no_connect_failed();
    bed.workload.end().unwrap();
}
