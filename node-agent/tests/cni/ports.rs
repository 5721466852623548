//! Host ports from outside: nftables alone leads there. What sockets of the node are told is a table of the fake; the
//! programs' own tests show what they make of it.
#![expect(clippy::unwrap_used, reason = "a failure of the fixture is a failure of the test")]

use std::{
    collections::HashSet,
    fmt::Write as _,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use netkeel_agent::node::NodeState;
use netkeel_testkit::lab::{Namespace, join};
use serde_json::{Value, json};

use super::host::{Answer, Host, Pod, address, eventually, ready};

const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 5);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const TABLE: &str = "netkeel-ports";

/// A node with two addresses, and somebody outside who knows no way to pods.
fn node() -> (Host, Namespace) {
    let mut host = Host::new("10.244.0.0/26");
    let outside = Namespace::new().unwrap();
    join((&host.namespace, "uplink", NODE), (&outside, "eth0", OUTSIDE), 24).unwrap();
    host.namespace.ip(&format!("addr add {SECOND}/24 dev uplink")).unwrap();
    host.namespace.sysctl("ipv4/ip_forward", "1").unwrap();
    host.start();
    (host, outside)
}

fn mapping(protocol: &str, host: u16, container: u16, host_ip: &str) -> Value {
    json!({"HostPort": host, "ContainerPort": container, "Protocol": protocol, "HostIP": host_ip})
}

fn add(host: &Host, pod: &Pod, mappings: &[Value]) -> Answer {
    let mut config = host.config();
    config["runtimeConfig"] = json!({ "portMappings": mappings });
    host.call("ADD", pod, &config)
}

/// Answers one client after the other with the client's address.
fn serve(pod: &Pod, port: u16) {
    let listener = pod.namespace.enter(|| TcpListener::bind(("0.0.0.0", port))).unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            let _ = stream.write_all(from.ip().to_string().as_bytes());
        }
    });
}

fn ask(from: &Namespace, to: impl Into<SocketAddr>) -> io::Result<String> {
    let to = to.into();
    from.enter(|| {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut said = String::new();
        stream.read_to_string(&mut said).map(|_| said)
    })
}

/// What nftables holds of ours, without counters and handles.
fn shown(host: &Host) -> String {
    host.namespace.run("nft", &["list", "table", "inet", TABLE]).unwrap_or_default()
}

/// Protocol, port and destination of what sockets are told.
fn sockets(host: &Host) -> HashSet<String> {
    let text = |(asked, to): (&netkeel_dataplane_loader::common::host_ports::HostPort, &_)| {
        let netkeel_dataplane_loader::common::backends::Backend { address, port, .. } = *to;
        let mut text = format!("{}:{}", asked.frontend.address.ip(), u16::from_be(asked.frontend.port));
        write!(text, "/{} {} {}", asked.frontend.protocol, address.ip(), u16::from_be(port)).unwrap();
        text
    };
    host.datapath.sockets().iter().map(text).collect()
}

#[test]
fn a_client_from_outside_reaches_a_pod_by_a_port_of_any_address_of_its_node_and_keeps_its_own() {
    let (host, outside) = node();
    let pod = Pod::new("a");
    add(&host, &pod, &[mapping("tcp", 8080, 80, ""), mapping("udp", 5353, 53, "")]).ok();
    serve(&pod, 80);
    for at in [NODE, SECOND] {
        assert_eq!(ask(&outside, (at, 8080)).unwrap(), OUTSIDE.to_string());
    }
    let refused = ask(&outside, (NODE, 5353)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "the other protocol's port");
    let server = pod.namespace.enter(|| UdpSocket::bind("0.0.0.0:53")).unwrap();
    let client = outside.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    }
    client.send_to(b"hello", (NODE, 5353)).unwrap();
    let (_, from) = server.recv_from(&mut [0; 9]).unwrap();
    assert_eq!(from.ip(), OUTSIDE);
    server.send_to(b"hello", from).unwrap();
    assert_eq!(client.recv_from(&mut [0; 9]).unwrap().1, (NODE, 5353).into(), "the port answers");
    host.check(&pod).ok();
}

