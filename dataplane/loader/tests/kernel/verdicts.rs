//! Golden packets: single frames through the programs by `BPF_PROG_TEST_RUN`, verdict, frame and counters compared.

use std::{collections::HashMap, net::Ipv4Addr};

use netkeel_dataplane_loader::{
    Datapath, Table,
    common::{
        Address, Config, Reason,
        endpoints::Endpoint,
        links::Link,
        policies::OPEN,
        tunnels::{Block, Tunnel},
    },
};

use crate::{
    lab::{counted, ifindex, ip, isolated},
    packet::{Datagram, Mac, arp, decode, ethernet},
};

pub(crate) const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 7);
pub(crate) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 8);
pub(crate) const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 9);
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const POD_MAC: Mac = [2, 0, 0, 0, 0, 7];
pub(crate) const HOST_MAC: Mac = [2, 0, 0, 0, 1, 7];

const NEXT: i32 = -1;
pub(crate) const DROP: i32 = 2;
const REDIRECT: i32 = 7;

/// One frame and what must become of it.
struct Case {
    name: &'static str,
    frame: Vec<u8>,
    expect: Expect,
}

enum Expect {
    Next,
    Redirect,
    Drop(Reason),
}

use Expect::{Drop, Next, Redirect};

fn case(name: &'static str, frame: Vec<u8>, expect: Expect) -> Case {
    Case { name, frame, expect }
}

/// What the pod sends to `to`.
fn from_pod(to: Ipv4Addr) -> Datagram {
    Datagram { mac: (POD_MAC, HOST_MAC), from: (POD, 4000), to: (to, 53), payload: b"hello".to_vec() }
}

fn check(datapath: &Datapath, program: &str, ifindex: u32, cases: Vec<Case>) {
    for Case { name, frame, expect } in cases {
        let before = counted(datapath);
        let verdict = datapath.dry_run(program, &frame, ifindex).unwrap();
        let mut after = counted(datapath);
        after.retain(|reason, count| before.get(reason) != Some(count));
        let (action, reasons) = match expect {
            Next => (NEXT, HashMap::new()),
            Redirect => (REDIRECT, HashMap::new()),
            Drop(reason) => (DROP, HashMap::from([(reason, before.get(&reason).unwrap_or(&0) + 1)])),
        };
        let story = format!("{name}\n  in:  {}\n  out: {}", decode(&frame), decode(&verdict.frame));
        assert_eq!((verdict.action, after), (action, reasons), "{story}");
        assert_eq!(verdict.frame, frame, "{story}");
    }
}

/// A node with the pod behind `nk0`, another local pod behind `nk1`, and a remote block.
pub(crate) fn node(datapath: &Datapath) -> u32 {
    ip("link add nk0 type veth peer name p0");
    ip("link add nk1 type veth peer name p1");
    ip("link add vx0 type veth peer name vx1"); // stands in for the VXLAN device: nothing is sent
    let nk0 = ifindex("nk0");
    datapath.links().unwrap().put(&nk0, &Link::new(POD.into(), POD_MAC, OPEN)).unwrap();
    let endpoint = |device| Endpoint::new(ifindex(device), OPEN);
    let mut endpoints = datapath.endpoints().unwrap();
    endpoints.put(&POD.into(), &endpoint("nk0")).unwrap();
    endpoints.put(&NEIGHBOUR.into(), &endpoint("nk1")).unwrap();
    let node = Address::v4([172, 18, 0, 2]);
    let block = Block::new(Ipv4Addr::new(10, 244, 1, 0), 24);
    datapath.tunnels().unwrap().put(&block, &Tunnel::to(node)).unwrap();
    datapath.set_config(&Config::new(&[Address::v4([172, 18, 0, 1])], ifindex("vx0"))).unwrap();
    nk0
}

