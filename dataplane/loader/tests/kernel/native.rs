//! Between nodes without the tunnel: which way a packet takes, what is let in from the underlay, and changes of the way under traffic.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use netkeel_dataplane_loader::{
    Datapath, Table,
    common::{
        Address, Reason,
        endpoints::Endpoint,
        links::Link,
        policies::{CLOSED, OPEN},
        tunnels::{Block, Tunnel},
    },
};

use crate::{
    ipv6,
    lab::{Lab, Netns, counted, ifindex, ip, isolated, send_frame, wait_until_up},
    overlay::{self, Cluster, NODE, OVERLAY, PEER, POD, REMOTE, REMOTE_NODE},
    packet::{Ip, Ip6, Mac, ethernet},
    pods::{PATIENCE, Pod, ask, echo},
    scene::{
        HOST_MAC,
        Outcome::{Drop, Next, Redirect},
        Packet, SYN, Scene,
    },
};

const SECOND: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 8);

/// The ways of a node to a block, and what it lets in from the underlay, in one family.
fn judge<P: Packet>(scene: &Scene<P>) {
    const OTHER_HOST: Mac = [2, 0, 0, 0, 9, 8];
    let (block, [peer, _]) = P::remote();
    let uplink = ifindex("vx1");
    let send_by = |tunnel| scene.datapath.tunnels().unwrap().put(&block, &tunnel).unwrap();
    let (node, gateway) = (Tunnel::to(peer.into()), peer.into());
    let segment = |from, to| P::segment((from, 4000), (to, 80), SYN);
    let arrive_at = |mac, from, to| scene.arrive(&segment(from, to), mac);
    let arrive = |from, to| arrive_at(HOST_MAC, from, to);
    for (way, tunnel, out, inward) in [
        ("tunnel", node, Redirect, Redirect),
        ("next hop", node.direct(gateway, uplink), Redirect, Redirect),
        ("host stack", node.by_stack(), Next, Next),
    ] {
        send_by(tunnel);
        scene.a(OPEN, OPEN);
        scene.b(CLOSED, CLOSED);
        assert_eq!(scene.send(&segment(P::A, P::REMOTE)), out, "{way}: to the remote pod");
        let denied = Drop(Reason::PolicyEgress);
        assert_eq!(scene.send(&segment(P::B, P::REMOTE)), denied, "{way}: egress is asked");
        assert_eq!(arrive(P::REMOTE, P::A), inward, "{way}: the remote pod's, tunnelled or not");
        let denied = Drop(Reason::PolicyIngress);
        // The host stack hands it to `to_pod`, which asks then: once in either case.
        let at_once = if inward == Next { Next } else { denied };
        assert_eq!(arrive(P::REMOTE, P::B), at_once, "{way}: ingress is asked");
        assert_eq!(scene.forward(&segment(P::REMOTE, P::B)), denied, "{way}: ingress is asked by to_pod");
        assert_eq!(arrive(P::OUTSIDE, P::A), Next, "{way}: masquerading has to see what comes from outside");
        assert_eq!(arrive(P::REMOTE, P::OUTSIDE), Next, "{way}: not for a pod of this node");
        assert_eq!(arrive_at(OTHER_HOST, P::REMOTE, P::A), Next, "{way}: not for this host");
        for to in [P::A, P::REMOTE, P::OUTSIDE] {
            for mac in [HOST_MAC, [0xff; 6], [0x33, 0x33, 0, 0, 0, 1], OTHER_HOST] {
                let outcome = arrive_at(mac, P::B, to);
                let spoofed = Drop(Reason::SpoofedSource);
                assert_eq!(outcome, spoofed, "{way}: in the name of an own pod to {mac:?}");
            }
        }
    }
    scene.a(OPEN, OPEN);
    scene.b(OPEN, OPEN);
    let forged = segment(P::B, P::A);
    assert_eq!(scene.forward(&forged), Drop(Reason::SpoofedSource), "over another device, to a pod");
    assert_eq!(scene.deliver(&forged, scene.links.1), Next, "over its own link it is the pod's");
}