#[test]
fn a_port_at_one_address_leads_nowhere_at_another() {
    let (host, outside) = node();
    let (one, two) = (Pod::new("a"), Pod::new("b"));
    add(&host, &one, &[mapping("tcp", 8080, 80, &NODE.to_string())]).ok();
    serve(&one, 80);
    assert!(ask(&outside, (NODE, 8080)).is_ok());
    assert_eq!(ask(&outside, (SECOND, 8080)).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    add(&host, &two, &[mapping("tcp", 8080, 81, &SECOND.to_string())]).ok();
    serve(&two, 81);
    assert!(ask(&outside, (NODE, 8080)).is_ok() && ask(&outside, (SECOND, 8080)).is_ok());
}

#[test]
fn a_port_at_a_loopback_address_is_for_the_nodes_own_processes_alone() {
    let (host, outside) = node();
    let (one, two) = (Pod::new("a"), Pod::new("b"));
    let to = address(&add(&host, &one, &[mapping("tcp", 8080, 80, "127.0.0.1")]).ok());
    serve(&one, 80);
    assert_eq!(sockets(&host), HashSet::from([format!("127.0.0.1:8080/6 {to} 80")]));
    host.check(&one).ok();
    add(&host, &two, &[mapping("tcp", 8081, 80, "")]).ok();
    host.check(&one).ok();
    assert!(shown(&host).contains("8081") && !shown(&host).contains("8080"), "{}", shown(&host));
    // Somebody on the same link writes any destination on a packet.
    outside.ip("route del local 127.0.0.0/8 dev lo table local").unwrap();
    outside.ip("route del local 127.0.0.1 dev lo table local").unwrap();
    outside.ip(&format!("route add 127.0.0.1/32 via {NODE} dev eth0 src {OUTSIDE}")).unwrap();
    outside.sysctl("ipv4/conf/eth0/route_localnet", "1").unwrap();
    outside.sysctl("ipv4/conf/all/route_localnet", "1").unwrap();
    for at in [Ipv4Addr::LOCALHOST, NODE, SECOND] {
        assert!(ask(&outside, (at, 8080)).is_err(), "{at}");
    }
    host.del(&two).ok();
    host.del(&one).ok();
    assert_eq!(sockets(&host).len(), 0);
}

#[test]
fn a_port_at_an_address_of_somebody_else_takes_nothing_from_him() {
    let (host, outside) = node();
    let (pod, server) = (Pod::new("a"), Namespace::new().unwrap());
    let (near, far) = (Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2));
    join((&host.namespace, "behind", near), (&server, "eth0", far), 24).unwrap();
    server.ip(&format!("route add default via {near}")).unwrap();
    outside.ip(&format!("route add {far}/32 via {NODE}")).unwrap();
    let listener = server.enter(|| TcpListener::bind((far, 8080))).unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"the right one");
        }
    });
    assert_eq!(ask(&outside, (far, 8080)).unwrap(), "the right one");
    add(&host, &pod, &[mapping("tcp", 8080, 80, &far.to_string())]).ok();
    serve(&pod, 80);
    host.check(&pod).ok();
    assert_eq!(ask(&outside, (far, 8080)).unwrap(), "the right one");
}

