//! Policy between pods of one node, with sockets.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use netkeel_dataplane_loader::common::{
    Protocol,
    identities::{FIRST, NODE},
    policies::{CLOSED, Match, OPEN},
};

use super::*;
use crate::{
    lab::{frontend, isolated, serve},
    pods::{PATIENCE, Pod, ask, echo},
};

/// Long enough for a connection between namespaces, short enough for one that is dropped.
const SHORT: Duration = Duration::from_millis(500);

impl Pod {
    /// Gives the pod its tables of ingress and egress.
    pub(super) fn isolate(&self, datapath: &Datapath, ingress: u32, egress: u32) {
        put_pod(datapath, self.address, (self.link, self.mac), (ingress, egress));
    }

    pub(super) fn listen(&self, port: u16) -> TcpListener {
        self.netns.run(|| TcpListener::bind((self.address, port)).unwrap())
    }

    pub(super) fn connect(&self, to: impl Into<SocketAddr> + Send) -> io::Result<TcpStream> {
        self.netns.run(|| TcpStream::connect_timeout(&to.into(), SHORT))
    }
}

/// Two pods on one node.
fn pods(lab: &Lab) -> (Datapath, Pod, Pod) {
    let datapath = lab.load();
    let (one, two) = (Pod::add(&datapath, A), Pod::add(&datapath, B));
    identify(&datapath, A, FIRST);
    identify(&datapath, B, FIRST + 1);
    (datapath, one, two)
}

/// Sends a byte over a connection; whether it arrives.
pub(super) fn arrives(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    to.set_read_timeout(Some(SHORT)).unwrap();
    from.write_all(b"x").unwrap();
    to.read_exact(&mut [0]).is_ok()
}