#[test]
fn each_way_out_is_taken_and_every_way_in_is_judged_once() {
    isolated(|lab| judge(&Scene::<Ip>::new(lab)));
}

#[test]
fn each_way_out_is_taken_and_every_way_in_is_judged_once_in_ipv6() {
    isolated(|lab| judge(&Scene::<Ip6>::new(lab)));
}

/// Makes this namespace send to the other node's block as to a next hop, or through the tunnel.
pub(crate) fn send(datapath: &Datapath, (third, node, overlay): (u8, Ipv4Addr, Ipv4Addr), direct: bool) {
    let tunnel = Tunnel::to(node.into());
    let (tunnel, way) = if direct {
        (tunnel.direct(node.into(), ifindex("wire")), format!("via {node} dev wire"))
    } else {
        (tunnel, "dev netkeel.vxlan".to_owned())
    };
    datapath.tunnels().unwrap().put(&Block::new(Ipv4Addr::new(10, 244, third, 0), 24), &tunnel).unwrap();
    ip(&format!("route replace 10.244.{third}.0/24 {way} src {overlay}"));
}

pub(crate) const TO_PEER: (u8, Ipv4Addr, Ipv4Addr) = (1, PEER, OVERLAY);
pub(crate) const FROM_PEER: (u8, Ipv4Addr, Ipv4Addr) = (0, NODE, REMOTE_NODE);

/// Two nodes on one subnet that are strict and forward nothing: what arrives was sent on by the programs.
pub(crate) fn cluster(lab: &Lab) -> Cluster {
    let cluster = overlay::cluster(lab);
    let strict = |datapath: &Datapath| {
        for (key, value) in [("ip_forward", "0"), ("conf/all/rp_filter", "1"), ("conf/wire/rp_filter", "1")] {
            fs::write(format!("/proc/sys/net/ipv4/{key}"), value).unwrap();
        }
        datapath.attach_underlay(&[(ifindex("wire"), "wire".to_owned())]).unwrap();
    };
    strict(&cluster.datapath);
    cluster.peer.run(|| strict(&cluster.peers_datapath));
    cluster
}

#[test]
fn pods_and_node_processes_of_one_subnet_reach_each_other_without_tunnel_and_host_stack() {
    isolated(|lab| {
        let cluster = &cluster(lab);
        let Cluster { datapath, peer, peers_datapath, pod, remote } = cluster;
        send(datapath, TO_PEER, true);
        peer.run(|| send(peers_datapath, FROM_PEER, true));
        ip("link set netkeel.vxlan down");
        remote.netns.run(|| echo(REMOTE, 53));
        pod.netns.run(|| echo(POD, 54));
        assert_eq!(pod.ask((REMOTE, 53), b"hello ").0, b"hello 10.244.0.7");
        assert_eq!(remote.ask((POD, 54), b"hello ").0, b"hello 10.244.1.9");
        ip("link set netkeel.vxlan up");
        ip(&format!("route replace 10.244.1.0/24 via {PEER} dev wire src {OVERLAY}"));
        let from_node = ask(Ipv4Addr::UNSPECIFIED, (REMOTE, 53).into(), b"hello ");
        assert_eq!(from_node.0, b"hello 10.244.0.1", "from the address that it has on every way");
        assert_eq!(
            peer.run(|| ask(Ipv4Addr::UNSPECIFIED, (POD, 54).into(), b"hello ")).0,
            b"hello 10.244.1.1"
        );
        assert!(counted(datapath).is_empty() && counted(peers_datapath).is_empty());
    });
}

