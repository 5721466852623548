//! Who may begin a flow, that its answers pass, and that errors pass with the flow that they are about.

use netkeel_dataplane_loader::common::policies::{CLOSED, OPEN};

use super::*;
use crate::{flows, lab::isolated};

#[test]
fn tables_decide_in_both_directions_and_on_every_path() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        flows::tables_decide_in_both_directions_and_on_every_path(&scene);
        let unknown = segment((OUTSIDE, 4000), (A, 80), SYN);
        scene.datapath.endpoints().unwrap().remove(&A.into()).unwrap();
        assert_eq!(scene.forward(&unknown), Drop(Reason::PolicyIngress), "a pod that is not known is closed");
        assert_eq!(scene.send_from_node(&unknown), Next, "but to its own node");
    });
}

#[test]
fn a_rule_allows_its_peer_its_protocol_and_its_ports() {
    isolated(|lab| flows::a_rule_allows_its_peer_its_protocol_and_its_ports(&Scene::new(lab)));
}

#[test]
fn answers_pass_whatever_is_denied_and_nothing_else_does() {
    isolated(|lab| {
        flows::answers_pass_whatever_is_denied_and_nothing_else_does(&Scene::new(lab), Vec::new());
    });
}

/// An error about a packet: its header and the eight bytes behind it.
fn error(kind: u8, from: Ipv6Addr, to: Ipv6Addr, about: &Ip6) -> Ip6 {
    packet(from, to, ICMPV6, icmp6(kind, 0, &about.packet()[..48]))
}

#[test]
fn an_error_about_a_known_flow_passes_and_any_other_is_judged() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(CLOSED, OPEN);
        let flows = [
            segment((A, 4000), (OUTSIDE, 443), SYN),
            datagram((A, 4000), (OUTSIDE, 53)),
            echo(128, A, OUTSIDE, 7),
        ];
        let denied = Drop(Reason::PolicyIngress);
        for sent in &flows {
            let too_big = error(2, ROUTER, A, sent);
            assert_eq!(scene.forward(&too_big), denied, "of a packet that was never sent");
            assert_eq!(scene.send(sent), Next);
            for kind in 1..=4 {
                assert_eq!(scene.forward(&error(kind, ROUTER, A, sent)), Next, "type {kind}");
            }
            let with_options = behind(60, [0, 0, 1, 4, 0, 0, 0, 0], &too_big);
            assert_eq!(scene.forward(&with_options), Next, "with options");
        }
        let unsent = segment((A, 4000), (OUTSIDE, 444), SYN);
        let answer = segment((OUTSIDE, 443), (A, 4000), SYN_ACK);
        let fragmented = fragment(&flows[1], (0, true), 1);
        for (story, packet) in [
            ("about another flow", error(1, ROUTER, A, &unsent)),
            ("about what A received", error(1, ROUTER, A, &answer)),
            ("about a fragment", error(1, ROUTER, A, &fragmented)),
            ("no error", error(100, ROUTER, A, &flows[0])),
            ("about nothing", packet(ROUTER, A, ICMPV6, icmp6(1, 0, &[0; 48]))),
            ("about half a header", packet(ROUTER, A, ICMPV6, icmp6(1, 0, &[0x60; 20]))),
        ] {
            assert_eq!(scene.forward(&packet), denied, "{story}");
        }
        assert_eq!(scene.send_from_node(&error(1, ROUTER, A, &unsent)), Next, "the own node's");
        let to_remote = datagram((A, 4000), (REMOTE, 53));
        let refused = error(1, REMOTE, A, &to_remote);
        assert_eq!(scene.arrive(&refused, HOST_MAC), denied, "over the underlay, of what was never sent");
        assert_eq!((scene.send(&to_remote), scene.arrive(&refused, HOST_MAC)), (Redirect, Redirect));
    });
}

#[test]
fn a_pod_reports_what_was_sent_to_it_and_nothing_else() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(CLOSED, OPEN);
        scene.b(OPEN, CLOSED);
        let (to_b, outside) = (datagram((A, 4000), (B, 53)), datagram((A, 4000), (OUTSIDE, 53)));
        assert_eq!((scene.send(&to_b), scene.send(&outside)), (Redirect, Next));
        assert_eq!(scene.send(&error(1, B, A, &to_b)), Redirect);
        assert_eq!(scene.send(&error(1, B, A, &outside)), Drop(Reason::PolicyEgress), "about another's flow");
    });
}
