//! Policy between pods of two nodes: each node decides for its own pod.

use std::{
    io,
    net::{TcpStream, UdpSocket},
    time::Duration,
};

use netkeel_dataplane_loader::common::{
    identities::FIRST,
    policies::{CLOSED, Match, OPEN},
};

use super::{sockets::arrives, *};
use crate::{
    lab::isolated,
    overlay::{Cluster, cluster},
    pods::{Pod, ask, echo},
};

const SHORT: Duration = Duration::from_millis(500);

fn refused(connection: io::Result<TcpStream>) -> bool {
    connection.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// The reason that this program's node drops for, when there is one.
fn only_reason(datapath: &Datapath) -> Option<Reason> {
    let reasons: Vec<_> = counted(datapath).into_keys().collect();
    assert!(reasons.len() <= 1, "{reasons:?}");
    reasons.first().copied()
}

#[test]
fn a_connection_between_nodes_needs_both_ends_permission() {
    isolated(|lab| {
        let cluster = &cluster(lab);
        let Cluster { datapath, pod, peers_datapath, remote, .. } = cluster;
        let listener = remote.listen(80);
        identify(peers_datapath, A, FIRST);
        identify(datapath, REMOTE, FIRST);
        remote.isolate(peers_datapath, RULES, CLOSED);
        assert!(refused(pod.connect((REMOTE, 80))));
        assert_eq!((only_reason(datapath), only_reason(peers_datapath)), (None, Some(Reason::PolicyIngress)));
        allow(peers_datapath, Match::ports(RULES, FIRST, TCP, 80, 16));
        let mut client = pod.connect((REMOTE, 80)).unwrap();
        let mut server = listener.accept().unwrap().0;
        assert!(arrives(&mut client, &mut server) && arrives(&mut server, &mut client));

        pod.isolate(datapath, CLOSED, CLOSED);
        next_epoch(datapath);
        assert!(!arrives(&mut client, &mut server), "cut at the sender's node");
        assert!(!arrives(&mut server, &mut client), "answers too");
        assert!(refused(pod.connect((REMOTE, 80))));
        assert_eq!(only_reason(datapath), Some(Reason::PolicyEgress));
        pod.isolate(datapath, CLOSED, RULES);
        allow(datapath, Match::ports(RULES, FIRST, TCP, 80, 16));
        assert!(pod.connect((REMOTE, 80)).is_ok());
    });
}

#[test]
fn datagrams_between_nodes_are_answered_into_closed_pods() {
    isolated(|lab| {
        let cluster = &cluster(lab);
        let Cluster { datapath, pod, peers_datapath, remote, .. } = cluster;
        pod.isolate(datapath, CLOSED, OPEN);
        remote.isolate(peers_datapath, OPEN, CLOSED);
        remote.netns.run(|| echo(REMOTE, 53));
        pod.netns.run(|| echo(A, 53));
        assert_eq!(pod.ask((REMOTE, 53), b"hello ").0, b"hello 10.244.0.7");
        assert_eq!(pod.ask((REMOTE, 53), &[7; 4000]).0.len(), 4010, "in fragments too");
        assert!(unanswered(remote, (A, 53)));
        assert_eq!(only_reason(peers_datapath), Some(Reason::PolicyEgress));
        remote.isolate(peers_datapath, OPEN, OPEN);
        assert!(unanswered(remote, (A, 53)));
        assert_eq!(only_reason(datapath), Some(Reason::PolicyIngress));
    });
}

fn unanswered(pod: &Pod, to: (Ipv4Addr, u16)) -> bool {
    pod.netns.run(|| {
        let socket = UdpSocket::bind((pod.address, 0)).unwrap();
        socket.set_read_timeout(Some(SHORT)).unwrap();
        socket.send_to(b"hello", to).unwrap();
        socket.recv(&mut [0; 64]).is_err()
    })
}

#[test]
fn another_node_is_judged_like_everybody() {
    isolated(|lab| {
        let cluster = &cluster(lab);
        let Cluster { datapath, peer, pod, .. } = cluster;
        let node = Ipv4Addr::new(10, 244, 1, 1);
        pod.netns.run(|| echo(A, 53));
        pod.isolate(datapath, RULES, CLOSED);
        let heard = peer.run(|| {
            let socket = UdpSocket::bind((node, 0)).unwrap();
            socket.set_read_timeout(Some(SHORT)).unwrap();
            socket.send_to(b"hello", (A, 53)).unwrap();
            socket.recv(&mut [0; 64]).is_ok()
        });
        assert!(!heard);
        identify(datapath, node, FIRST);
        allow(datapath, Match::identity(RULES, FIRST));
        assert_eq!(peer.run(|| ask(node, (A, 53).into(), b"hello ")).0, b"hello 10.244.1.1");
    });
}
