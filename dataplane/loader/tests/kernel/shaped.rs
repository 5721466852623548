//! Pods with a limit on the rate of what comes to them: from wherever it comes, it passes the queue of the link's host side,
//! once, and policy is what it was.

use std::{
    collections::HashMap,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use netkeel_dataplane_loader::{
    Datapath, Table, Way,
    common::{
        Address, Reason,
        endpoints::Endpoint,
        policies::{CLOSED, OPEN},
        tunnels::Tunnel,
    },
};

use crate::{
    ipv6,
    lab::{counted, ifindex, isolated},
    native,
    overlay::{self, Cluster, POD, REMOTE},
    packet::{Ip, Ip6},
    pods::{PATIENCE, Pod, ask, collect, echo, megabyte},
    scene::{HOST_MAC, MACS, Packet, SYN, Scene},
};

const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 8);
/// Faster than any test sends.
const FAST: &str = "1gbit";

/// Gives the host side of a pod's link a queue of this rate, and says so to the programs.
fn shape(datapath: &Datapath, device: &str, pod: impl Into<Address>, rate: &str) {
    tc(&format!("qdisc replace dev {device} root tbf rate {rate} burst 32kb limit 1mb"));
    let (mut endpoints, pod) = (datapath.endpoints().unwrap(), pod.into());
    let endpoint = endpoints.get(&pod).unwrap().unwrap();
    endpoints.put(&pod, &endpoint.shaped()).unwrap();
}