#[test]
fn nobody_on_the_underlay_speaks_in_the_name_of_a_pod_of_this_node() {
    isolated(|lab| {
        let cluster = &cluster(lab);
        let Cluster { datapath, peer, pod, remote, .. } = cluster;
        let second = Pod::add(datapath, SECOND);
        // The nodes know each other's MAC addresses from then on: nobody answers ARP in the name of the pod.
        remote.netns.run(|| echo(REMOTE, 53));
        pod.ask((REMOTE, 53), b"hello ");
        let listeners = [
            second.netns.run(|| UdpSocket::bind((SECOND, 53)).unwrap()),
            UdpSocket::bind((NODE, 53)).unwrap(),
        ];
        peer.run(|| {
            ip(&format!("address add {POD}/32 dev lo"));
            ip(&format!("route add {SECOND}/32 via {NODE} dev wire"));
            let socket = UdpSocket::bind((POD, 4000)).unwrap();
            for to in [SECOND, NODE] {
                socket.send_to(b"forged", (to, 53)).unwrap();
            }
        });
        for listener in listeners {
            listener.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            assert!(listener.recv(&mut [0; 64]).is_err(), "{listener:?}");
        }
        assert_eq!(counted(datapath).get(&Reason::SpoofedSource), Some(&2));
        second.netns.run(|| echo(SECOND, 54));
        assert_eq!(pod.ask((SECOND, 54), b"hello ").0, b"hello 10.244.0.7", "the pod itself is heard");
    });
}

#[test]
fn a_frame_of_a_vlan_is_not_the_interfaces() {
    isolated(|lab| {
        let cluster = &cluster(lab);
        let packet = Ip::segment((POD, 4000), (REMOTE, 80), SYN).packet();
        let macs = ([2, 0, 0, 0, 9, 9], [0xff; 6]);
        let tagged = ethernet(macs, 0x8100, &[&[0, 5, 8, 0], &packet[..]].concat());
        // Frames stay in their order: when the second was counted, the first had been seen.
        cluster.peer.run(|| {
            for frame in [tagged, ethernet(macs, 0x0800, &packet)] {
                send_frame("wire", &frame);
            }
        });
        let until = Instant::now() + PATIENCE;
        while counted(&cluster.datapath).is_empty() && Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(counted(&cluster.datapath), HashMap::from([(Reason::SpoofedSource, 1)]));
    });
}

/// Answers go through pods that let in, or out, nothing but answers.
#[test]
fn a_connection_goes_on_while_each_node_changes_its_way_by_itself() {
    isolated(|lab| {
        let cluster = &cluster(lab);
        let Cluster { datapath, peer, peers_datapath, pod, remote } = cluster;
        let endpoint = Endpoint::new(pod.link, CLOSED);
        datapath.endpoints().unwrap().put(&Address::from(POD), &endpoint).unwrap();
        let link = Link::new(REMOTE.into(), remote.mac, CLOSED);
        peers_datapath.links().unwrap().put(&remote.link, &link).unwrap();

        let listener = remote.netns.run(|| TcpListener::bind((REMOTE, 80)).unwrap());
        thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut number = [0; 8];
            while stream.read_exact(&mut number).is_ok() {
                stream.write_all(&number).unwrap();
            }
        });
        let mut stream = pod.netns.run(|| TcpStream::connect((REMOTE, 80)).unwrap());
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let exchange = scope.spawn(|| {
                let mut number = 0_u64;
                while !over.load(Ordering::Relaxed) {
                    stream.write_all(&number.to_be_bytes()).unwrap();
                    let mut back = [0; 8];
                    // Shorter than the time after which TCP would send again: nothing is lost.
                    stream.read_exact(&mut back).unwrap_or_else(|error| panic!("number {number}: {error}"));
                    assert_eq!(u64::from_be_bytes(back), number);
                    number += 1;
                }
                number
            });
            for (own, others) in [(true, false), (true, true), (false, true), (false, false)].repeat(10) {
                send(datapath, TO_PEER, own);
                peer.run(|| send(peers_datapath, FROM_PEER, others));
                thread::sleep(Duration::from_millis(20));
            }
            over.store(true, Ordering::Relaxed);
            let numbers = exchange.join().unwrap();
            assert!(numbers > 1000, "{numbers} in 0.8 s");
        });
        assert!(counted(datapath).is_empty() && counted(peers_datapath).is_empty());
    });
}

