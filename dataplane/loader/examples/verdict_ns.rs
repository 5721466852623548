//! `cargo run --release -p netkeel-dataplane-loader --features root-tests --example verdict_ns`: what `from_pod` takes for a packet
//! of an established connection, beside a program that does nothing, as one line of JSON. Needs root and a built object.
//! Runs in namespaces of its own; the connection is one of 100,000 that the kernel knows.

use std::{error::Error, fs, net::Ipv4Addr, path::PathBuf, process, process::Command};

use netkeel_dataplane_loader::{
    Datapath, Options, Table, Way,
    common::{
        Address,
        conntrack::{Entry, Moment},
        endpoints::Endpoint,
        flow::{Flow, Side},
        links::Link,
        policies::OPEN,
        transport::{ACK, Kind, TCP, Transport},
    },
    find_cgroup2,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

const POD: [u8; 4] = [10, 244, 0, 7];
const NEIGHBOUR: [u8; 4] = [10, 244, 0, 8];
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const RUNS: u32 = 1_000_000;
const ROUNDS: usize = 9;
const OTHERS: u32 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let cgroup = find_cgroup2("/sys/fs/cgroup".as_ref())?.join(format!("nkb-{}", process::id()));
    fs::create_dir_all(&cgroup)?;
    let measured = measure(&cgroup);
    let left = fs::remove_dir(&cgroup);
    println!("{}", measured?);
    Ok(left?)
}

/// The figures, each the median of all rounds.
fn measure(cgroup: &std::path::Path) -> Result<String, Box<dyn Error>> {
    let (datapath, link) = node(cgroup)?;
    let (there, back) = (segment(POD, NEIGHBOUR, (4000, 80)), segment(NEIGHBOUR, POD, (80, 4000)));
    let redirect = datapath.dry_run("from_pod", &there, link)?.action;
    // What `from_pod` of the neighbour's link hands on, as it does where the pod has a limit on its rate.
    let way = Way { device: link, came_over: nix::net::if_::if_nametoindex("nk1")? };
    let answer = datapath.dry_run("to_pod", &back, way)?.action;
    if (redirect, answer) != (7, -1) {
        return Err(format!("the connection does not pass: {redirect}, {answer}").into());
    }
    let (mut from_pod, mut to_pod, mut empty) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        empty.push(datapath.dry_run_timed("empty", &there, link, RUNS)?);
        from_pod.push(datapath.dry_run_timed("from_pod", &there, link, RUNS)?);
        to_pod.push(datapath.dry_run_timed("to_pod", &back, way, RUNS)?);
    }
    let [from_pod, to_pod, empty] = [from_pod, to_pod, empty].map(median);
    let verdict = from_pod.saturating_sub(empty);
    Ok(format!(
        r#"{{"name":"verdict-ns","verdict_ns":{verdict},"from_pod_ns":{from_pod},"to_pod_ns":{to_pod},"empty_ns":{empty}}}"#
    ))
}

fn median(mut values: Vec<u32>) -> u32 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A node with two pods that everybody may reach, and other connections.
fn node(cgroup: &std::path::Path) -> Result<(Datapath, u32), Box<dyn Error>> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("bpf"), "/mnt", Some("bpf"), MsFlags::empty(), none)?;
    for (device, peer) in [("nk0", "p0"), ("nk1", "p1")] {
        let made = Command::new("ip")
            .args(["link", "add", device, "type", "veth", "peer", "name", peer])
            .status()?;
        if !made.success() {
            return Err(format!("make {device}: {made}").into());
        }
    }
    let datapath = Datapath::load(&Options { bpffs: PathBuf::from("/mnt"), cgroup: cgroup.to_owned() })?;
    let link = nix::net::if_::if_nametoindex("nk0")?;
    let mut endpoints = datapath.endpoints()?;
    for (device, address) in [("nk0", POD), ("nk1", NEIGHBOUR)] {
        let ifindex = nix::net::if_::if_nametoindex(device)?;
        datapath.links()?.put(&ifindex, &Link::new(Address::v4(address), MAC, OPEN))?;
        endpoints.put(&Address::v4(address), &Endpoint::new(ifindex, OPEN))?;
    }
    let mut connections = datapath.connections()?;
    let transport = Transport { kind: Kind::Tcp(ACK), source_port: 1, destination_port: 2 };
    for number in 0..OTHERS {
        let (source, destination) = (Address::v4(number.to_be_bytes()), Address::from(Ipv4Addr::LOCALHOST));
        let (flow, _) = Flow::of(source, destination, TCP, &transport);
        let moment = Moment { now: 0, epoch: 0 };
        connections.put(&flow, &Entry::new(&flow, (&transport, Side::Low), 0, moment))?;
    }
    Ok((datapath, link))
}

/// A frame with a TCP segment in the middle of a connection.
fn segment(from: [u8; 4], to: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
    let mut frame = [[2, 0, 0, 0, 1, 7], MAC].concat();
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 1, 0, 0, 64, TCP, 0, 0]);
    frame.extend([from, to].concat());
    frame.extend([ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, ACK, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}