fn tc(args: &str) -> String {
    let output = Command::new("tc").args(args.split(' ')).output().expect("iproute2");
    assert!(output.status.success(), "tc {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The packets that have left a device's queue.
fn queued(device: &str) -> u32 {
    let text = tc(&format!("-s qdisc show dev {device} root"));
    let words: Vec<_> = text.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "pkt").unwrap_or_else(|| panic!("{device}: {text}"));
    words[at - 1].parse().unwrap()
}

/// Asserts that so many packets leave the queue of a device while this is done.
#[track_caller]
fn passes<T>(device: &str, packets: u32, story: &str, task: impl FnOnce() -> T) -> T {
    let before = queued(device);
    let result = task();
    assert_eq!(queued(device) - before, packets, "{story}");
    result
}

#[test]
fn from_wherever_a_packet_comes_it_passes_the_queue_of_a_shaped_pod_once() {
    isolated(|lab| {
        let cluster = &native::cluster(lab);
        let Cluster { datapath, peer, peers_datapath, pod, remote } = cluster;
        let neighbour = &Pod::add(datapath, NEIGHBOUR);
        let link = "nk0x7";
        shape(datapath, link, POD, FAST);
        pod.netns.run(|| echo(POD, 54));
        remote.netns.run(|| echo(REMOTE, 53));
        neighbour.netns.run(|| echo(NEIGHBOUR, 53));
        let to = SocketAddr::from((POD, 54));
        let heard = |(answer, _): (Vec<u8>, _)| assert!(answer.starts_with(b"hello "), "{answer:?}");
        for direct in [false, true] {
            native::send(datapath, native::TO_PEER, direct);
            peer.run(|| native::send(peers_datapath, native::FROM_PEER, direct));
            let way = if direct { "without the tunnel" } else { "over the tunnel" };
            passes(link, 1, &format!("another node's pod, {way}"), || heard(remote.ask(to, b"hello ")));
            passes(link, 1, &format!("another node, {way}"), || {
                heard(peer.run(|| ask(Ipv4Addr::UNSPECIFIED, to, b"hello ")));
            });
            let story = format!("another node's answer, {way}");
            passes(link, 1, &story, || heard(pod.ask((REMOTE, 53), b"hello ")));
        }
        passes(link, 1, "a pod of the node", || heard(neighbour.ask(to, b"hello ")));
        passes(link, 1, "that pod's answer", || heard(pod.ask((NEIGHBOUR, 53), b"hello ")));
        passes(link, 1, "the node", || heard(ask(Ipv4Addr::UNSPECIFIED, to, b"hello ")));
        passes(link, 0, "the other pod has no limit", || heard(remote.ask((NEIGHBOUR, 53), b"hello ")));
        assert!(counted(datapath).is_empty() && counted(peers_datapath).is_empty());
    });
}

#[test]
fn from_wherever_a_packet_of_ipv6_comes_it_passes_the_queue_of_a_shaped_pod_once() {
    isolated(|lab| {
        let cluster = &ipv6::two_nodes(lab);
        shape(&cluster.datapath, "nk0", <Ip6 as Packet>::A, FAST);
        let here = cluster.pod.run(|| UdpSocket::bind((<Ip6 as Packet>::A, 53)).unwrap());
        let there = cluster.remote.run(|| UdpSocket::bind((<Ip6 as Packet>::REMOTE, 53)).unwrap());
        let arrives = |from: &UdpSocket, to: &UdpSocket| {
            to.set_read_timeout(Some(PATIENCE)).unwrap();
            from.send_to(b"hello", to.local_addr().unwrap()).unwrap();
            assert_eq!(to.recv(&mut [0; 64]).unwrap(), 5);
        };
        passes("nk0", 1, "another node's pod", || arrives(&there, &here));
        passes("nk0", 0, "what the pod sends", || arrives(&here, &there));
        let node = UdpSocket::bind("[::]:0").unwrap();
        passes("nk0", 1, "the node", || arrives(&node, &here));
        let mut counts = counted(&cluster.datapath);
        counts.remove(&Reason::Multicast); // the kernel's own reports of group membership
        assert_eq!(counts, HashMap::new());
    });
}

/// What `from_pod` and `from_underlay` make of packets to a shaped pod.
fn redirected<P: Packet>(scene: &Scene<P>) {
    const REDIRECTED: i32 = 7;
    const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];
    scene.a(OPEN, OPEN);
    scene.b(OPEN, OPEN);
    let mut endpoints = scene.datapath.endpoints().unwrap();
    endpoints.put(&P::B.into(), &Endpoint::new(scene.links.1, OPEN).shaped()).unwrap();
    let (block, [peer, _]) = P::remote();
    scene.datapath.tunnels().unwrap().put(&block, &Tunnel::to(peer.into())).unwrap();
    let underlay = ifindex("vx1");
    for (program, from, mac, came_over) in
        [("from_pod", P::A, MACS.0, scene.links.0), ("from_underlay", P::REMOTE, ROUTER_MAC, underlay)]
    {
        let packet = P::segment((from, 4000), (P::B, 80), SYN);
        let verdict = scene.datapath.dry_run(program, &packet.between((mac, HOST_MAC)), came_over).unwrap();
        assert_eq!(verdict.action, REDIRECTED, "{program}");
        assert_eq!(verdict.frame, packet.between((mac, MACS.1)), "{program}: to the pod's own MAC address");
        let way = Way { device: scene.links.1, came_over };
        assert_eq!(scene.datapath.dry_run("to_pod", &verdict.frame, way).unwrap().action, -1, "{program}");
    }
    assert!(counted(&scene.datapath).is_empty());
    scene.datapath.links().unwrap().remove(&scene.links.1).unwrap();
    let packet = P::segment((P::A, 4000), (P::B, 80), SYN);
    let verdict = scene.run("from_pod", &packet.between((MACS.0, HOST_MAC)), scene.links.0.into());
    assert_eq!(verdict, crate::scene::Outcome::Drop(Reason::UnknownLink), "a pod on its way out");
}

#[test]
fn a_packet_to_a_shaped_pod_is_sent_out_of_its_link_with_the_pods_mac_address() {
    isolated(|lab| redirected(&Scene::<Ip>::new(lab)));
}