#[test]
fn sockets_of_the_node_and_its_pods_are_told_and_forget_with_the_pod() {
    let (host, outside) = node();
    let (one, two) = (Pod::new("a"), Pod::new("b"));
    let to = address(&add(&host, &one, &[mapping("tcp", 8080, 80, "")]).ok());
    add(&host, &two, &[mapping("udp", 53, 5353, "")]).ok();
    let of_one = |at: &str| format!("{at}:8080/6 {to} 80");
    let expected = [NODE.to_string(), SECOND.to_string(), "127.0.0.1".to_owned()].map(|at| of_one(&at));
    let told =
        |port: &str| sockets(&host).into_iter().filter(|text| text.contains(port)).collect::<HashSet<_>>();
    assert_eq!(told(":8080/"), HashSet::from(expected));
    assert_eq!(told(":53/").len(), 3);
    host.del(&one).ok();
    assert_eq!((told(":8080/").len(), told(":53/").len()), (0, 3));
    assert!(!shown(&host).contains("8080") && shown(&host).contains("53"), "{}", shown(&host));
    assert!(ask(&outside, (NODE, 8080)).is_err());
    host.del(&two).ok();
    host.del(&two).ok();
    assert_eq!(sockets(&host).len(), 0);
}

#[test]
fn a_port_that_another_pod_has_is_refused_by_name_and_stays_the_others() {
    let (host, outside) = node();
    let (one, two) = (Pod::new("a"), Pod::new("b"));
    add(&host, &one, &[mapping("tcp", 8080, 80, "")]).ok();
    serve(&one, 80);
    let (code, text) = add(&host, &two, &[mapping("tcp", 8080, 81, "")]).refused();
    assert!(
        code == 11 && text.contains("host port 8080/tcp of node node-1: pod shop/cart-0 has it"),
        "{text}"
    );
    assert_eq!(host.pool().usage().used, 1);
    assert!(ask(&outside, (NODE, 8080)).is_ok());
    host.del(&two).ok();
    assert!(ask(&outside, (NODE, 8080)).is_ok());
    host.del(&one).ok();
    add(&host, &two, &[mapping("tcp", 8080, 81, "")]).ok();
    serve(&two, 81);
    assert!(ask(&outside, (NODE, 8080)).is_ok());
}

#[test]
fn flows_of_a_pod_go_on_when_another_is_refused_its_port() {
    let (host, outside) = node();
    let (one, two) = (Pod::new("a"), Pod::new("b"));
    add(&host, &one, &[mapping("udp", 5353, 53, "")]).ok();
    for rule in [
        "add table ip seen",
        "add chain ip seen new { type filter hook prerouting priority -150; }",
        "add rule ip seen new udp dport 5353 ct state new counter",
    ] {
        host.namespace.run("nft", &[rule]).unwrap();
    }
    let server = one.namespace.enter(|| UdpSocket::bind("0.0.0.0:53")).unwrap();
    let client = outside.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let exchange = || {
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        }
        client.send_to(b"hello", (NODE, 5353)).unwrap();
        let (_, from) = server.recv_from(&mut [0; 9]).unwrap();
        server.send_to(b"hello", from).unwrap();
        client.recv_from(&mut [0; 9]).unwrap();
        host.namespace.run("nft", &["list", "chain", "ip", "seen", "new"]).unwrap()
    };
    assert!(exchange().contains("counter packets 1 "));
    assert_eq!(add(&host, &two, &[mapping("udp", 5353, 54, "")]).refused().0, 11);
    let seen = exchange();
    assert!(seen.contains("counter packets 1 "), "the flow began anew: {seen}");
}

#[test]
fn ports_that_no_pod_can_have_are_refused_and_nothing_is_left() {
    let (host, _outside) = node();
    for (wrong, said) in [
        (mapping("sctp", 5000, 5000, ""), "host port 5000/sctp: only TCP and UDP"),
        (mapping("tcp", 80, 80, "node-1"), "no IP address"),
        (
            mapping("tcp", 80, 80, "2001:db8::1"),
            "[2001:db8::1]:80/tcp: the pod has no address of that family",
        ),
    ] {
        let (code, text) = add(&host, &Pod::new("a"), &[mapping("tcp", 1, 1, ""), wrong]).refused();
        assert!(code == 102 && text.contains(said) && text.contains("pod shop/cart-0"), "{text}");
        assert_eq!((host.pool().usage().used, shown(&host)), (0, String::new()));
    }
}

