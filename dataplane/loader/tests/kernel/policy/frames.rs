//! Who may begin a flow, and that its answers pass.

use netkeel_dataplane_loader::{
    Table,
    common::{
        Address,
        conntrack::{self, Entry, Moment},
        flow::{Flow, Side},
        identities::NODE,
        policies::{CLOSED, OPEN},
        transport::{Kind, Transport},
    },
};

use super::*;
use crate::{
    flows,
    lab::isolated,
    packet::{arp, ethernet},
};

#[test]
fn tables_decide_in_both_directions_and_on_every_path() {
    isolated(|lab| flows::tables_decide_in_both_directions_and_on_every_path(&Scene::new(lab)));
}

#[test]
fn a_rule_allows_its_peer_its_protocol_and_its_ports() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        flows::a_rule_allows_its_peer_its_protocol_and_its_ports(&scene);
        let without_ports = packet(REMOTE, B, 47, vec![0; 8]);
        assert_eq!(scene.forward(&without_ports), Next, "a node, a protocol without ports");
    });
}

#[test]
fn answers_pass_whatever_is_denied_and_nothing_else_does() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        let without_ports = (packet(A, B, 47, vec![0; 8]), packet(B, A, 47, vec![0; 8]));
        flows::answers_pass_whatever_is_denied_and_nothing_else_does(&scene, vec![without_ports]);
        let other = packet(B, A, 50, vec![0; 8]);
        assert_eq!(scene.send(&other), Drop(Reason::PolicyEgress), "another protocol");
    });
}

#[test]
fn answers_from_outside_pass_and_the_rest_is_judged() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(CLOSED, OPEN);
        let answer = segment((OUTSIDE, 443), (A, 4000), SYN_ACK);
        assert_eq!(scene.forward(&answer), Drop(Reason::PolicyIngress));
        assert_eq!(scene.send(&segment((A, 4000), (OUTSIDE, 443), SYN)), Next);
        assert_eq!(scene.forward(&answer), Next);
        assert_eq!(scene.forward(&segment((OUTSIDE, 443), (A, 4001), SYN)), Drop(Reason::PolicyIngress));
        let with_options = Ip { options: vec![1; 8], ..answer };
        assert_eq!(scene.forward(&with_options), Next, "with options in the header");
    });
}

#[test]
fn a_connection_from_its_middle_is_judged_as_its_senders() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(CLOSED, OPEN);
        scene.b(OPEN, CLOSED);
        assert_eq!(scene.send(&segment((B, 80), (A, 4000), ACK)), Drop(Reason::PolicyEgress));
        assert_eq!(scene.send(&segment((A, 4000), (B, 80), ACK)), Redirect);
        assert_eq!(scene.send(&segment((B, 80), (A, 4000), ACK)), Redirect, "an answer now");
        assert_eq!(scene.send(&segment((A, 5000), (B, 80), RST)), Redirect);
        assert_eq!(
            scene.send(&segment((B, 80), (A, 5000), ACK)),
            Drop(Reason::PolicyEgress),
            "a reset begins nothing"
        );
    });
}

#[test]
fn the_own_node_passes_into_a_closed_pod_and_hears_its_answers() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(CLOSED, CLOSED);
        let node = Ipv4Addr::new(172, 18, 0, 1);
        identify(&scene.datapath, node, NODE);
        for (there, back) in [
            (segment((node, 4000), (A, 80), SYN), segment((A, 80), (node, 4000), SYN_ACK)),
            (datagram((node, 4000), (A, 53)), datagram((A, 53), (node, 4000))),
            (echo(8, node, A, 7), echo(0, A, node, 7)),
        ] {
            assert_eq!(scene.send(&back), Drop(Reason::PolicyEgress), "before it is an answer");
            let spoofed = scene.forward(&there);
            assert_eq!(spoofed, Drop(Reason::PolicyIngress), "an address proves nothing");
            assert_eq!(scene.send_from_node(&there), Next);
            assert_eq!(scene.send(&back), Next);
            next_epoch(&scene.datapath);
            assert_eq!(scene.send(&back), Next, "in a later epoch too");
        }
        assert_eq!(scene.send(&segment((A, 9999), (node, 10250), SYN)), Drop(Reason::PolicyEgress));
    });
}

