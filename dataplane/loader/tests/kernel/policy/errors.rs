//! ICMP errors pass with the flow that they are about.

use netkeel_dataplane_loader::common::policies::{CLOSED, OPEN};

use super::*;
use crate::lab::isolated;

const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;

/// An error about a packet: its header and the eight bytes behind it.
fn error(kind: u8, from: Ipv4Addr, to: Ipv4Addr, about: &Ip) -> Ip {
    let header = 20 + about.options.len();
    packet(from, to, ICMP, icmp(kind, 0, &about.packet()[..header + 8]))
}

#[test]
fn an_error_about_a_known_flow_passes_and_any_other_is_judged() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(CLOSED, OPEN);
        let flows = [
            segment((A, 4000), (OUTSIDE, 443), SYN),
            datagram((A, 4000), (OUTSIDE, 53)),
            Ip { options: vec![1; 12], ..datagram((A, 4002), (OUTSIDE, 53)) },
            echo(8, A, OUTSIDE, 7),
        ];
        let denied = Drop(Reason::PolicyIngress);
        for sent in &flows {
            let too_big = error(UNREACHABLE, ROUTER, A, sent);
            assert_eq!(scene.forward(&too_big), denied, "of a packet that was never sent");
            assert_eq!(scene.send(sent), Next);
            assert_eq!(scene.forward(&too_big), Next);
            assert_eq!(scene.forward(&error(TIME_EXCEEDED, ROUTER, A, sent)), Next);
            assert_eq!(scene.forward(&Ip { options: vec![1; 8], ..too_big.clone() }), Next, "with options");
        }
        let unsent = segment((A, 4000), (OUTSIDE, 444), SYN);
        let answer = segment((OUTSIDE, 443), (A, 4000), SYN_ACK);
        let later = Ip { fragment: 5, ..flows[1].clone() };
        let redirect = error(5, ROUTER, A, &flows[0]);
        for (story, packet) in [
            ("about another flow", error(UNREACHABLE, ROUTER, A, &unsent)),
            ("about what A received", error(UNREACHABLE, ROUTER, A, &answer)),
            ("about a later fragment", error(UNREACHABLE, ROUTER, A, &later)),
            ("no error", redirect),
            ("about nothing", packet(ROUTER, A, ICMP, icmp(UNREACHABLE, 0, &[0; 28]))),
            ("about half a header", packet(ROUTER, A, ICMP, icmp(UNREACHABLE, 0, &[0x45; 12]))),
        ] {
            assert_eq!(scene.forward(&packet), denied, "{story}");
        }
        assert_eq!(scene.send_from_node(&error(UNREACHABLE, ROUTER, A, &unsent)), Next, "the own node's");
        scene.a(OPEN, OPEN);
        assert_eq!(scene.forward(&error(UNREACHABLE, ROUTER, A, &unsent)), Next, "judged without ports");
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
        assert_eq!(scene.send(&error(UNREACHABLE, B, A, &to_b)), Redirect);
        let forged = error(UNREACHABLE, B, A, &outside);
        assert_eq!(scene.send(&forged), Drop(Reason::PolicyEgress), "about another's flow");
    });
}

#[test]
fn an_error_about_a_flow_that_is_forbidden_since_is_judged() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(CLOSED, OPEN);
        let sent = datagram((A, 4000), (OUTSIDE, 53));
        let too_big = error(UNREACHABLE, ROUTER, A, &sent);
        assert_eq!(scene.send(&sent), Next);
        next_epoch(&scene.datapath);
        assert_eq!(scene.forward(&too_big), Next, "still allowed");
        scene.a(CLOSED, CLOSED);
        next_epoch(&scene.datapath);
        assert_eq!(scene.forward(&too_big), Drop(Reason::PolicyIngress));
    });
}