#[test]
fn a_packet_of_ipv6_to_a_shaped_pod_is_sent_out_of_its_link_with_the_pods_mac_address() {
    isolated(|lab| redirected(&Scene::<Ip6>::new(lab)));
}

#[test]
fn a_stream_to_a_shaped_pod_arrives_whole_and_no_faster_than_the_limit_from_each_side() {
    /// Bits per second.
    const RATE: u64 = 40_000_000;
    isolated(|lab| {
        let cluster = &overlay::cluster(lab);
        let neighbour = &Pod::add(&cluster.datapath, NEIGHBOUR);
        shape(&cluster.datapath, "nk0x7", POD, "40mbit");
        let sent = megabyte();
        // What the bucket held at first and what it may hold of headers; the rest takes its time.
        let floor = Duration::from_micros((sent.len() as u64 - 65_536) * 8 * 1_000_000 / RATE);
        for (port, from) in [(80, neighbour), (81, &cluster.remote)] {
            let listener = cluster.pod.netns.run(|| TcpListener::bind((POD, port)).unwrap());
            let receiver = collect(listener);
            let began = Instant::now();
            let mut stream = from.netns.run(|| TcpStream::connect((POD, port)).unwrap());
            stream.write_all(&sent).unwrap();
            drop(stream);
            assert!(receiver.join().unwrap() == sent);
            assert!(began.elapsed() > floor, "{:?} from {}", began.elapsed(), from.address);
        }
        assert!(counted(&cluster.datapath).is_empty());
    });
}

#[test]
fn policy_of_a_shaped_pod_is_enforced_before_its_queue() {
    isolated(|lab| {
        let cluster = &overlay::cluster(lab);
        let Cluster { datapath, pod, remote, .. } = cluster;
        let neighbour = &Pod::add(datapath, NEIGHBOUR);
        pod.netns.run(|| echo(POD, 54));
        datapath.endpoints().unwrap().put(&POD.into(), &Endpoint::new(pod.link, CLOSED)).unwrap();
        shape(datapath, "nk0x7", POD, FAST);
        passes("nk0x7", 0, "closed", || {
            for from in [neighbour, remote] {
                let unheard = from.netns.run(|| {
                    let socket = UdpSocket::bind((from.address, 0)).unwrap();
                    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                    socket.send_to(b"hello", (POD, 54)).unwrap();
                    socket.recv(&mut [0; 64])
                });
                unheard.unwrap_err();
            }
        });
        assert_eq!(counted(datapath).into_iter().collect::<Vec<_>>(), [(Reason::PolicyIngress, 2)]);
        neighbour.netns.run(|| echo(NEIGHBOUR, 53));
        passes("nk0x7", 1, "answers pass", || pod.ask((NEIGHBOUR, 53), b"hello "));
    });
}

#[test]
fn fragments_and_icmp_errors_reach_a_shaped_pod_and_leave_it() {
    isolated(|lab| {
        let cluster = &overlay::cluster(lab);
        let Cluster { datapath, pod, remote, .. } = cluster;
        let neighbour = &Pod::add(datapath, NEIGHBOUR);
        shape(datapath, "nk0x7", POD, FAST);
        pod.netns.run(|| echo(POD, 54));
        let large = vec![7; 4000];
        for from in [neighbour, remote] {
            let (answer, _) = passes("nk0x7", 3, "three fragments", || from.ask((POD, 54), &large));
            assert_eq!(answer.len(), large.len() + from.address.to_string().len());
            let refused = |asker: &Pod, to: Ipv4Addr| {
                let socket = asker.netns.run(|| UdpSocket::bind((asker.address, 0)).unwrap());
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.connect((to, 99)).unwrap();
                socket.send(b"hello").unwrap();
                let error = socket.recv(&mut [0; 64]).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{to}");
            };
            passes("nk0x7", 1, "the pod says that a port is closed", || refused(from, POD));
            passes("nk0x7", 1, "the pod is told so", || refused(pod, from.address));
        }
        assert!(counted(datapath).is_empty());
    });
}
