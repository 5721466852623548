//! Policy and connection tracking: single frames for every path and reason, sockets for what only they show.

mod epochs;
mod errors;
mod fragments;
mod frames;
mod nodes;
mod sockets;

use std::net::Ipv4Addr;

use netkeel_dataplane_loader::{
    Datapath, Table, Way,
    common::{
        Address, Config, Reason,
        endpoints::Endpoint,
        links::Link,
        policies::{ALLOW, Match, Verdict},
        tunnels::{Block, Tunnel},
    },
};

use crate::{
    lab::{Lab, counted, ifindex, ip},
    packet::{Ip, Mac, decode, icmp, tcp, udp},
};

const A: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 7);
const B: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 8);
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 9);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const MACS: (Mac, Mac) = ([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8]);
const HOST_MAC: Mac = [2, 0, 0, 0, 1, 1];

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const ACK: u8 = 16;
const RST: u8 = 4;

/// A table with rules.
const RULES: u32 = 7;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// To the host stack, or out of the device.
    Next,
    /// Straight to a pod or into the tunnel.
    Redirect,
    Drop(Reason),
}
use Outcome::{Drop, Next, Redirect};

/// A node with the pods A and B, whose links are `nk0` and `nk1`, and a remote block. Nothing is sent.
struct Scene {
    datapath: Datapath,
    links: (u32, u32),
}

impl Scene {
    fn new(lab: &Lab) -> Self {
        let datapath = lab.load();
        for (device, peer) in [("nk0", "p0"), ("nk1", "p1"), ("vx0", "vx1")] {
            ip(&format!("link add {device} type veth peer name {peer}"));
        }
        let block = Block::new(Ipv4Addr::new(10, 244, 1, 0), 24);
        datapath.tunnels().unwrap().put(&block, &Tunnel { node: Address::v4([172, 18, 0, 2]) }).unwrap();
        let node = Address::v4([172, 18, 0, 1]);
        datapath.set_config(&Config::new(&[node], ifindex("vx0"))).unwrap();
        Self { datapath, links: (ifindex("nk0"), ifindex("nk1")) }
    }

    /// Gives A its tables of ingress and egress.
    fn a(&self, ingress: u32, egress: u32) {
        put_pod(&self.datapath, A, (self.links.0, MACS.0), (ingress, egress));
    }

    /// Gives B its tables of ingress and egress.
    fn b(&self, ingress: u32, egress: u32) {
        put_pod(&self.datapath, B, (self.links.1, MACS.1), (ingress, egress));
    }

    /// Runs the program that sees this packet: `from_pod` for what a pod sends.
    fn send(&self, packet: &Ip) -> Outcome {
        let (link, mac) = if packet.from == A { (self.links.0, MACS.0) } else { (self.links.1, MACS.1) };
        self.run("from_pod", &Ip { mac: (mac, HOST_MAC), ..packet.clone() }.frame(), link.into())
    }

    /// Runs `to_pod` for what the host stack forwards to A or B.
    fn forward(&self, packet: &Ip) -> Outcome {
        self.deliver(packet, ifindex("vx0"))
    }

    /// Runs `to_pod` for what the host stack itself sends to A or B.
    fn send_from_node(&self, packet: &Ip) -> Outcome {
        self.deliver(packet, 0)
    }

    fn deliver(&self, packet: &Ip, came_over: u32) -> Outcome {
        let (device, mac) = if packet.to == A { (self.links.0, MACS.0) } else { (self.links.1, MACS.1) };
        let frame = Ip { mac: (HOST_MAC, mac), ..packet.clone() }.frame();
        self.run("to_pod", &frame, Way { device, came_over })
    }

    fn run(&self, program: &str, frame: &[u8], way: Way) -> Outcome {
        let before = counted(&self.datapath);
        let verdict = self.datapath.dry_run(program, frame, way).unwrap();
        assert_eq!(verdict.frame, frame, "{} became {}", decode(frame), decode(&verdict.frame));
        let mut after = counted(&self.datapath);
        after.retain(|reason, count| before.get(reason) != Some(count));
        match (verdict.action, after.into_iter().collect::<Vec<_>>().as_slice()) {
            (-1, []) => Next,
            (7, []) => Redirect,
            (2, [(reason, _)]) => Drop(*reason),
            (action, reasons) => panic!("{}: action {action}, counted {reasons:?}", decode(frame)),
        }
    }
}

/// Enters a pod in both tables.
fn put_pod(datapath: &Datapath, pod: Ipv4Addr, (link, mac): (u32, Mac), (ingress, egress): (u32, u32)) {
    datapath.links().unwrap().put(&link, &Link::new(pod.into(), mac, egress)).unwrap();
    datapath.endpoints().unwrap().put(&pod.into(), &Endpoint { ifindex: link, ingress }).unwrap();
}

fn identify(datapath: &Datapath, address: Ipv4Addr, identity: u32) {
    datapath.identities().unwrap().put(&address.into(), &identity).unwrap();
}

fn allow(datapath: &Datapath, entry: Match) {
    datapath.policies().unwrap().put(&entry, &Verdict { rule: 1, action: ALLOW }).unwrap();
}

/// Begins the next epoch.
fn next_epoch(datapath: &Datapath) {
    let mut epoch = datapath.epoch().unwrap();
    let present = epoch.get(&0).unwrap().unwrap();
    epoch.put(&0, &(present + 1)).unwrap();
}

fn packet(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: Vec<u8>) -> Ip {
    Ip { mac: ([0; 6], [0; 6]), from, to, protocol, id: 1, fragment: 0, options: Vec::new(), payload }
}

fn segment(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8) -> Ip {
    packet(from.0, to.0, TCP, tcp((from.1, to.1), flags))
}

fn datagram(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Ip {
    packet(from.0, to.0, UDP, udp((from.1, to.1), b"hello"))
}

/// An echo request (8) or reply (0).
fn echo(kind: u8, from: Ipv4Addr, to: Ipv4Addr, id: u16) -> Ip {
    packet(from, to, ICMP, icmp(kind, id, b"hello"))
}
