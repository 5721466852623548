//! IPv6 between pods of two nodes, over an underlay of each family. Forged packets are written by hand.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use netkeel_dataplane_loader::{
    Options,
    common::{VNI, policies::OPEN},
};

use super::*;
use crate::{
    lab::{Netns, chain, isolated, wait_until_up},
    packet::vxlan,
    pods::{collect, megabyte},
};

pub(super) const PORT: u16 = 8472;
const DEVICE: &str = "netkeel.vxlan";
/// The nodes' own addresses inside the overlay, which are the first ones of their blocks.
pub(super) const NODES: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0), Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 1, 0)];
/// An underlay: the own node, the other one, a third one that is known, and an address that is no node's.
pub(super) type Underlay = [IpAddr; 4];
pub(super) const FOUR: Underlay = [four(1), four(2), four(3), four(4)];
pub(super) const SIX: Underlay = [six(1), six(2), six(3), six(4)];

const fn four(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(172, 18, 0, last))
}

const fn six(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, last))
}

pub(crate) struct Cluster {
    pub(crate) datapath: Datapath,
    pub(crate) pod: Netns,
    pub(super) peer: Netns,
    pub(crate) remote: Netns,
}

/// Two nodes that reach each other at these addresses, with a pod each. The other one has the addresses of all but the own node.
pub(super) fn cluster(lab: &Lab, underlay: Underlay) -> Cluster {
    let peer = Netns::new();
    ip(&format!("link add wire type veth peer name wire netns {}", peer.path()));
    let datapath = node(&lab.options, 0, underlay);
    let third = Block::new(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 2, 0), 112);
    datapath.tunnels().unwrap().put(&third, &Tunnel::to(underlay[2].into())).unwrap();
    let own = pod(&datapath, A, underlay[0]);
    let other = lab.other_node();
    let remote = peer.run(|| {
        let datapath = node(&other, 1, underlay);
        for more in &underlay[2..] {
            ip(&format!("address add {more}/{} dev wire", prefix(*more)));
        }
        wait_until_up("wire");
        pod(&datapath, REMOTE, underlay[1])
    });
    wait_until_up("wire");
    Cluster { datapath, pod: own, peer, remote }
}

/// Two nodes that reach each other over IPv4, the first at 172.18.0.1.
pub(crate) fn two_nodes(lab: &Lab) -> Cluster {
    cluster(lab, FOUR)
}

/// Makes this namespace the node with this number.
fn node(options: &Options, number: usize, underlay: Underlay) -> Datapath {
    let (own, other) = (underlay[number], underlay[1 - number]);
    fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
    ip(&format!("address add {own}/{} dev wire", prefix(own)));
    ip("link set wire up");
    ip(&format!("link add {DEVICE} type vxlan external dstport {PORT} nolearning udp6zerocsumrx"));
    quiet(DEVICE);
    ip(&format!("address add {}/128 dev {DEVICE} nodad", NODES[number]));
    ip(&format!("link set {DEVICE} arp off up mtu {}", mtu(own)));
    let block = NODES[1 - number];
    ip(&format!("route add {block}/112 dev {DEVICE} src {}", NODES[number]));
    let datapath = Datapath::load(options).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let tunnel = Tunnel::to(other.into());
    datapath.tunnels().unwrap().put(&Block::new(block, 112), &tunnel).unwrap();
    let index = ifindex(DEVICE);
    datapath.set_config(&Config::new(&[own.into()], index)).unwrap();
    datapath.attach_overlay(index, DEVICE).unwrap_or_else(|error| panic!("{}", chain(&error)));
    datapath
}

fn prefix(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "24" } else { "64 nodad" }
}

fn mtu(underlay: IpAddr) -> u32 {
    if underlay.is_ipv4() { 1450 } else { 1430 }
}

/// A pod as the agent makes one: no address but its own, and nobody is asked for the gateway.
pub(crate) fn pod(datapath: &Datapath, address: Ipv6Addr, underlay: IpAddr) -> Netns {
    let netns = Netns::new();
    let (text, host, mtu) = ("02:00:00:00:00:07", "02:00:00:00:01:01", mtu(underlay));
    let path = netns.path();
    ip(&format!("link add nk0 address {host} type veth peer name eth0 address {text} netns {path}"));
    netns.run(|| {
        quiet("eth0");
        ip(&format!("address add {address}/128 dev eth0 nodad"));
        ip(&format!("link set eth0 up mtu {mtu}"));
        ip(&format!("neigh replace fe80::1 lladdr {host} dev eth0 nud permanent"));
        ip("route add default via fe80::1 dev eth0");
    });
    quiet("nk0");
    ip(&format!("link set nk0 up mtu {mtu}"));
    ip(&format!("route add {address}/128 dev nk0"));
    ip(&format!("neigh replace {address} lladdr {text} dev nk0 nud permanent"));
    wait_until_up("nk0");
    netns.run(|| wait_until_up("eth0"));
    let index = ifindex("nk0");
    put_pod(datapath, address, (index, MACS.0), (OPEN, OPEN));
    datapath.attach_pod(index, "nk0").unwrap();
    netns
}

