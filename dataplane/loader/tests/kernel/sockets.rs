//! The socket hooks: real sockets of this process, in the test's cgroup. Each test asks sockets of IPv4, sockets of IPv6 that
//! talk IPv4 (v4-mapped), and sockets that talk IPv6.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use netkeel_dataplane_loader::{
    Datapath, Table,
    common::{Protocol, Reason, backends::Slot, services::Service},
};

use crate::lab::{Lab, counted, frontend, ip, isolated, serve};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const PATIENCE: Duration = Duration::from_secs(2);

/// How a client talks.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// The address of the service, as the client has it.
    service: IpAddr,
    /// Where the backends are.
    local: IpAddr,
    /// Where the client binds its datagram socket.
    any: IpAddr,
}

impl Way {
    const ALL: [Self; 3] = [
        Self {
            service: IpAddr::V4(SERVICE),
            local: IpAddr::V4(Ipv4Addr::LOCALHOST),
            any: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        },
        Self {
            service: IpAddr::V6(SERVICE.to_ipv6_mapped()),
            local: IpAddr::V4(Ipv4Addr::LOCALHOST),
            any: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        },
        Self {
            service: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x10)),
            local: IpAddr::V6(Ipv6Addr::LOCALHOST),
            any: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        },
    ];

    fn at(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.service, port)
    }

    /// Serves a port of the service from these ports.
    fn serve(self, datapath: &Datapath, port: u16, protocol: Protocol, backends: &[u16]) {
        let backends: Vec<_> = backends.iter().map(|port| (self.local, *port)).collect();
        serve(datapath, 1, frontend(self.service, port, protocol), &backends);
    }

    /// A listener that answers each connection with its own port.
    fn tcp_backend(self) -> u16 {
        let listener = TcpListener::bind((self.local, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for connection in listener.incoming() {
                connection.unwrap().write_all(&port.to_be_bytes()).unwrap();
            }
        });
        port
    }

    fn udp_backend(self) -> u16 {
        udp_backend(self.local, 0)
    }

    fn udp_client(self) -> UdpSocket {
        let socket = UdpSocket::bind((self.any, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

/// Loads the programs and runs a test for each way, one after the other.
fn each_way(lab: &Lab, test: impl Fn(&Datapath, Way)) {
    let datapath = lab.load();
    for way in Way::ALL {
        test(&datapath, way);
    }
}

/// A socket that sends each datagram back with its own port behind it.
fn udp_backend(address: IpAddr, port: u16) -> u16 {
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

/// The answer to a datagram: the port of the backend, and where the answer seems to come from.
fn ask(socket: &UdpSocket, to: SocketAddr) -> (u16, SocketAddr) {
    socket.send_to(b"hello", to).unwrap();
    heard(socket)
}

fn heard(socket: &UdpSocket) -> (u16, SocketAddr) {
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
        each_way(lab, |datapath, way| {
            let backend = way.tcp_backend();
            way.serve(datapath, 80, Protocol::Tcp, &[backend]);
            let stream = TcpStream::connect(way.at(80)).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), way.at(80));
            assert_eq!(backend_of(stream), backend);
        });
    });
}

#[test]
fn a_direct_connection_is_left_alone() {
    isolated(|lab| {
        each_way(lab, |datapath, way| {
            let backend = way.tcp_backend();
            way.serve(datapath, 80, Protocol::Tcp, &[backend]);
            let stream = TcpStream::connect((way.local, backend)).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), SocketAddr::new(way.local, backend));
            assert_eq!(counted(datapath), HashMap::new());
        });
    });
}

#[test]
fn another_port_or_protocol_of_a_service_address_is_left_alone() {
    isolated(|lab| {
        each_way(lab, |datapath, way| {
            way.serve(datapath, 80, Protocol::Tcp, &[way.tcp_backend()]);
            let error = TcpStream::connect(way.at(81)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable, "{way:?}");
            let error = way.udp_client().send_to(b"hello", way.at(80)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable, "{way:?}");
        });
    });
}

#[test]
fn each_backend_gets_its_share() {
    isolated(|lab| {
        each_way(lab, |datapath, way| {
            let ports = [way.tcp_backend(), way.tcp_backend(), way.tcp_backend()];
            way.serve(datapath, 80, Protocol::Tcp, &ports);
            let mut seen = HashMap::new();
            for _ in 0..300 {
                *seen.entry(backend_of(TcpStream::connect(way.at(80)).unwrap())).or_insert(0) += 1;
            }
            for port in ports {
                let share = seen.get(&port).copied().unwrap_or(0);
                assert!((60..=141).contains(&share), "{way:?}: {seen:?}");
            }
        });
    });
}

