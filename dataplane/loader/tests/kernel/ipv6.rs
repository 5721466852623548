//! IPv6 through the programs: single frames for every path and reason, as for IPv4.

mod addresses;
mod discovery;
mod extensions;
mod forged;
mod overlay;
mod policy;

use std::net::Ipv6Addr;

pub(crate) use self::overlay::{pod, two_nodes};

use netkeel_dataplane_loader::{
    Datapath, Table, Way,
    common::{
        Address, Config, Reason,
        endpoints::Endpoint,
        frame::discovery::GATEWAY,
        links::Link,
        tunnels::{Block, Tunnel},
    },
};

use crate::{
    lab::{Lab, counted, ifindex, ip},
    packet::{Ip6, Mac, decode, icmp6, tcp, udp},
    scene::{
        self, HOST_MAC, MACS,
        Outcome::{Drop, Next, Redirect},
        Packet, RULES, SYN, SYN_ACK, TCP, UDP, allow, put_pod,
    },
};

const A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 7);
const B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 8);
const REMOTE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 1, 9);
const OUTSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xff, 1);
const ICMPV6: u8 = 58;

impl Packet for Ip6 {
    type Ip = Ipv6Addr;

    const A: Ipv6Addr = A;
    const B: Ipv6Addr = B;
    const REMOTE: Ipv6Addr = REMOTE;
    const OUTSIDE: Ipv6Addr = OUTSIDE;
    const ROUTER: Ipv6Addr = ROUTER;

    fn segment(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), flags: u8) -> Self {
        segment(from, to, flags)
    }

    fn datagram(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16)) -> Self {
        datagram(from, to)
    }

    fn echo(reply: bool, from: Ipv6Addr, to: Ipv6Addr, id: u16) -> Self {
        echo(if reply { 129 } else { 128 }, from, to, id)
    }

    fn around_outside() -> (Block, Block, Ipv6Addr) {
        let last = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
        (Block::new(last(0), 120), Block::new(last(0x80), 121), last(0xc8))
    }

    fn remote() -> (Block, [Ipv6Addr; 2]) {
        let block = Block::new(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 1, 0), 112);
        (block, [2, 1].map(|number| Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, number)))
    }

    fn ends(&self) -> (Ipv6Addr, Ipv6Addr) {
        (self.from, self.to)
    }

    fn between(&self, mac: (Mac, Mac)) -> Vec<u8> {
        Self { mac, ..self.clone() }.frame()
    }
}

type Scene = scene::Scene<Ip6>;

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
