//! Full-size packets between the agents of two nodes, over a router whose far link carries less than the nodes' links say, and which tells nobody.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use netkeel_agent::path::{self, PORT, Pace, Peer, Proof, Targets};
use netkeel_core::address::Addresses;
use netkeel_testkit::lab::{Namespace, join};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const MTU: u32 = 1450;
const PACE: Pace = Pace { pause: Duration::from_millis(100), settle: Duration::from_millis(1) };

fn overlay(number: u8) -> Addresses {
    let six = format!("fd00:10:244::{number}").parse::<IpAddr>().expect("an address");
    Addresses::of([IpAddr::from([10, 244, number, 0]), six])
}

/// Two nodes with overlay addresses of both families and a router in between.
struct Lab {
    nodes: [Namespace; 2],
    router: Namespace,
}

impl Lab {
    fn new() -> io::Result<Self> {
        let lab = Self { nodes: [Namespace::new()?, Namespace::new()?], router: Namespace::new()? };
        lab.router.sysctl("ipv4/ip_forward", "1")?;
        lab.router.sysctl("ipv6/conf/all/forwarding", "1")?;
        for (number, node) in (1_u8..).zip(&lab.nodes) {
            let link = format!("to{number}");
            let at = |last| Ipv4Addr::new(192, 0, number, last);
            join((node, "uplink", at(1)), (&lab.router, &link, at(254)), 24)?;
            for line in [
                format!("-6 addr add fd00:18:{number}::1/64 dev uplink nodad"),
                format!("addr add 10.244.{number}.0/32 dev lo"),
                format!("-6 addr add fd00:10:244::{number}/128 dev lo"),
                format!("route add default via {}", at(254)),
                format!("-6 route add default via fd00:18:{number}::254"),
            ] {
                if line.starts_with("-6 route") {
                    let gateway = format!("-6 addr add fd00:18:{number}::254/64 dev {link} nodad");
                    lab.router.ip(&gateway)?;
                }
                node.ip(&line)?;
            }
            lab.router.ip(&format!("route add 10.244.{number}.0/32 via {}", at(1)))?;
            lab.router.ip(&format!("-6 route add fd00:10:244::{number}/128 via fd00:18:{number}::1"))?;
        }
        for rule in [
            "add table inet quiet",
            "add chain inet quiet out { type filter hook output priority 0; policy accept; }",
            "add rule inet quiet out icmp type destination-unreachable drop",
            "add rule inet quiet out icmpv6 type packet-too-big drop",
        ] {
            lab.router.run("nft", &[rule])?;
        }
        Ok(lab)
    }

    /// What the router carries to the second node from now on, bytes.
    fn carry(&self, mtu: u32) -> io::Result<()> {
        for (family, address, via) in
            [("-4", "10.244.2.0/32", "192.0.2.1"), ("-6", "fd00:10:244::2/128", "fd00:18:2::1")]
        {
            self.router.ip(&format!("{family} route replace {address} via {via} mtu lock {mtu}"))?;
        }
        Ok(())
    }

    /// Runs the agent's part of a node until `stop`; returns what it finds.
    fn prove(
        &self,
        number: u8,
        stop: &CancellationToken,
    ) -> (watch::Receiver<Proof>, thread::JoinHandle<()>) {
        let other = 3 - number;
        let peer = Peer { addresses: overlay(other), mtu: MTU };
        let peers = BTreeMap::from([(format!("node-{other}").into(), peer)]);
        let targets = watch::Sender::new(Targets { own: overlay(number), mtu: MTU, peers });
        let (proof, found) = watch::channel(Proof::default());
        let stop = stop.clone();
        let running = self.nodes[usize::from(number) - 1].spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            runtime.block_on(path::prove(targets.subscribe(), proof, PACE, stop));
            drop(targets);
        });
        (found, running)
    }
}

fn wait(what: &str, found: &watch::Receiver<Proof>, holds: impl Fn(&Proof) -> bool) -> Proof {
    let start = Instant::now();
    loop {
        let proof = found.borrow().clone();
        if holds(&proof) {
            return proof;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "{what}: {proof:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_way_that_carries_less_is_found_with_the_size_that_it_carries_and_forgotten_when_it_is_right() {
    let lab = Lab::new().unwrap();
    let stop = CancellationToken::new();
    let (from_1, first) = lab.prove(1, &stop);
    let (from_2, second) = lab.prove(2, &stop);
    for found in [&from_1, &from_2] {
        let proof = wait("full-size packets arrive in both families", found, |proof| proof.arrived >= 4);
        assert_eq!((proof.mtu, proof.problem()), (MTU, None));
    }
    lab.carry(1404).unwrap();
    let proof = wait("they do not any more", &from_1, |proof| proof.problem().is_some());
    let told = proof.problem().unwrap();
    assert!(
        told.starts_with("packets of 1450 bytes do not arrive at node node-2 (") && told.contains("1404"),
        "{told}"
    );
    assert!(told.contains("set spec.podNetwork.mtu of ClusterNetwork default to 1404"), "{told}");
    assert_eq!(from_2.borrow().problem(), None, "the other way is as before");
    lab.carry(1500).unwrap();
    wait("they arrive again", &from_1, |proof| proof.problem().is_none());

    // Who is no node gets no answer, and an answer is no larger than a question.
    let stranger = lab.nodes[1].enter(|| UdpSocket::bind("192.0.2.1:0").unwrap());
    stranger.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stranger
        .send_to(&[b"netkeel?".as_slice(), &[7; 100]].concat(), (Ipv4Addr::new(10, 244, 1, 0), PORT))
        .unwrap();
    assert!(stranger.recv(&mut [0; 64]).is_err());
    stop.cancel();
    first.join().unwrap();
    second.join().unwrap();
}
