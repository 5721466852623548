//! The socket hooks: real sockets of this process, in the test's cgroup.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use netkeel_dataplane_loader::{
    Table,
    common::{Protocol, Reason, services::Service},
};

use crate::lab::{self, counted, frontend, isolated, serve};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const PATIENCE: Duration = Duration::from_secs(2);

fn v4(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((address, port))
}

fn mapped(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((address.to_ipv6_mapped(), port))
}

/// A listener that answers each connection with its own port.
fn tcp_backend() -> u16 {
    let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming() {
            connection.unwrap().write_all(&port.to_be_bytes()).unwrap();
        }
    });
    port
}

/// A socket that sends each datagram back with its own port behind it.
fn udp_backend(address: Ipv4Addr, port: u16) -> u16 {
    let socket = UdpSocket::bind((address, port)).unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            buffer[len..len + 2].copy_from_slice(&port.to_be_bytes());
            socket.send_to(&buffer[..len + 2], from).unwrap();
        }
    });
    port
}

fn udp_client(address: impl Into<IpAddr>) -> UdpSocket {
    let socket = UdpSocket::bind((address.into(), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The answer to a datagram: the port of the backend, and where the answer seems to come from.
fn ask(socket: &UdpSocket, to: SocketAddr) -> (u16, SocketAddr) {
    socket.send_to(b"hello", to).unwrap();
    let mut buffer = [0; 64];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..5], b"hello");
    (u16::from_be_bytes(buffer[5..len].try_into().unwrap()), from)
}

/// The port of the backend at the other end.
fn backend_of(mut stream: TcpStream) -> u16 {
    let mut port = [0; 2];
    stream.read_exact(&mut port).unwrap();
    u16::from_be_bytes(port)
}

#[test]
fn a_connection_to_a_service_reaches_its_backend_and_does_not_know() {
    isolated(|lab| {
        let datapath = lab.load();
        let backend = tcp_backend();
        serve(&datapath, 1, frontend(SERVICE, 80, Protocol::Tcp), &[(LOCALHOST, backend)]);
        for service in [v4(SERVICE, 80), mapped(SERVICE, 80)] {
            let stream = TcpStream::connect(service).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), service);
            assert_eq!(backend_of(stream), backend);
        }
    });
}

#[test]
fn a_direct_connection_is_left_alone() {
    isolated(|lab| {
        let datapath = lab.load();
        let backend = tcp_backend();
        serve(&datapath, 1, frontend(SERVICE, 80, Protocol::Tcp), &[(LOCALHOST, backend)]);
        let stream = TcpStream::connect((LOCALHOST, backend)).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), v4(LOCALHOST, backend));
        assert_eq!(counted(&datapath), HashMap::new());
    });
}