#[test]
fn a_slot_that_is_being_taken_away_costs_no_connection() {
    isolated(|lab| {
        each_way(lab, |datapath, way| {
            let backend = way.tcp_backend();
            way.serve(datapath, 80, Protocol::Tcp, &[backend]);
            let service = frontend(way.service, 80, Protocol::Tcp);
            datapath.services().unwrap().put(&service, &Service { id: 1, count: 4 }).unwrap();
            // Those behind the first may be of the way before.
            for slot in 1..4 {
                drop(datapath.backends().unwrap().remove(&Slot { service: 1, slot }));
            }
            for _ in 0..50 {
                assert_eq!(backend_of(TcpStream::connect(way.at(80)).unwrap()), backend);
            }
        });
    });
}

#[test]
fn datagrams_reach_a_backend_and_answers_come_from_the_service() {
    isolated(|lab| {
        each_way(lab, |datapath, way| {
            let backend = way.udp_backend();
            way.serve(datapath, 53, Protocol::Udp, &[backend]);
            let client = way.udp_client();
            for _ in 0..2 {
                assert_eq!(ask(&client, way.at(53)), (backend, way.at(53)));
            }
        });
    });
}

#[test]
fn all_datagrams_of_a_socket_reach_one_backend_and_sockets_spread() {
    isolated(|lab| {
        each_way(lab, |datapath, way| {
            let ports = [way.udp_backend(), way.udp_backend(), way.udp_backend()];
            way.serve(datapath, 53, Protocol::Udp, &ports);
            let mut seen = HashSet::new();
            for _ in 0..20 {
                let client = way.udp_client();
                let (backend, _) = ask(&client, way.at(53));
                for _ in 1..50 {
                    assert_eq!(ask(&client, way.at(53)), (backend, way.at(53)));
                }
                seen.insert(backend);
            }
            assert_eq!(seen, HashSet::from(ports), "{way:?}");
        });
    });
}

#[test]
fn a_connected_datagram_socket_talks_to_the_service() {
    isolated(|lab| {
        each_way(lab, |datapath, way| {
            let backend = way.udp_backend();
            way.serve(datapath, 53, Protocol::Udp, &[backend]);
            let client = way.udp_client();
            client.connect(way.at(53)).unwrap();
            assert_eq!(client.peer_addr().unwrap(), way.at(53));
            for _ in 0..3 {
                client.send(b"hello").unwrap();
                assert_eq!(heard(&client), (backend, way.at(53)));
            }
        });
    });
}

/// The kernel asks the hook of IPv4 again at each send of a connected v4-mapped socket, with the backend's address.
#[test]
fn a_connected_socket_is_translated_once_even_when_its_backend_is_a_service_too() {
    isolated(|lab| {
        let others = ["10.96.0.20", "10.96.0.21", "fd00:10:96::20"];
        let datapath = lab.load();
        for (way, other) in Way::ALL.into_iter().zip(others) {
            let other: IpAddr = other.parse().unwrap();
            // Without duplicate address detection, which also the loopback device begins a moment later.
            ip(&format!("address add {other} dev lo{}", if other.is_ipv6() { " nodad" } else { "" }));
            let (right, wrong) = (udp_backend(other, 53), way.udp_backend());
            serve(&datapath, 1, frontend(way.service, 53, Protocol::Udp), &[(other, 53)]);
            serve(&datapath, 2, frontend(other, 53, Protocol::Udp), &[(way.local, wrong)]);
            let client = way.udp_client();
            client.connect(way.at(53)).unwrap();
            client.send(b"hello").unwrap();
            assert_eq!(heard(&client).0, right, "{way:?}");
        }
    });
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    isolated(|lab| {
        each_way(lab, |datapath, way| {
            let before = counted(datapath).get(&Reason::NoEndpoints).copied().unwrap_or(0);
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                way.serve(datapath, 80, protocol, &[]);
            }
            let client = way.udp_client();
            for (what, refused) in [
                ("TCP", TcpStream::connect(way.at(80)).map(drop)),
                ("a datagram", client.send_to(b"x", way.at(80)).map(drop)),
                ("a connected socket", client.connect(way.at(80))),
            ] {
                let error = refused.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{what}, {way:?}: {error}");
            }
            assert_eq!(counted(datapath), HashMap::from([(Reason::NoEndpoints, before + 3)]), "{way:?}");
        });
    });
}