#[test]
fn a_pod_sends_only_as_itself() {
    isolated(|lab| {
        let datapath = lab.load();
        let nk0 = node(&datapath);
        let spoof = Datagram { from: (NEIGHBOUR, 4000), ..from_pod(OUTSIDE) };
        let foreign_mac = Datagram { mac: ([2, 0, 0, 0, 0, 8], HOST_MAC), ..from_pod(OUTSIDE) };
        let mut garbled = from_pod(OUTSIDE).frame();
        garbled[14] = 0x62;
        let cases = vec![
            case("own address", from_pod(OUTSIDE).frame(), Next),
            case("another pod's address", spoof.frame(), Drop(Reason::SpoofedSource)),
            case("another MAC address", foreign_mac.frame(), Drop(Reason::SpoofedSource)),
            case(
                "spoofed towards a local pod",
                Datagram { to: (NEIGHBOUR, 53), ..spoof.clone() }.frame(),
                Drop(Reason::SpoofedSource),
            ),
            case(
                "spoofed towards a remote pod",
                Datagram { to: (REMOTE, 53), ..spoof }.frame(),
                Drop(Reason::SpoofedSource),
            ),
            case("not IPv4 though it says so", garbled, Drop(Reason::Malformed)),
            case("LLDP", ethernet((POD_MAC, HOST_MAC), 0x88cc, &[0; 40]), Drop(Reason::UnknownProtocol)),
            case("ARP as itself", arp(POD_MAC, (POD_MAC, POD), OUTSIDE), Next),
            case(
                "ARP for another's address",
                arp(POD_MAC, (POD_MAC, NEIGHBOUR), OUTSIDE),
                Drop(Reason::SpoofedSource),
            ),
            case("ARP with another's MAC", arp(POD_MAC, ([2; 6], POD), OUTSIDE), Drop(Reason::SpoofedSource)),
        ];
        check(&datapath, "from_pod", nk0, cases);
    });
}

#[test]
fn a_pods_packet_goes_where_its_destination_lives() {
    isolated(|lab| {
        let datapath = lab.load();
        let nk0 = node(&datapath);
        let cases = vec![
            case("local pod", from_pod(NEIGHBOUR).frame(), Redirect),
            case("remote pod", from_pod(REMOTE).frame(), Redirect),
            case("no pod in the own block", from_pod(Ipv4Addr::new(10, 244, 0, 99)).frame(), Next),
            case("outside", from_pod(OUTSIDE).frame(), Next),
        ];
        check(&datapath, "from_pod", nk0, cases);
    });
}

#[test]
fn unknown_is_closed() {
    isolated(|lab| {
        let datapath = lab.load();
        node(&datapath);
        let frame = from_pod(OUTSIDE).frame();
        let cases = vec![case("a link without a pod", frame, Drop(Reason::UnknownLink))];
        check(&datapath, "from_pod", ifindex("nk1"), cases);
    });
}

#[test]
fn without_a_tunnel_device_remote_pods_are_not_reached_in_clear() {
    isolated(|lab| {
        let datapath = lab.load();
        let nk0 = node(&datapath);
        let config = Config::new(&[], 0);
        datapath.set_config(&config).unwrap();
        let cases = vec![
            case("no device", from_pod(REMOTE).frame(), Drop(Reason::NoTunnel)),
            case("local pods still", from_pod(NEIGHBOUR).frame(), Redirect),
        ];
        check(&datapath, "from_pod", nk0, cases);
        datapath.set_config(&Config::new(&[], ifindex("vx0"))).unwrap();
        let cases = vec![case("no node address", from_pod(REMOTE).frame(), Drop(Reason::TunnelKey))];
        check(&datapath, "from_pod", nk0, cases);
    });
}

#[test]
fn what_the_node_sends_into_the_overlay_needs_a_known_destination() {
    isolated(|lab| {
        let datapath = lab.load();
        node(&datapath);
        let from_node = |to| Datagram { from: (Ipv4Addr::new(10, 244, 0, 1), 4000), ..from_pod(to) };
        let cases = vec![
            case("remote pod", from_node(REMOTE).frame(), Next),
            case("nobody's address", from_node(Ipv4Addr::new(10, 244, 9, 9)).frame(), Drop(Reason::NoTunnel)),
            case("own block", from_node(NEIGHBOUR).frame(), Drop(Reason::NoTunnel)),
            case("ARP", arp(POD_MAC, (POD_MAC, POD), REMOTE), Drop(Reason::UnknownProtocol)),
        ];
        check(&datapath, "to_overlay", ifindex("vx0"), cases);
    });
}

#[test]
fn nothing_comes_out_of_the_overlay_without_an_outer_header() {
    isolated(|lab| {
        let datapath = lab.load();
        node(&datapath);
        let frame = Datagram { from: (REMOTE, 53), to: (POD, 4000), ..from_pod(POD) }.frame();
        let cases = vec![case("plain frame", frame, Drop(Reason::ForgedTunnel))];
        check(&datapath, "from_overlay", ifindex("vx0"), cases);
    });
}
