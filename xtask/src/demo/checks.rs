//! What the demo promises, checked from inside the pods; each check looks several times.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use netkeel_e2e::workload::{Client, ECHO_PORT, Workload, install, node_names};
use netkeel_e2e::{Cluster, assertions, wait_until};

const CONNECTIONS: u32 = 300;
const BACKENDS: usize = 3;
const TIMES: usize = 3;
const SOON: Duration = Duration::from_secs(10);

/// Waits for the nodes, then looks a few times more, a second apart.
pub(super) fn nodes_ready(cluster: &Cluster) -> Result<String> {
    install::wait_available(cluster)?;
    for _ in 0..TIMES {
        std::thread::sleep(Duration::from_millis(500));
        let not_ready = install::not_ready(cluster)?;
        ensure!(not_ready.is_empty(), "{} became NotReady again", not_ready.join(", "));
    }
    Ok(format!("{} are Ready, looked at {} times", node_names(cluster).join(" and "), TIMES + 1))
}

pub(super) fn deploy(workload: &Workload<'_>, cluster: &Cluster) -> Result<()> {
    for (index, node) in node_names(cluster).iter().enumerate().take(2) {
        workload.pod(&format!("client-{index}"), node)?;
    }
    workload.deployment("echo", BACKENDS)?;
    workload.service("echo")?;
    workload.wait_endpoints("echo", BACKENDS)?;
    workload.ready()
}

fn clients<'a>(workload: &Workload<'a>) -> Result<[Client<'a>; 2]> {
    Ok([workload.client("client-0")?, workload.client("client-1")?])
}

/// Both directions, with TCP, UDP and a stream of full-size packets.
pub(super) fn pods_talk(workload: &Workload<'_>) -> Result<String> {
    let [first, second] = clients(workload)?;
    let mut seen = String::new();
    for (from, to) in [(&first, &second), (&second, &first)] {
        for _ in 0..TIMES {
            let tcp = from.connect(&to.address, ECHO_PORT, 20)?;
            tcp.none_failed()?;
            ensure!(
                tcp.clients.keys().eq([&from.address]),
                "{to} saw {:?} instead of {}",
                tcp.clients,
                from.address
            );
            from.udp(&to.address, ECHO_PORT, 20, false)?.none_failed()?;
        }
        let rate = from.transfer(&to.address, ECHO_PORT, 16 << 20)?;
        let _ = write!(
            seen,
            "{} → {}: {} connections, {} datagrams, 16 MiB there and back at {rate:.0} Mbit/s; ",
            from.address,
            to.address,
            20 * TIMES,
            20 * TIMES
        );
    }
    Ok(seen.trim_end_matches("; ").into())
}

pub(super) fn outside(workload: &Workload<'_>) -> Result<String> {
    let mut seen = Vec::new();
    for client in clients(workload)? {
        let address = client.outside_source()?;
        seen.push(format!("{} is seen as {address}", client.address));
    }
    Ok(seen.join(", "))
}

/// 300 connections by name from a pod of each node.
pub(super) fn shares(workload: &Workload<'_>) -> Result<String> {
    let mut lines = Vec::new();
    for client in clients(workload)? {
        let seen = wait_until("the name resolves and every backend answers", SOON, || {
            let seen = client.connect("echo", ECHO_PORT, CONNECTIONS)?;
            seen.none_failed()?;
            assertions::fair_share(&seen.backends, BACKENDS)?;
            Ok(seen)
        })?;
        let counts: Vec<String> = seen.backends.values().map(ToString::to_string).collect();
        lines.push(format!("{client}: {}", counts.join(" + ")));
    }
    Ok(lines.join(", "))
}

/// Once the endpoint is gone from the API, a second later no connection may reach it.
pub(super) fn scaled_away(workload: &Workload<'_>) -> Result<String> {
    workload.scale("echo", BACKENDS - 1)?;
    workload.wait_endpoints("echo", BACKENDS - 1)?;
    let left = workload.endpoint_pods("echo")?;
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..TIMES {
        for client in clients(workload)? {
            let seen = client.connect("echo", ECHO_PORT, CONNECTIONS)?;
            seen.none_failed()?;
            ensure!(
                seen.backends.keys().eq(left.iter()),
                "{client} reached {:?}, left are {left:?}",
                seen.backends
            );
        }
    }
    Ok(format!("{} connections, all to {}", 2 * TIMES * CONNECTIONS as usize, left.join(" and ")))
}

pub(super) fn scaled_back(workload: &Workload<'_>) -> Result<String> {
    workload.scale("echo", BACKENDS)?;
    workload.wait_endpoints("echo", BACKENDS)?;
    shares(workload)
}