#[test]
fn a_pod_that_is_not_known_is_closed() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.b(OPEN, OPEN);
        let to_a = segment((OUTSIDE, 4000), (A, 80), SYN);
        assert_eq!(scene.forward(&to_a), Drop(Reason::PolicyIngress));
        assert_eq!(scene.send_from_node(&segment((OUTSIDE, 4001), (A, 80), SYN)), Next);
        scene.a(OPEN, OPEN);
        assert_eq!(scene.forward(&to_a), Next);
        scene.datapath.endpoints().unwrap().remove(&A.into()).unwrap();
        let outcome = scene.send(&segment((A, 4000), (OUTSIDE, 80), SYN));
        assert_eq!(outcome, Drop(Reason::PolicyEgress), "half known is not known");
    });
}

#[test]
fn a_flow_to_a_pod_that_was_not_known_yet_is_judged_when_it_is() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(OPEN, OPEN);
        let there = segment((A, 4000), (B, 80), SYN);
        assert_eq!(scene.send(&there), Next, "B is nobody yet");
        let at_its_link = scene.deliver(&there, scene.links.0);
        assert_eq!(at_its_link, Drop(Reason::PolicyIngress), "and its link is closed");
        scene.b(CLOSED, OPEN);
        assert_eq!(scene.send(&there), Drop(Reason::PolicyIngress), "in the same epoch");
        scene.b(OPEN, OPEN);
        assert_eq!(scene.send(&there), Redirect);
    });
}

#[test]
fn what_is_no_ip_does_not_reach_a_pod_except_arp() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(OPEN, OPEN);
        let macs = (HOST_MAC, MACS.0);
        let way = Way { device: scene.links.0, came_over: 0 };
        for (frame, outcome) in [
            (arp(HOST_MAC, (HOST_MAC, OUTSIDE), A), Next),
            (ethernet(macs, 0x86dd, &[0x40; 40]), Drop(Reason::Malformed)),
            (ethernet(macs, 0x88cc, &[0; 40]), Drop(Reason::UnknownProtocol)),
            (packet(OUTSIDE, A, TCP, vec![0; 13]).frame(), Drop(Reason::Malformed)),
        ] {
            assert_eq!(scene.run("to_pod", &frame, way), outcome, "{}", decode(&frame));
        }
    });
}

#[test]
fn full_maps_forget_flows_and_open_nothing() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(CLOSED, OPEN);
        scene.b(OPEN, CLOSED);
        let mut connections = scene.datapath.connections().unwrap();
        let transport = Transport { kind: Kind::Tcp(ACK), source_port: 1, destination_port: 2 };
        for number in 0..conntrack::TCP_MAX + 1000 {
            let source = Address::v4(number.to_be_bytes());
            let (flow, _) = Flow::of(source, OUTSIDE.into(), TCP, &transport);
            let moment = Moment { now: u32::MAX, epoch: 0 };
            connections.put(&flow, &Entry::new(&flow, (&transport, Side::Low), 0, moment)).unwrap();
        }
        assert!(connections.dump().unwrap().len() <= conntrack::TCP_MAX as usize);
        let answer = segment((B, 80), (A, 4000), SYN_ACK);
        assert_eq!(scene.send(&answer), Drop(Reason::PolicyEgress));
        assert_eq!(scene.send(&segment((A, 4000), (B, 80), SYN)), Redirect);
        assert_eq!(scene.send(&answer), Redirect);
        assert_eq!(scene.send(&segment((B, 80), (A, 4001), SYN)), Drop(Reason::PolicyEgress));
    });
}
