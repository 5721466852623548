//! Host ports for the sockets of a node and its pods: at an address of the node for everybody, at a loopback address for
//! processes of the node alone. Who asks stays who they are.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
};

use netkeel_dataplane_loader::{
    Datapath, Table,
    common::{Protocol, backends::Backend, endpoints::Endpoint, host_ports::HostPort, policies::CLOSED},
    netns_cookie,
};

use crate::{
    lab::{Lab, frontend, ip, isolated},
    pods::{self, PATIENCE, Pod, echo},
};

const NODE: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const A: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 7);
const B: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 8);

/// A node with two pods. The first answers on TCP 80 and UDP 53, to which port 8080 of the node leads.
fn scene(lab: &Lab) -> (Datapath, [Pod; 2]) {
    let datapath = lab.load();
    let pods = [A, B].map(|address| Pod::add(&datapath, address));
    ip(&format!("address add {NODE}/32 dev lo"));
    let mut table = datapath.host_ports().unwrap();
    let netns = netns_cookie().unwrap();
    for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 53)] {
        let to = Backend::new(A.into(), port);
        table.put(&HostPort::anywhere(frontend(NODE, 8080, protocol)), &to).unwrap();
        table.put(&HostPort::within(netns, frontend(LOCALHOST, 8080, protocol)), &to).unwrap();
    }
    pods[0].netns.run(|| {
        serve(A, 80);
        echo(A, 53);
    });
    (datapath, pods)
}

/// Answers each client with the address that it has here.
fn serve(address: Ipv4Addr, port: u16) {
    let listener = TcpListener::bind((address, port)).unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            let _ = stream.write_all(from.ip().to_string().as_bytes());
        }
    });
}

/// Asks over TCP, and looks who answers.
fn ask(to: impl Into<SocketAddr>) -> io::Result<String> {
    let to = to.into();
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    assert_eq!(stream.peer_addr()?, to);
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// The same over UDP.
fn ask_udp(to: impl Into<SocketAddr>) -> String {
    let to = to.into();
    let (said, from) = pods::ask(Ipv4Addr::UNSPECIFIED, to, b"");
    assert_eq!(from, to);
    String::from_utf8(said).unwrap()
}

#[test]
fn processes_of_the_node_reach_a_pod_by_their_own_address_and_by_loopback() {
    isolated(|lab| {
        let (_datapath, _pods) = scene(lab);
        for at in [NODE, LOCALHOST] {
            assert_eq!(ask((at, 8080)).unwrap(), NODE.to_string(), "{at}");
            assert_eq!(ask_udp((at, 8080)), NODE.to_string(), "{at}");
            assert_eq!(ask((at, 8081)).unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "{at}");
        }
        let mapped: SocketAddr = (LOCALHOST.to_ipv6_mapped(), 8080).into();
        assert_eq!(ask(mapped).unwrap(), NODE.to_string());
    });
}

#[test]
fn pods_reach_a_pod_by_their_nodes_address_as_themselves_and_so_does_the_pod_itself() {
    isolated(|lab| {
        let (_datapath, pods) = scene(lab);
        for pod in &pods {
            pod.netns.run(|| {
                assert_eq!(ask((NODE, 8080)).unwrap(), pod.address.to_string());
                assert_eq!(ask_udp((NODE, 8080)), pod.address.to_string());
            });
        }
    });
}

#[test]
fn loopback_means_a_pods_own_to_the_pod() {
    isolated(|lab| {
        let (_datapath, [_, other]) = scene(lab);
        other.netns.run(|| {
            assert_eq!(ask((LOCALHOST, 8080)).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            serve(LOCALHOST, 8080);
            assert_eq!(ask((LOCALHOST, 8080)).unwrap(), LOCALHOST.to_string());
        });
    });
}

#[test]
fn policy_judges_whoever_asks_by_a_host_port_as_anybody_else() {
    isolated(|lab| {
        let (datapath, [pod, other]) = scene(lab);
        let closed = Endpoint::new(pod.link, CLOSED);
        datapath.endpoints().unwrap().put(&A.into(), &closed).unwrap();
        assert_eq!(other.netns.run(|| ask((NODE, 8080))).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(ask((LOCALHOST, 8080)).unwrap(), NODE.to_string(), "its own node");
        assert_eq!(
            pod.netns.run(|| ask((NODE, 8080))).unwrap(),
            A.to_string(),
            "nobody is cut off from itself"
        );
    });
}