fn quiet(device: &str) {
    fs::write(format!("/proc/sys/net/ipv6/conf/{device}/addr_gen_mode"), "1").unwrap();
}

/// Sends back each datagram with the asker's address behind it.
fn echo_at(address: Ipv6Addr, port: u16) {
    let socket = UdpSocket::bind((address, port)).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            let answer = [&buffer[..length], from.ip().to_string().as_bytes()].concat();
            socket.send_to(&answer, from).unwrap();
        }
    });
}

fn ask(from: Ipv6Addr, to: (Ipv6Addr, u16)) -> String {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket.send_to(b"hello ", to).unwrap();
    let mut buffer = [0; 2048];
    let (length, answering) =
        socket.recv_from(&mut buffer).unwrap_or_else(|error| panic!("no answer from {to:?}: {error}"));
    assert_eq!(answering, SocketAddr::from(to));
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn exchange(lab: &Lab, underlay: Underlay) {
    let cluster = &cluster(lab, underlay);
    let Cluster { datapath, pod, peer, remote } = cluster;
    remote.run(|| echo_at(REMOTE, 53));
    assert_eq!(pod.run(|| ask(A, (REMOTE, 53))), format!("hello {A}"));
    assert_eq!(ask(NODES[0], (REMOTE, 53)), format!("hello {}", NODES[0]), "from the node");
    pod.run(|| echo_at(A, 54));
    assert_eq!(remote.run(|| ask(REMOTE, (A, 54))), format!("hello {REMOTE}"));
    assert_eq!(peer.run(|| ask(NODES[1], (A, 54))), format!("hello {}", NODES[1]), "from the other node");
    assert_eq!(ask(NODES[0], (A, 54)), format!("hello {}", NODES[0]), "from the own node");
    let receiver = collect(remote.run(|| TcpListener::bind((REMOTE, 80)).unwrap()));
    let sent = megabyte();
    pod.run(|| TcpStream::connect((REMOTE, 80)).unwrap().write_all(&sent).unwrap());
    assert!(receiver.join().unwrap() == sent, "a stream at full size");
    let mut counts = counted(datapath);
    counts.retain(|reason, _| *reason != Reason::Multicast);
    assert_eq!(counts, HashMap::new());
}

fn forge(lab: &Lab, underlay: Underlay) {
    let cluster = &cluster(lab, underlay);
    let Cluster { datapath, pod, peer, .. } = cluster;
    let listener = pod.run(|| UdpSocket::bind((A, 53)).unwrap());
    listener.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let nobody = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 7, 7);
    let [_, other, third, stranger] = underlay;
    for (story, sender, vni, inner, reason) in [
        ("the owner", other, VNI, REMOTE, None),
        ("another known node", third, VNI, REMOTE, Some(Reason::ForgedTunnel)),
        ("a stranger", stranger, VNI, REMOTE, Some(Reason::ForgedTunnel)),
        ("another network identifier", other, VNI + 1, REMOTE, Some(Reason::ForgedTunnel)),
        ("a source in no block", other, VNI, nobody, Some(Reason::UnknownSource)),
        ("a source in our own block", other, VNI, B, Some(Reason::UnknownSource)),
        ("a source outside the cluster", other, VNI, OUTSIDE, Some(Reason::UnknownSource)),
    ] {
        let mac = ([2, 0, 0, 0, 9, 9], MACS.0);
        let frame = Ip6 { mac, ..with_checksum((inner, 4000), (A, 53)) }.frame();
        let before = counted(datapath);
        let outer = vxlan(vni, &frame);
        peer.run(|| UdpSocket::bind((sender, 0)).unwrap().send_to(&outer, (underlay[0], PORT)).unwrap());
        let heard = listener.recv_from(&mut [0; 256]).is_ok();
        let mut counts = counted(datapath);
        counts.retain(|reason, count| before.get(reason) != Some(count) && *reason != Reason::Multicast);
        let expected: HashMap<_, _> =
            reason.iter().map(|reason| (*reason, before.get(reason).unwrap_or(&0) + 1)).collect();
        assert_eq!((heard, counts), (reason.is_none(), expected), "{story} over {sender}");
    }
}

/// A datagram with a checksum, which IPv6 asks for.
pub(super) fn with_checksum(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16)) -> Ip6 {
    let mut datagram = datagram(from, to);
    let length = u16::try_from(datagram.payload.len()).unwrap();
    let pseudo = [
        &from.0.octets()[..],
        &to.0.octets(),
        &[0, 0],
        &length.to_be_bytes(),
        &[0, 0, 0, UDP],
        &datagram.payload,
    ]
    .concat();
    let sum = crate::packet::checksum(&pseudo);
    datagram.payload[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

#[test]
fn pods_and_nodes_reach_each_other_over_ipv4() {
    isolated(|lab| exchange(lab, FOUR));
}

#[test]
fn pods_and_nodes_reach_each_other_over_ipv6() {
    isolated(|lab| exchange(lab, SIX));
}

#[test]
fn only_the_owner_of_a_source_is_believed_over_ipv4() {
    isolated(|lab| forge(lab, FOUR));
}

#[test]
fn only_the_owner_of_a_source_is_believed_over_ipv6() {
    isolated(|lab| forge(lab, SIX));
}