/// Waits for something that must happen within a second.
fn within_a_second(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(1), "{what} took more than a second");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_somebody_takes_of_host_ports_is_back_within_a_second() {
    let (mut host, outside) = node();
    host.stop();
    host.watches = true;
    host.start();
    let pod = Pod::new("a");
    add(&host, &pod, &[mapping("tcp", 8080, 80, ""), mapping("tcp", 8081, 80, &NODE.to_string())]).ok();
    serve(&pod, 80);
    host.check(&pod).ok();
    thread::sleep(Duration::from_millis(300));
    let all = shown(&host);
    assert!(all.contains("8081"), "{all}");
    for taken in [
        ["delete", "table", "inet", TABLE].as_slice(),
        &["delete", "element", "inet", TABLE, "any4", "{ tcp . 8080 }"],
        &["flush", "map", "inet", TABLE, "at4"],
        &["flush", "chain", "inet", TABLE, "prerouting"],
    ] {
        host.namespace.run("nft", taken).unwrap();
        within_a_second("the repair", || shown(&host) == all);
        assert!(ask(&outside, (NODE, 8080)).is_ok() && ask(&outside, (NODE, 8081)).is_ok(), "{taken:?}");
    }
    let before = sockets(&host);
    host.datapath.sockets().clear();
    host.namespace.ip(&format!("addr del {SECOND}/24 dev uplink")).unwrap();
    // Between the two a repair of the flush above may have written all of them once more.
    within_a_second("the repair but for the lost address", || {
        before.difference(&sockets(&host)).count() == 1
    });
}

#[test]
fn somebody_who_never_stops_sending_datagrams_reaches_the_next_pod_too() {
    let (host, outside) = node();
    let client = outside.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    client.set_nonblocking(true).unwrap();
    let reached = |pod: &Pod| {
        let server = pod.namespace.enter(|| UdpSocket::bind("0.0.0.0:53")).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        (0..20).any(|_| {
            // Nobody listens at first, and the host says so.
            let _ = client.send_to(b"x", (NODE, 5353));
            server.recv(&mut [0; 9]).is_ok()
        })
    };
    client.send_to(b"x", (NODE, 5353)).unwrap();
    for name in ["a", "b"] {
        let pod = Pod::new(name);
        add(&host, &pod, &[mapping("udp", 5353, 53, "")]).ok();
        assert!(reached(&pod), "{name}");
        host.del(&pod).ok();
    }
}

#[test]
fn flows_that_went_astray_while_the_table_was_gone_reach_their_pod_when_it_is_back() {
    let (mut host, outside) = node();
    let (one, two) = (Pod::new("a"), Pod::new("b"));
    add(&host, &one, &[mapping("udp", 5353, 53, "")]).ok();
    // Flows are tracked without our table, too.
    for rule in [
        "add table ip tracked",
        "add chain ip tracked new { type filter hook prerouting priority -150; }",
        "add rule ip tracked new ct state new counter",
    ] {
        host.namespace.run("nft", &[rule]).unwrap();
    }
    let server = one.namespace.enter(|| UdpSocket::bind("0.0.0.0:53")).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let reaches = |client: &UdpSocket| {
        client.send_to(b"x", (NODE, 5353)).unwrap();
        server.recv(&mut [0; 9]).is_ok()
    };
    let astray = |host: &Host| {
        host.namespace.run("nft", &["delete", "table", "inet", TABLE]).unwrap();
        let client = outside.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        assert!(!reaches(&client), "there is no table");
        client
    };
    let client = astray(&host);
    host.kill();
    host.start();
    eventually("the way to the pod after a repair", || reaches(&client));
    let client = astray(&host);
    add(&host, &two, &[mapping("udp", 5354, 53, "")]).ok();
    assert!(reaches(&client), "the other pod's ADD made the table anew");
}