#[test]
fn an_interface_that_carries_nothing_more_loses_the_program_and_a_new_one_gets_it() {
    isolated(|lab| {
        let datapath = lab.load();
        for device in ["eth0", "eth1", "eth.1", "eth_1"] {
            ip(&format!("link add {device} type veth peer name {device}-peer"));
        }
        let device = |name: &str| (ifindex(name), name.to_owned());
        let pinned = || {
            let links = netkeel_dataplane_loader::pinned_links(&lab.options.bpffs).unwrap();
            let mut names: Vec<_> = links
                .into_iter()
                .map(|link| link.name)
                .filter(|name| name.starts_with("from_underlay"))
                .collect();
            names.sort();
            names
        };
        datapath.attach_underlay(&[device("eth0"), device("eth1")]).unwrap();
        assert_eq!(pinned(), ["from_underlay-eth0", "from_underlay-eth1"]);
        datapath.attach_underlay(&[device("eth1")]).unwrap();
        assert_eq!(pinned(), ["from_underlay-eth1"]);
        ip("link del eth1");
        ip("link add eth1 type veth peer name eth1-peer");
        datapath.attach_underlay(&[device("eth1")]).unwrap();
        let links = netkeel_dataplane_loader::pinned_links(&lab.options.bpffs).unwrap();
        assert!(links.iter().any(|link| link.name == "from_underlay-eth1" && link.attached), "{links:?}");
        datapath.attach_underlay(&[device("eth.1"), device("eth_1")]).unwrap();
        assert_eq!(pinned(), ["from_underlay-eth:1", "from_underlay-eth_1"]);
        lab.load().attach_underlay(&[device("eth_1")]).unwrap();
        assert_eq!(pinned(), ["from_underlay-eth:1"], "that of eth.1 is gone");
    });
}

/// Two nodes with IPv6 next to each other: the next hop is of the packets' family.
#[test]
fn ipv6_pods_of_one_subnet_reach_each_other_as_next_hops() {
    isolated(|lab| {
        let peer = Netns::new();
        ip(&format!("link add wire type veth peer name wire netns {}", peer.path()));
        let nodes = [1, 2].map(|n| Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, n));
        let pods = [0, 1].map(|n| Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, n, 7));
        let other = lab.other_node();
        let own = native6(&lab.load(), 0, nodes, pods);
        let remote = peer.run(|| {
            let datapath = Datapath::load(&other).unwrap();
            let remote = native6(&datapath, 1, nodes, pods);
            wait_until_up("wire");
            remote
        });
        wait_until_up("wire");
        let server = remote.run(|| UdpSocket::bind((pods[1], 53)).unwrap());
        server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let client = own.run(|| UdpSocket::bind((pods[0], 4000)).unwrap());
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        client.send_to(b"there", (pods[1], 53)).unwrap();
        let from = server.recv_from(&mut [0; 64]).unwrap().1;
        assert_eq!(from.ip(), pods[0]);
        server.send_to(b"back", from).unwrap();
        assert_eq!(client.recv(&mut [0; 64]).unwrap(), 4);
    });
}

/// Makes this namespace the node with this number, and gives it a pod.
fn native6(datapath: &Datapath, number: usize, nodes: [Ipv6Addr; 2], pods: [Ipv6Addr; 2]) -> Netns {
    for (key, value) in [("all/forwarding", "0"), ("wire/accept_dad", "0")] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{key}"), value).unwrap();
    }
    ip(&format!("address add {}/64 dev wire nodad", nodes[number]));
    ip("link set wire up");
    let netns = ipv6::pod(datapath, pods[number], nodes[number].into());
    let peer = nodes[1 - number].into();
    let tunnel = Tunnel::to(peer).direct(peer, ifindex("wire"));
    let mut block = pods[1 - number].octets();
    block[15] = 0;
    datapath.tunnels().unwrap().put(&Block::new(Ipv6Addr::from(block), 112), &tunnel).unwrap();
    datapath.attach_underlay(&[(ifindex("wire"), "wire".to_owned())]).unwrap();
    netns
}