#[test]
fn another_port_or_protocol_of_a_service_address_is_left_alone() {
    isolated(|lab| {
        let datapath = lab.load();
        serve(&datapath, 1, frontend(SERVICE, 80, Protocol::Tcp), &[(LOCALHOST, tcp_backend())]);
        let error = TcpStream::connect((SERVICE, 81)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
        let error = udp_client(Ipv4Addr::UNSPECIFIED).send_to(b"hello", (SERVICE, 80)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
    });
}

#[test]
fn each_backend_gets_its_share() {
    isolated(|lab| {
        let datapath = lab.load();
        let ports = [tcp_backend(), tcp_backend(), tcp_backend()];
        serve(&datapath, 1, frontend(SERVICE, 80, Protocol::Tcp), &ports.map(|port| (LOCALHOST, port)));
        let mut seen = HashMap::new();
        for _ in 0..300 {
            *seen.entry(backend_of(TcpStream::connect((SERVICE, 80)).unwrap())).or_insert(0) += 1;
        }
        for port in ports {
            let share = seen.get(&port).copied().unwrap_or(0);
            assert!((60..=141).contains(&share), "{seen:?}");
        }
    });
}

#[test]
fn a_slot_that_is_being_taken_away_costs_no_connection() {
    isolated(|lab| {
        let datapath = lab.load();
        let backend = tcp_backend();
        let service = frontend(SERVICE, 80, Protocol::Tcp);
        serve(&datapath, 1, service, &[(LOCALHOST, backend)]);
        datapath.services().unwrap().put(&service, &Service { id: 1, count: 4 }).unwrap();
        for _ in 0..50 {
            assert_eq!(backend_of(TcpStream::connect((SERVICE, 80)).unwrap()), backend);
        }
    });
}

#[test]
fn datagrams_reach_a_backend_and_answers_come_from_the_service() {
    isolated(|lab| {
        let datapath = lab.load();
        let backend = udp_backend(LOCALHOST, 0);
        serve(&datapath, 1, frontend(SERVICE, 53, Protocol::Udp), &[(LOCALHOST, backend)]);
        let client = udp_client(Ipv4Addr::UNSPECIFIED);
        assert_eq!(ask(&client, v4(SERVICE, 53)), (backend, v4(SERVICE, 53)));
        assert_eq!(ask(&client, v4(SERVICE, 53)), (backend, v4(SERVICE, 53)), "the second time too");
    });
}

#[test]
fn all_datagrams_of_a_socket_reach_one_backend_and_sockets_spread() {
    isolated(|lab| {
        let datapath = lab.load();
        let ports = [udp_backend(LOCALHOST, 0), udp_backend(LOCALHOST, 0), udp_backend(LOCALHOST, 0)];
        serve(&datapath, 1, frontend(SERVICE, 53, Protocol::Udp), &ports.map(|port| (LOCALHOST, port)));
        let mut seen = HashSet::new();
        for number in 0..20 {
            let (client, service) = if number % 2 == 0 {
                (udp_client(Ipv4Addr::UNSPECIFIED), v4(SERVICE, 53))
            } else {
                (udp_client(Ipv6Addr::UNSPECIFIED), mapped(SERVICE, 53))
            };
            let (backend, _) = ask(&client, service);
            for _ in 1..50 {
                assert_eq!(ask(&client, service), (backend, service));
            }
            seen.insert(backend);
        }
        assert_eq!(seen, HashSet::from(ports));
    });
}

#[test]
fn datagrams_of_a_mapped_socket_are_translated_both_ways() {
    isolated(|lab| {
        let datapath = lab.load();
        let backend = udp_backend(LOCALHOST, 0);
        serve(&datapath, 1, frontend(SERVICE, 53, Protocol::Udp), &[(LOCALHOST, backend)]);
        let client = udp_client(Ipv6Addr::UNSPECIFIED);
        assert_eq!(ask(&client, mapped(SERVICE, 53)), (backend, mapped(SERVICE, 53)));
    });
}

#[test]
fn a_connected_datagram_socket_talks_to_the_service() {
    isolated(|lab| {
        let datapath = lab.load();
        let backend = udp_backend(LOCALHOST, 0);
        serve(&datapath, 1, frontend(SERVICE, 53, Protocol::Udp), &[(LOCALHOST, backend)]);
        for (local, service) in [
            (IpAddr::from(Ipv4Addr::UNSPECIFIED), v4(SERVICE, 53)),
            (IpAddr::from(Ipv6Addr::UNSPECIFIED), mapped(SERVICE, 53)),
        ] {
            let client = udp_client(local);
            client.connect(service).unwrap();
            assert_eq!(client.peer_addr().unwrap(), service);
            for _ in 0..3 {
                client.send(b"hello").unwrap();
                let mut buffer = [0; 64];
                let (len, from) = client.recv_from(&mut buffer).unwrap();
                assert_eq!(
                    (&buffer[..len], from),
                    (&[b"hello", &backend.to_be_bytes()[..]].concat()[..], service)
                );
            }
        }
    });
}

#[test]
fn a_connected_mapped_socket_is_translated_once_even_when_its_backend_is_a_service_too() {
    isolated(|lab| {
        let datapath = lab.load();
        let other = Ipv4Addr::new(10, 96, 0, 20);
        lab::ip("address add 10.96.0.20/32 dev lo");
        let (right, wrong) = (udp_backend(other, 53), udp_backend(LOCALHOST, 0));
        serve(&datapath, 1, frontend(SERVICE, 53, Protocol::Udp), &[(other, 53)]);
        serve(&datapath, 2, frontend(other, 53, Protocol::Udp), &[(LOCALHOST, wrong)]);
        let client = udp_client(Ipv6Addr::UNSPECIFIED);
        client.connect(mapped(SERVICE, 53)).unwrap();
        client.send(b"hello").unwrap();
        let mut buffer = [0; 64];
        let len = client.recv(&mut buffer).unwrap();
        assert_eq!(u16::from_be_bytes(buffer[5..len].try_into().unwrap()), right);
    });
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    isolated(|lab| {
        let datapath = lab.load();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            serve(&datapath, 1, frontend(SERVICE, 80, protocol), &[]);
        }
        for service in [v4(SERVICE, 80), mapped(SERVICE, 80)] {
            let error = TcpStream::connect(service).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "TCP to {service}: {error}");
        }
        let client = udp_client(Ipv4Addr::UNSPECIFIED);
        assert_eq!(
            client.send_to(b"x", v4(SERVICE, 80)).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        assert_eq!(client.connect(v4(SERVICE, 80)).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let client = udp_client(Ipv6Addr::UNSPECIFIED);
        assert_eq!(
            client.send_to(b"x", mapped(SERVICE, 80)).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        assert_eq!(counted(&datapath), HashMap::from([(Reason::NoEndpoints, 5)]));
    });
}