#[test]
fn room_for_the_nodes_new_address_is_made_by_the_one_that_is_gone() {
    const THIRD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 6);
    let (mut host, _outside) = node();
    let pod = Pod::new("a");
    add(&host, &pod, &[mapping("tcp", 8080, 80, "")]).ok();
    host.datapath.limit_sockets(sockets(&host).len());
    host.kill();
    host.namespace.ip(&format!("addr del {SECOND}/24 dev uplink")).unwrap();
    host.namespace.ip(&format!("addr add {THIRD}/24 dev uplink")).unwrap();
    host.start();
    let told = |at: Ipv4Addr| sockets(&host).iter().any(|text| text.starts_with(&format!("{at}:8080/")));
    eventually("the new address in the full map", || told(THIRD));
    assert!(told(NODE) && !told(SECOND));
    host.check(&pod).ok();
}

#[test]
fn check_finds_a_port_that_does_not_lead_to_the_pod() {
    let (host, _outside) = node();
    let pod = Pod::new("a");
    add(&host, &pod, &[mapping("tcp", 8080, 80, "")]).ok();
    host.check(&pod).ok();
    host.namespace.run("nft", &["delete", "element", "inet", TABLE, "any4", "{ tcp . 8080 }"]).unwrap();
    let (code, text) = host.check(&pod).refused();
    assert!(code == 101 && text.contains("host ports 8080/tcp do not lead to the pod"), "{text}");
    add(&host, &pod, &[mapping("tcp", 8080, 80, "")]).ok();
    host.check(&pod).ok();
    host.datapath.sockets().clear();
    assert_eq!(host.check(&pod).refused().0, 101);
}

#[test]
fn ports_outlive_the_agent_and_go_with_pods_that_went_meanwhile() {
    let (mut host, outside) = node();
    let (one, two) = (Pod::new("a"), Pod::new("b"));
    add(&host, &one, &[mapping("tcp", 8080, 80, "")]).ok();
    add(&host, &two, &[mapping("tcp", 8081, 80, "")]).ok();
    serve(&one, 80);
    let before = sockets(&host);
    host.kill();
    assert!(ask(&outside, (NODE, 8080)).is_ok(), "without an agent");
    host.del(&two).ok();
    host.namespace.run("nft", &["delete", "table", "inet", TABLE]).unwrap();
    host.datapath.sockets().clear();
    host.start();
    eventually("the ports of the pod that lives", || ask(&outside, (NODE, 8080)).is_ok());
    assert!(!shown(&host).contains("8081"), "{}", shown(&host));
    eventually("its sockets", || sockets(&host).len() == before.len() / 2);
    host.check(&one).ok();
    host.kill();
    host.del(&one).ok();
    host.start();
    eventually("the end of the table", || shown(&host).is_empty());
}

#[test]
fn both_families_have_host_ports() {
    let (host, outside) = node();
    let six = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    for (namespace, device, ip) in [(&host.namespace, "uplink", six(1)), (&outside, "eth0", six(9))] {
        namespace.ip(&format!("addr add {ip}/64 dev {device} nodad")).unwrap();
    }
    host.namespace.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
    let mut state: NodeState = (*ready(&["10.244.0.0/26", "fd00:10:244::/122"])).clone();
    let mut layout = (*state.layout).clone();
    layout.pools[0].cidrs.push("fd00:10:244::/56".parse().unwrap());
    state.layout = layout.into();
    host.node.send_replace(Some(state.into()));
    let pod = Pod::new("a");
    let here = six(1).to_string();
    add(&host, &pod, &[mapping("tcp", 8080, 80, ""), mapping("tcp", 8081, 80, &here)]).ok();
    let listener = pod.namespace.enter(|| TcpListener::bind("[::]:80")).unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            let _ = stream.write_all(from.ip().to_canonical().to_string().as_bytes());
        }
    });
    assert_eq!(ask(&outside, (NODE, 8080)).unwrap(), OUTSIDE.to_string());
    for port in [8080, 8081] {
        assert_eq!(ask(&outside, (six(1), port)).unwrap(), six(9).to_string(), "{port}");
    }
    assert!(ask(&outside, (NODE, 8081)).is_err());
}