#[test]
fn connections_pass_where_a_rule_allows_them() {
    isolated(|lab| {
        let (datapath, one, two) = pods(lab);
        let (web, other) = (two.listen(80), two.listen(81));
        two.isolate(&datapath, RULES, CLOSED);
        allow(&datapath, Match::ports(RULES, FIRST, TCP, 80, 16));
        let mut client = one.connect((B, 80)).unwrap();
        let mut server = web.accept().unwrap().0;
        assert!(arrives(&mut client, &mut server) && arrives(&mut server, &mut client));
        assert_eq!(one.connect((B, 81)).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(counted(&datapath).keys().eq([&Reason::PolicyIngress]), "{:?}", counted(&datapath));
        drop(other);
    });
}

#[test]
fn an_established_connection_ends_with_its_permission_and_both_ends_are_cut() {
    isolated(|lab| {
        let (datapath, one, two) = pods(lab);
        let listener = two.listen(80);
        let mut client = one.connect((B, 80)).unwrap();
        let mut server = listener.accept().unwrap().0;
        assert!(arrives(&mut client, &mut server));
        two.isolate(&datapath, CLOSED, OPEN);
        assert!(arrives(&mut client, &mut server), "until the epoch ends");
        next_epoch(&datapath);
        assert!(!arrives(&mut client, &mut server));
        assert!(!arrives(&mut server, &mut client));
        two.isolate(&datapath, OPEN, OPEN);
        next_epoch(&datapath);
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_exact(&mut [0]).expect("what was held back is repeated");
    });
}

#[test]
fn a_service_is_no_way_round_the_policy_of_its_backend() {
    isolated(|lab| {
        let (datapath, one, two) = pods(lab);
        let service = Ipv4Addr::new(10, 96, 0, 10);
        serve(&datapath, 1, frontend(service, 80, Protocol::Tcp), &[(B, 8080)]);
        serve(&datapath, 2, frontend(service, 53, Protocol::Udp), &[(B, 5353)]);
        let listener = two.listen(8080);
        two.netns.run(|| echo(B, 5353));
        two.isolate(&datapath, RULES, OPEN);
        assert_eq!(one.connect((service, 80)).unwrap_err().kind(), io::ErrorKind::TimedOut);
        let unheard = one.netns.run(|| {
            let socket = UdpSocket::bind((A, 0)).unwrap();
            socket.set_read_timeout(Some(SHORT)).unwrap();
            socket.send_to(b"hello", (service, 53)).unwrap();
            socket.recv(&mut [0; 64])
        });
        assert!(unheard.is_err());
        allow(&datapath, Match::ports(RULES, FIRST, TCP, 8080, 16));
        allow(&datapath, Match::ports(RULES, FIRST, UDP, 5353, 16));
        let mut client = one.connect((service, 80)).unwrap();
        assert!(arrives(&mut client, &mut listener.accept().unwrap().0));
        assert_eq!(one.ask((service, 53), b"hello ").0, b"hello 10.244.0.7");
    });
}

#[test]
fn a_service_of_the_pod_itself_is_not_cut_by_its_policy() {
    isolated(|lab| {
        let (datapath, one, _) = pods(lab);
        let service = Ipv4Addr::new(10, 96, 0, 10);
        serve(&datapath, 1, frontend(service, 80, Protocol::Tcp), &[(A, 8080)]);
        one.isolate(&datapath, CLOSED, CLOSED);
        let listener = one.listen(8080);
        let mut client = one.connect((service, 80)).unwrap();
        assert!(arrives(&mut client, &mut listener.accept().unwrap().0));
    });
}

#[test]
fn the_node_reaches_a_closed_pod_and_is_not_reached_by_it() {
    isolated(|lab| {
        let (datapath, one, _) = pods(lab);
        ip("address add 172.18.0.1/32 dev lo");
        let node = Ipv4Addr::new(172, 18, 0, 1);
        identify(&datapath, node, NODE);
        one.isolate(&datapath, CLOSED, CLOSED);
        one.netns.run(|| echo(A, 54));
        assert_eq!(ask(node, (A, 54).into(), b"probe ").0, b"probe 172.18.0.1");
        let listener = one.listen(80);
        let mut probe = TcpStream::connect_timeout(&(A, 80).into(), SHORT).unwrap();
        let mut answer = listener.accept().unwrap().0;
        assert!(arrives(&mut probe, &mut answer) && arrives(&mut answer, &mut probe));
        let kubelet = TcpListener::bind((node, 10250)).unwrap();
        assert_eq!(one.connect((node, 10250)).unwrap_err().kind(), io::ErrorKind::TimedOut);
        one.isolate(&datapath, CLOSED, RULES);
        allow(&datapath, Match::identity(RULES, NODE));
        one.connect((node, 10250)).unwrap();
        drop(kubelet);
    });
}

#[test]
fn a_refused_datagram_is_reported_although_the_refuser_may_send_nothing() {
    isolated(|lab| {
        let (datapath, one, two) = pods(lab);
        two.isolate(&datapath, OPEN, CLOSED);
        let error = one.netns.run(|| {
            let socket = UdpSocket::bind((A, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect((B, 9)).unwrap();
            socket.send(b"anybody?").unwrap();
            socket.recv(&mut [0; 64]).unwrap_err()
        });
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn datagrams_larger_than_a_packet_pass_where_a_port_is_allowed() {
    isolated(|lab| {
        let (datapath, one, two) = pods(lab);
        two.isolate(&datapath, RULES, CLOSED);
        allow(&datapath, Match::ports(RULES, FIRST, UDP, 53, 16));
        two.netns.run(|| echo(B, 53));
        let question = vec![7; 8000];
        let (answer, _) = one.ask((B, 53), &question);
        assert_eq!(answer, [&question[..], b"10.244.0.7"].concat());
        assert_eq!(counted(&datapath), HashMap::new());
    });
}

#[test]
fn connections_between_the_same_ports_follow_each_other() {
    isolated(|lab| {
        let (datapath, one, two) = pods(lab);
        two.isolate(&datapath, OPEN, CLOSED);
        let listener = two.listen(80);
        let server = thread::spawn(move || {
            for _ in 0..50 {
                let mut stream = listener.accept().unwrap().0;
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).unwrap();
                stream.write_all(&heard).unwrap();
            }
        });
        one.netns.run(|| {
            for number in 0..50 {
                let mut stream = TcpStream::connect((B, 80)).unwrap();
                stream.write_all(&[number]).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).unwrap();
                assert_eq!(answer, [number]);
            }
        });
        server.join().unwrap();
        assert_eq!(counted(&datapath), HashMap::new());
    });
}
