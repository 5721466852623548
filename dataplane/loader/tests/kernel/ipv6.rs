//! IPv6 through the programs: single frames for every path and reason, as for IPv4.

mod addresses;
mod discovery;
mod extensions;
mod forged;
mod overlay;
mod policy;

use std::net::Ipv6Addr;

use netkeel_dataplane_loader::{
    Datapath, Table, Way,
    common::{
        Address, Config, Reason,
        endpoints::Endpoint,
        frame::discovery::GATEWAY,
        links::Link,
        policies::{ALLOW, Match, Verdict},
        tunnels::{Block, Tunnel},
    },
};

use crate::{
    lab::{Lab, counted, ifindex, ip},
    packet::{Ip6, Mac, decode, icmp6, tcp, udp},
};

const A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 7);
const B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 8);
const REMOTE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 1, 9);
const OUTSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xff, 1);
const MACS: (Mac, Mac) = ([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8]);
const HOST_MAC: Mac = [2, 0, 0, 0, 1, 1];

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SYN: u8 = 2;
const SYN_ACK: u8 = 18;

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
        let block = Block::new(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 1, 0), 112);
        let peer: Ipv6Addr = "fd00:18::2".parse().unwrap();
        datapath.tunnels().unwrap().put(&block, &Tunnel { node: peer.into() }).unwrap();
        let node: Ipv6Addr = "fd00:18::1".parse().unwrap();
        datapath.set_config(&Config::new(&[node.into()], ifindex("vx0"))).unwrap();
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
    fn send(&self, packet: &Ip6) -> Outcome {
        let (link, mac) = if packet.from == B { (self.links.1, MACS.1) } else { (self.links.0, MACS.0) };
        self.run("from_pod", &Ip6 { mac: (mac, HOST_MAC), ..packet.clone() }.frame(), link.into())
    }

    /// Runs `to_pod` for what the host stack forwards to A or B.
    fn forward(&self, packet: &Ip6) -> Outcome {
        self.deliver(packet, ifindex("vx0"))
    }

    /// Runs `to_pod` for what the host stack itself sends to A or B.
    fn send_from_node(&self, packet: &Ip6) -> Outcome {
        self.deliver(packet, 0)
    }

    fn deliver(&self, packet: &Ip6, came_over: u32) -> Outcome {
        let (device, mac) = if packet.to == B { (self.links.1, MACS.1) } else { (self.links.0, MACS.0) };
        let frame = Ip6 { mac: (HOST_MAC, mac), ..packet.clone() }.frame();
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
fn put_pod(datapath: &Datapath, pod: Ipv6Addr, (link, mac): (u32, Mac), (ingress, egress): (u32, u32)) {
    datapath.links().unwrap().put(&link, &Link::new(pod.into(), mac, egress)).unwrap();
    datapath.endpoints().unwrap().put(&pod.into(), &Endpoint { ifindex: link, ingress }).unwrap();
}

fn identify(datapath: &Datapath, address: Ipv6Addr, identity: u32) {
    datapath.identities().unwrap().put(&address.into(), &identity).unwrap();
}

fn allow(datapath: &Datapath, entry: Match) {
    datapath.policies().unwrap().put(&entry, &Verdict { rule: 1, action: ALLOW }).unwrap();
}

fn packet(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: Vec<u8>) -> Ip6 {
    Ip6 { mac: (MACS.0, HOST_MAC), from, to, hop_limit: 64, next: protocol, payload }
}

fn segment(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), flags: u8) -> Ip6 {
    packet(from.0, to.0, TCP, tcp((from.1, to.1), flags))
}

fn datagram(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16)) -> Ip6 {
    packet(from.0, to.0, UDP, udp((from.1, to.1), b"hello"))
}

/// An echo request (128) or reply (129).
fn echo(kind: u8, from: Ipv6Addr, to: Ipv6Addr, id: u16) -> Ip6 {
    packet(from, to, ICMPV6, icmp6(kind, id, b"hello"))
}

/// The packet with an extension header of this kind in front of its payload.
fn behind(kind: u8, header: [u8; 8], packet: &Ip6) -> Ip6 {
    let mut header = header;
    header[0] = packet.next;
    Ip6 { next: kind, payload: [&header[..], &packet.payload].concat(), ..packet.clone() }
}

/// A fragment at this offset, in units of 8 bytes, of the packet with this identification.
fn fragment(packet: &Ip6, (offset, more): (u16, bool), id: u32) -> Ip6 {
    let mut header = [0; 8];
    header[2..4].copy_from_slice(&(offset << 3 | u16::from(more)).to_be_bytes());
    header[4..].copy_from_slice(&id.to_be_bytes());
    behind(44, header, packet)
}

fn gateway() -> Ipv6Addr {
    GATEWAY.0.into()
}

fn address(ip: Ipv6Addr) -> Address {
    ip.into()
}
