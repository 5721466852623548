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
    common::{Reason, tunnels::Block},
};

use crate::{
    lab::{Lab, counted, ip},
    packet::{Ip, Mac, decode, icmp, tcp, udp},
    scene::{
        self, HOST_MAC, MACS,
        Outcome::{Drop, Next, Redirect},
        Packet, RULES, SYN, SYN_ACK, TCP, UDP, allow, identify, put_pod,
    },
};

const A: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 7);
const B: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 8);
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 9);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const ICMP: u8 = 1;
const ACK: u8 = 16;
const RST: u8 = 4;

impl Packet for Ip {
    type Ip = Ipv4Addr;

    const A: Ipv4Addr = A;
    const B: Ipv4Addr = B;
    const REMOTE: Ipv4Addr = REMOTE;
    const OUTSIDE: Ipv4Addr = OUTSIDE;
    const ROUTER: Ipv4Addr = ROUTER;

    fn segment(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8) -> Self {
        segment(from, to, flags)
    }

    fn datagram(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Self {
        datagram(from, to)
    }

    fn echo(reply: bool, from: Ipv4Addr, to: Ipv4Addr, id: u16) -> Self {
        echo(if reply { 0 } else { 8 }, from, to, id)
    }

    fn around_outside() -> (Block, Block, Ipv4Addr) {
        let around = |last, length| Block::new(Ipv4Addr::new(192, 0, 2, last), length);
        (around(0, 24), around(128, 25), Ipv4Addr::new(192, 0, 2, 200))
    }

    fn remote() -> (Block, [Ipv4Addr; 2]) {
        let block = Block::new(Ipv4Addr::new(10, 244, 1, 0), 24);
        (block, [Ipv4Addr::new(172, 18, 0, 2), Ipv4Addr::new(172, 18, 0, 1)])
    }

    fn ends(&self) -> (Ipv4Addr, Ipv4Addr) {
        (self.from, self.to)
    }

    fn between(&self, mac: (Mac, Mac)) -> Vec<u8> {
        Self { mac, ..self.clone() }.frame()
    }
}

type Scene = scene::Scene<Ip>;

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
