//! A pod whose link is larger than the tunnel hears so: the answers byte by byte, and what sockets make of them.

use std::{
    collections::HashMap,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use netkeel_dataplane_loader::{
    Datapath, Table,
    common::{
        Config, Reason,
        policies::{CLOSED, OPEN},
        tunnels::Tunnel,
    },
};

use crate::{
    lab::{Lab, Netns, counted, ifindex, isolated, option, set_option, with_checksums},
    overlay::{self, NODE, PEER, REMOTE},
    packet::{Ip, Ip6, checksum, icmp, icmp6, tcp, udp},
    pods::{collect, megabyte},
    scene::{
        HOST_MAC, MACS,
        Outcome::{Drop, Next, Redirect},
        Packet, SYN, Scene, TCP, UDP,
    },
};

const MTU: u32 = 1300;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const REMOTE6: Ipv6Addr = <Ip6 as Packet>::REMOTE;

/// A packet of `size` bytes from A.
fn four(protocol: u8, transport: &[u8], size: u32) -> Ip {
    let mut payload = transport.to_vec();
    payload.resize(size as usize - 20, 7);
    let (from, to, fragment) = (<Ip as Packet>::A, REMOTE, DONT_FRAGMENT);
    Ip { mac: (MACS.0, HOST_MAC), from, to, protocol, id: 1, fragment, options: Vec::new(), payload }
}

fn six(next: u8, transport: &[u8], size: u32) -> Ip6 {
    let mut payload = transport.to_vec();
    payload.resize(size as usize - 40, 7);
    Ip6 { mac: (MACS.0, HOST_MAC), from: <Ip6 as Packet>::A, to: REMOTE6, hop_limit: 64, next, payload }
}

/// A scene whose tunnel carries packets of [`MTU`] bytes.
fn scene<P: Packet>(lab: &Lab) -> Scene<P> {
    let scene = Scene::new(lab);
    scene.a(CLOSED, OPEN);
    let (_, [_, own]) = P::remote();
    let config = Config::new(&[own.into()], ifindex("vx0")).with_mtu(MTU);
    scene.datapath.set_config(&config).unwrap();
    scene
}

/// What A hears of a frame of its own that is too big.
fn answer<P>(scene: &Scene<P>, frame: &[u8], story: &str) -> Vec<u8> {
    const REDIRECTED: i32 = 7;
    let count = || counted(&scene.datapath).get(&Reason::TooBig).copied().unwrap_or_default();
    let before = count();
    let verdict = scene.datapath.dry_run("from_pod", frame, scene.links.0).unwrap();
    assert_eq!((verdict.action, count()), (REDIRECTED, before + 1), "{story}");
    verdict.frame
}

/// Asserts that `answer` is what a router says of `sent`, IPv4.
fn is_answer4(sent: &[u8], answer: &[u8], story: &str) {
    assert_eq!(answer.len(), 14 + 28 + 80, "{story}");
    let (ip, body) = (&answer[14..34], &answer[34..]);
    assert_eq!((ip[0], ip[9], &ip[12..16]), (0x45, 1, &[169, 254, 1, 1][..]), "{story}");
    assert_eq!(ip[16..20], sent[26..30], "{story}: to the sender");
    assert_eq!(u16::from_be_bytes([ip[2], ip[3]]), 108, "{story}");
    assert_eq!((checksum(ip), checksum(body)), (0, 0), "{story}: checksums");
    assert_eq!((body[0], body[1], &body[4..8]), (3, 4, &MTU.to_be_bytes()[..]), "{story}");
    assert_eq!(body[8..], sent[14..94], "{story}: quoted");
}

/// The same, IPv6.
fn is_answer6(sent: &[u8], answer: &[u8], story: &str) {
    assert_eq!(answer.len(), 14 + 48 + 128, "{story}");
    let (ip, body) = (&answer[14..54], &answer[54..]);
    let gateway: Ipv6Addr = "fe80::1".parse().unwrap();
    assert_eq!(
        (ip[0], ip[4..7].to_vec(), &ip[8..24]),
        (0x60, vec![0, 136, 58], &gateway.octets()[..]),
        "{story}"
    );
    assert_eq!(ip[24..40], sent[22..38], "{story}: to the sender");
    let pseudo = [&ip[8..40], &136_u32.to_be_bytes(), &58_u32.to_be_bytes(), body].concat();
    assert_eq!(checksum(&pseudo), 0, "{story}: the checksum");
    assert_eq!((body[0], body[1], &body[4..8]), (2, 0, &MTU.to_be_bytes()[..]), "{story}");
    assert_eq!(body[8..], sent[14..142], "{story}: quoted");
}

#[test]
fn a_packet_that_is_too_big_is_answered_and_the_largest_that_fits_passes() {
    isolated(|lab| {
        let scene = &scene::<Ip>(lab);
        for (story, protocol, transport) in [
            ("a segment", TCP, tcp((4000, 80), SYN)),
            ("a datagram", UDP, udp((4000, 53), b"")),
            ("an echo", 1, icmp(8, 7, b"")),
            ("a protocol without ports", 132, vec![0; 12]),
        ] {
            let packet = four(protocol, &transport, MTU);
            assert_eq!(scene.send(&packet), Redirect, "{story}");
            let first = Ip { fragment: MORE_FRAGMENTS | DONT_FRAGMENT, ..packet };
            assert_eq!(scene.send(&first), Redirect, "{story}");
            let packet = four(protocol, &transport, MTU + 1);
            for packet in [
                Ip { options: vec![1; 40], payload: packet.payload[..1250].to_vec(), ..packet.clone() },
                Ip { fragment: MORE_FRAGMENTS | DONT_FRAGMENT, ..packet.clone() },
                packet,
            ] {
                let frame = packet.frame();
                is_answer4(&frame, &answer(scene, &frame, story), story);
            }
        }
    });
}

#[test]
fn a_packet_of_ipv6_that_is_too_big_is_answered_and_the_largest_that_fits_passes() {
    isolated(|lab| {
        let scene = &scene::<Ip6>(lab);
        for (story, protocol, transport) in [
            ("a segment", TCP, tcp((4000, 80), SYN)),
            ("a datagram", UDP, udp((4000, 53), b"")),
            ("an echo", 58, icmp6(128, 7, b"")),
            (
                "a segment behind options",
                60,
                [&[TCP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &*tcp((4001, 80), SYN)].concat(),
            ),
        ] {
            assert_eq!(scene.send(&six(protocol, &transport, MTU)), Redirect, "{story}");
            let frame = six(protocol, &transport, MTU + 1).frame();
            is_answer6(&frame, &answer(scene, &frame, story), story);
        }
    });
}

#[test]
fn what_may_not_be_answered_is_dropped_and_what_may_be_fragmented_passes_over_ipv4() {
    isolated(|lab| {
        let scene = &scene::<Ip>(lab);
        let datagram = four(UDP, &udp((4000, 53), b""), 1400);
        let first = Ip { fragment: MORE_FRAGMENTS, ..datagram.clone() };
        let later = Ip { fragment: 172, ..datagram.clone() };
        let unwilling = Ip { fragment: later.fragment | DONT_FRAGMENT, ..later.clone() };
        let whole = Ip { fragment: 0, ..datagram };
        let quoted = [&icmp(3, 0, b"")[..], &four(UDP, &udp((53, 4000), b""), 28).packet()].concat();
        for (story, packet, outcome) in [
            ("without the flag", &whole, Redirect),
            ("a first fragment", &first, Redirect),
            ("a later one", &later, Redirect),
            ("a later one that says no", &unwilling, Drop(Reason::TooBig)),
            ("an error", &four(1, &quoted, 1400), Drop(Reason::TooBig)),
        ] {
            assert_eq!(scene.send(packet), outcome, "{story}");
        }
        let (block, _) = Ip::remote();
        let six: IpAddr = "fd00:18::2".parse().unwrap();
        scene.datapath.tunnels().unwrap().put(&block, &Tunnel::to(six.into())).unwrap();
        let (frame, story) = (whole.frame(), "nothing is fragmented over IPv6");
        is_answer4(&frame, &answer(scene, &frame, story), story);
    });
}

/// It cuts what may be cut, and answers for the rest.
#[test]
fn what_does_not_fit_on_the_way_to_a_next_hop_is_the_host_stacks() {
    isolated(|lab| {
        let scene = &scene::<Ip>(lab);
        let (block, [peer, own]) = Ip::remote();
        let direct = Tunnel::to(peer.into()).direct(peer.into(), ifindex("vx1"));
        scene.datapath.tunnels().unwrap().put(&block, &direct).unwrap();
        let small = four(UDP, &udp((4000, 53), b""), MTU + 4);
        let large = four(UDP, &udp((4000, 53), b""), MTU + 24);
        assert_eq!(scene.send(&large), Redirect, "no limit is known");
        let config = Config::new(&[own.into()], ifindex("vx0")).with_mtu(MTU).with_direct_mtu(MTU + 4);
        scene.datapath.set_config(&config).unwrap();
        assert_eq!(scene.send(&small), Redirect, "the overlay's limit is not the interface's");
        for fragment in [0, DONT_FRAGMENT] {
            assert_eq!(scene.send(&Ip { fragment, ..large.clone() }), Next, "{fragment:x}");
        }
    });
}

#[test]
fn nobody_is_told_what_policy_forbids_to_send_or_what_another_sends() {
    isolated(|lab| {
        let scene = &scene::<Ip>(lab);
        scene.a(CLOSED, CLOSED);
        let packet = four(UDP, &udp((4000, 53), b""), 1400);
        assert_eq!(scene.send(&packet), Drop(Reason::PolicyEgress), "forbidden");
        scene.a(CLOSED, OPEN);
        let forged = Ip { from: <Ip as Packet>::B, ..packet }.frame();
        let outcome = scene.run("from_pod", &forged, scene.links.0.into());
        assert_eq!(outcome, Drop(Reason::SpoofedSource), "of another's address");
    });
}

/// Two nodes with pods whose links are larger than the tunnel between them.
fn narrowed(lab: &Lab) -> overlay::Cluster {
    let cluster = overlay::cluster(lab);
    let narrow = |datapath: &Datapath, node: Ipv4Addr| {
        let config = Config::new(&[node.into()], ifindex("netkeel.vxlan")).with_mtu(MTU);
        datapath.set_config(&config).unwrap();
    };
    narrow(&cluster.datapath, NODE);
    cluster.peer.run(|| narrow(&cluster.peers_datapath, PEER));
    cluster
}

const PATH_MTU: (i32, i32) = (libc::IPPROTO_IP, libc::IP_MTU);

#[test]
fn a_stream_goes_on_through_a_tunnel_that_is_smaller_than_the_pods_link() {
    isolated(|lab| {
        let cluster = &narrowed(lab);
        let (pod, remote) = (&cluster.pod, &cluster.remote);
        let receiver = collect(remote.netns.run(|| TcpListener::bind((REMOTE, 80)).unwrap()));
        let sent = megabyte();
        let mut stream = pod.netns.run(|| TcpStream::connect((REMOTE, 80)).unwrap());
        stream.write_all(&sent).unwrap();
        assert_eq!(option(&stream, PATH_MTU), MTU.cast_signed());
        drop(stream);
        assert!(receiver.join().unwrap() == sent);
        let mut counts = counted(&cluster.datapath);
        let told = counts.remove(&Reason::TooBig).unwrap_or_default();
        assert_eq!(counts, HashMap::new());
        assert!((1..20).contains(&told), "told {told} times: once for what was in flight");
    });
}

/// Sends until the kernel says that a datagram is too long, as it does when the pod was told and not before.
fn until_refused(netns: &Netns, (from, to): (SocketAddr, SocketAddr), discover: (i32, i32), mtu: (i32, i32)) {
    const ALWAYS: i32 = 2;
    let socket = netns.run(|| {
        with_checksums("eth0");
        UdpSocket::bind(from).unwrap()
    });
    set_option(&socket, discover, ALWAYS);
    socket.connect(to).unwrap();
    assert_eq!(socket.send(&[7; 1350]).unwrap(), 1350, "the first is lost");
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        match socket.send(&[7; 1350]) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => break,
            sent => assert!(Instant::now() < until, "nobody told the pod: {sent:?}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(option(&socket, mtu), MTU.cast_signed());
}

#[test]
fn a_datagram_that_is_too_big_is_lost_once_and_then_refused() {
    isolated(|lab| {
        let cluster = &narrowed(lab);
        let ends = ((cluster.pod.address, 0).into(), (REMOTE, 53).into());
        until_refused(&cluster.pod.netns, ends, (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), PATH_MTU);
    });
}

#[test]
fn a_datagram_of_ipv6_that_is_too_big_is_lost_once_and_then_refused() {
    isolated(|lab| {
        let cluster = &crate::ipv6::two_nodes(lab);
        let config = Config::new(&[NODE.into()], ifindex("netkeel.vxlan")).with_mtu(MTU);
        cluster.datapath.set_config(&config).unwrap();
        let ends = ((<Ip6 as Packet>::A, 0).into(), (REMOTE6, 53).into());
        let discover = (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER);
        until_refused(&cluster.pod, ends, discover, (libc::IPPROTO_IPV6, libc::IPV6_MTU));
    });
}
