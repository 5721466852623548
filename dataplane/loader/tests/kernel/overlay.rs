//! The overlay between two nodes in namespaces, both with the programs. Forged packets are written by hand into
//! datagrams that one node sends the other.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use netkeel_dataplane_loader::{
    Datapath, Options, Table,
    common::{
        Address, Config, Reason, VNI,
        tunnels::{Block, Tunnel},
    },
};

use crate::{
    lab::{Lab, Netns, chain, counted, ifindex, ip, isolated, wait_until_up},
    packet::{Datagram, decode, vxlan},
    pods::{Pod, ask, collect, echo, megabyte},
};

pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
/// Another known node, and an address that is no node's; the peer has both.
pub(crate) const THIRD: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 3);
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 4);
pub(crate) const OVERLAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
pub(crate) const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 7);
pub(crate) const REMOTE_NODE: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
pub(crate) const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 9);
pub(crate) const PORT: u16 = 8472;
const DEVICE: &str = "netkeel.vxlan";

pub(crate) struct Cluster {
    pub(crate) datapath: Datapath,
    pub(crate) pod: Pod,
    /// The other node's namespace and programs.
    pub(crate) peer: Netns,
    pub(crate) peers_datapath: Datapath,
    pub(crate) remote: Pod,
}

/// A node with a pod in this namespace, and another in a namespace of its own. Addresses `10.244.<number>.0/24`.
pub(crate) fn cluster(lab: &Lab) -> Cluster {
    let peer = Netns::new();
    ip(&format!("link add wire type veth peer name wire netns {}", peer.path()));
    let datapath = node(&lab.options, &[NODE], OVERLAY, &[(1, PEER), (2, THIRD)]);
    let pod = Pod::add(&datapath, POD);
    let other = lab.other_node();
    let (peers_datapath, remote) = peer.run(|| {
        let datapath = node(&other, &[PEER, THIRD, STRANGER], REMOTE_NODE, &[(0, NODE)]);
        wait_until_up("wire");
        let remote = Pod::add(&datapath, REMOTE);
        (datapath, remote)
    });
    wait_until_up("wire");
    Cluster { datapath, pod, peer, peers_datapath, remote }
}

/// Makes this namespace a node that has `overlay` and reaches other nodes' blocks.
fn node(options: &Options, addresses: &[Ipv4Addr], overlay: Ipv4Addr, blocks: &[(u8, Ipv4Addr)]) -> Datapath {
    for address in addresses {
        ip(&format!("address add {address}/24 dev wire"));
    }
    ip("link set wire up");
    ip(&format!("link add {DEVICE} type vxlan external dstport {PORT} nolearning"));
    fs::write(format!("/proc/sys/net/ipv6/conf/{DEVICE}/disable_ipv6"), "1").unwrap();
    ip(&format!("address add {overlay}/32 dev {DEVICE}"));
    ip(&format!("link set {DEVICE} arp off up mtu 1450"));
    ip(&format!("route add 10.244.9.0/24 dev {DEVICE} src {overlay}"));
    let datapath = Datapath::load(options).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let mut tunnels = datapath.tunnels().unwrap();
    for (third, owner) in blocks {
        ip(&format!("route add 10.244.{third}.0/24 dev {DEVICE} src {overlay}"));
        let block = Block::new(Ipv4Addr::new(10, 244, *third, 0), 24);
        tunnels.put(&block, &Tunnel::to((*owner).into())).unwrap();
    }
    let index = ifindex(DEVICE);
    datapath.set_config(&Config::new(&[Address::from(addresses[0])], index)).unwrap();
    datapath.attach_overlay(index, DEVICE).unwrap_or_else(|error| panic!("{}", chain(&error)));
    datapath
}

#[test]
fn pods_of_two_nodes_reach_each_other() {
    isolated(|lab| {
        let cluster = &cluster(lab);
        let Cluster { datapath, pod, remote, .. } = cluster;
        remote.netns.run(|| echo(REMOTE, 53));
        let (answer, from) = pod.ask((REMOTE, 53), b"hello ");
        assert_eq!((answer, from), (b"hello 10.244.0.7".to_vec(), (REMOTE, 53).into()));
        pod.netns.run(|| echo(POD, 54));
        assert_eq!(remote.ask((POD, 54), b"hello ").0, b"hello 10.244.1.9");
        assert_eq!(counted(datapath), HashMap::new());
    });
}

