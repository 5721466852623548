//! Pods in namespaces of their own behind links with the program, as the agent makes them.

use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    thread::{self, JoinHandle},
    time::Duration,
};

use netkeel_dataplane_loader::{
    Datapath, Table,
    common::{endpoints::Endpoint, links::Link, policies::OPEN},
};

use crate::{
    lab::{Netns, counted, ifindex, ip, isolated, wait_until_up},
    packet::Mac,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// A pod.
pub(crate) struct Pod {
    pub(crate) netns: Netns,
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: Mac,
    /// Index of the host side of its link.
    pub(crate) link: u32,
}

impl Pod {
    /// A pod with this address, known to the programs.
    pub(crate) fn add(datapath: &Datapath, address: Ipv4Addr) -> Self {
        let netns = Netns::new();
        let [_, _, third, last] = address.octets();
        let (mac, host_mac) = ([2, 0, 0, 0, third, last], [2, 0, 0, 1, third, last]);
        let device = format!("nk{third}x{last}");
        let (pod_text, host_text) = (text(mac), text(host_mac));
        let path = netns.path();
        ip(&format!(
            "link add {device} address {host_text} type veth peer name eth0 address {pod_text} netns {path}"
        ));
        netns.run(|| {
            without_ipv6("eth0");
            ip(&format!("address add {address}/32 dev eth0"));
            ip("link set eth0 up mtu 1450");
            ip("route add 169.254.1.1 dev eth0 scope link");
            ip("route add default via 169.254.1.1");
            ip(&format!("neigh replace 169.254.1.1 lladdr {host_text} dev eth0 nud permanent"));
        });
        without_ipv6(&device);
        ip(&format!("link set {device} up mtu 1450"));
        ip(&format!("route add {address}/32 dev {device}"));
        ip(&format!("neigh replace {address} lladdr {pod_text} dev {device} nud permanent"));
        wait_until_up(&device);
        netns.run(|| wait_until_up("eth0"));
        let index = ifindex(&device);
        datapath.links().unwrap().put(&index, &Link::new(address.into(), mac, OPEN)).unwrap();
        let endpoint = Endpoint::new(index, OPEN);
        datapath.endpoints().unwrap().put(&address.into(), &endpoint).unwrap();
        datapath.attach_pod(index, &device).unwrap();
        Self { netns, address, mac, link: index }
    }

    /// Sends a datagram and returns the answer and who gave it.
    pub(crate) fn ask(&self, to: impl Into<SocketAddr> + Send, payload: &[u8]) -> (Vec<u8>, SocketAddr) {
        self.netns.run(|| ask(self.address, to.into(), payload))
    }
}

/// Its packets would be counted.
fn without_ipv6(device: &str) {
    fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "1").unwrap();
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Sends a datagram from an address of this namespace; returns the answer and who gave it.
pub(crate) fn ask(from: Ipv4Addr, to: SocketAddr, payload: &[u8]) -> (Vec<u8>, SocketAddr) {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(payload, to).unwrap();
    let mut buffer = vec![0; 65_536];
    let (len, from) =
        socket.recv_from(&mut buffer).unwrap_or_else(|error| panic!("no answer from {to}: {error}"));
    buffer.truncate(len);
    (buffer, from)
}

/// A socket in this namespace that sends each datagram back, with the asker's address behind it.
pub(crate) fn echo(address: Ipv4Addr, port: u16) {
    let socket = UdpSocket::bind((address, port)).unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            let answer = [&buffer[..len], from.ip().to_string().as_bytes()].concat();
            socket.send_to(&answer, from).unwrap();
        }
    });
}

/// Enough for many packets, with a pattern.
pub(crate) fn megabyte() -> Vec<u8> {
    (0..1 << 20).map(|number: u32| number.to_le_bytes()[1]).collect()
}

/// Collects what the first client of a listener sends until it ends.
pub(crate) fn collect(listener: TcpListener) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut received = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
        received
    })
}

#[test]
fn pods_of_one_node_reach_each_other() {
    isolated(|lab| {
        let datapath = lab.load();
        let (one, two) = (
            Pod::add(&datapath, Ipv4Addr::new(10, 244, 0, 7)),
            Pod::add(&datapath, Ipv4Addr::new(10, 244, 0, 8)),
        );
        two.netns.run(|| echo(two.address, 53));
        let (answer, from) = one.ask((two.address, 53), b"hello ");
        assert_eq!((answer, from), (b"hello 10.244.0.7".to_vec(), (two.address, 53).into()));
        assert!(counted(&datapath).is_empty());
    });
}

#[test]
fn a_pod_and_its_node_reach_each_other() {
    isolated(|lab| {
        let datapath = lab.load();
        let pod = Pod::add(&datapath, Ipv4Addr::new(10, 244, 0, 7));
        ip("address add 172.18.0.1/32 dev lo");
        let node = Ipv4Addr::new(172, 18, 0, 1);
        echo(node, 53);
        assert_eq!(pod.ask((node, 53), b"hello ").0, b"hello 10.244.0.7");
        pod.netns.run(|| echo(pod.address, 54));
        assert_eq!(ask(node, (pod.address, 54).into(), b"hello ").0, b"hello 172.18.0.1");
    });
}

#[test]
fn a_pod_that_takes_anothers_address_is_not_heard() {
    isolated(|lab| {
        let datapath = lab.load();
        let (one, two) = (
            Pod::add(&datapath, Ipv4Addr::new(10, 244, 0, 7)),
            Pod::add(&datapath, Ipv4Addr::new(10, 244, 0, 8)),
        );
        let listener = two.netns.run(|| UdpSocket::bind((two.address, 53)).unwrap());
        listener.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        one.netns.run(|| {
            ip("address add 10.244.0.9/32 dev eth0");
            let socket = UdpSocket::bind((Ipv4Addr::new(10, 244, 0, 9), 0)).unwrap();
            socket.send_to(b"forged", (two.address, 53)).unwrap();
        });
        assert!(listener.recv(&mut [0; 64]).is_err());
        let reasons = counted(&datapath);
        assert_eq!(
            reasons.get(&netkeel_dataplane_loader::common::Reason::SpoofedSource),
            Some(&1),
            "{reasons:?}"
        );
    });
}