#[test]
fn streams_between_nodes_pass_at_full_size() {
    isolated(|lab| {
        let cluster = &cluster(lab);
        let Cluster { pod, remote, .. } = cluster;
        let receiver = collect(remote.netns.run(|| TcpListener::bind((REMOTE, 80)).unwrap()));
        let sent = megabyte();
        pod.netns.run(|| TcpStream::connect((REMOTE, 80)).unwrap().write_all(&sent).unwrap());
        assert!(receiver.join().unwrap() == sent);
    });
}

#[test]
fn processes_of_the_node_reach_remote_pods_and_are_reached() {
    isolated(|lab| {
        let cluster = &cluster(lab);
        let Cluster { peer, pod, remote, .. } = cluster;
        remote.netns.run(|| echo(REMOTE, 53));
        let answer = ask(Ipv4Addr::UNSPECIFIED, (REMOTE, 53).into(), b"hello ");
        assert_eq!(answer, (b"hello 10.244.0.1".to_vec(), (REMOTE, 53).into()));
        echo(OVERLAY, 54);
        assert_eq!(remote.ask((OVERLAY, 54), b"hello ").0, b"hello 10.244.1.9");
        let between_nodes = peer.run(|| ask(Ipv4Addr::UNSPECIFIED, (OVERLAY, 54).into(), b"hello "));
        assert_eq!(between_nodes.0, b"hello 10.244.1.1");
        pod.netns.run(|| echo(POD, 55));
        assert_eq!(peer.run(|| ask(REMOTE_NODE, (POD, 55).into(), b"hello ")).0, b"hello 10.244.1.1");
    });
}

#[test]
fn a_destination_without_an_owner_does_not_leave_the_node() {
    isolated(|lab| {
        let cluster = &cluster(lab);
        let Cluster { datapath, .. } = cluster;
        let socket = UdpSocket::bind((OVERLAY, 0)).unwrap();
        socket.send_to(b"lost", (Ipv4Addr::new(10, 244, 9, 9), 53)).unwrap();
        assert_eq!(counted(datapath).get(&Reason::NoTunnel), Some(&1));
    });
}

#[test]
fn only_the_owner_of_a_source_is_believed() {
    isolated(|lab| {
        let cluster = &cluster(lab);
        let Cluster { datapath, peer, pod, .. } = cluster;
        let listener = pod.netns.run(|| UdpSocket::bind((POD, 53)).unwrap());
        listener.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let nobody = Ipv4Addr::new(10, 244, 7, 7);
        let other_pod = Ipv4Addr::new(10, 244, 0, 8);
        for (story, outer, vni, inner, reason) in [
            ("the owner", PEER, VNI, REMOTE, None),
            ("another known node", THIRD, VNI, REMOTE, Some(Reason::ForgedTunnel)),
            ("a stranger", STRANGER, VNI, REMOTE, Some(Reason::ForgedTunnel)),
            ("another network identifier", PEER, VNI + 1, REMOTE, Some(Reason::ForgedTunnel)),
            ("a source in no block", PEER, VNI, nobody, Some(Reason::UnknownSource)),
            ("a source in our own block", PEER, VNI, other_pod, Some(Reason::UnknownSource)),
            (
                "a source outside the cluster",
                PEER,
                VNI,
                Ipv4Addr::new(192, 0, 2, 1),
                Some(Reason::UnknownSource),
            ),
        ] {
            let frame = Datagram {
                mac: ([2, 0, 0, 0, 9, 9], pod.mac),
                from: (inner, 4000),
                to: (POD, 53),
                payload: story.as_bytes().to_vec(),
            }
            .frame();
            let before = counted(datapath);
            let outer_payload = vxlan(vni, &frame);
            peer.run(|| UdpSocket::bind((outer, 0)).unwrap().send_to(&outer_payload, (NODE, PORT)).unwrap());
            let mut buffer = [0; 256];
            let heard = listener.recv_from(&mut buffer).ok();
            let mut counts = counted(datapath);
            counts.retain(|reason, count| before.get(reason) != Some(count));
            let expected: HashMap<_, _> =
                reason.iter().map(|reason| (*reason, before.get(reason).unwrap_or(&0) + 1)).collect();
            let context = format!("{story}: outer {outer} vni {vni}, inner {}", decode(&frame));
            assert_eq!(heard.is_some(), reason.is_none(), "{context}");
            assert_eq!(counts, expected, "{context}");
        }
    });
}
