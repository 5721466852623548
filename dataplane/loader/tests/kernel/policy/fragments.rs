//! Fragments go where their first one went.

use netkeel_dataplane_loader::common::{
    identities::ANY,
    policies::{CLOSED, Match, OPEN},
};

use super::*;
use crate::lab::isolated;

const MORE: u16 = 0x2000;

/// The first fragment of a packet, and a later one.
fn cut(packet: &Ip, id: u16) -> (Ip, Ip) {
    let first = Ip { id, fragment: MORE, ..packet.clone() };
    (first, Ip { id, fragment: 185, payload: vec![0; 100], ..packet.clone() })
}

#[test]
fn later_fragments_pass_once_the_first_one_has() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(CLOSED, OPEN);
        scene.b(RULES, CLOSED);
        allow(&scene.datapath, Match::ports(RULES, ANY, UDP, 53, 16));
        allow(&scene.datapath, Match::ports(RULES, ANY, TCP, 80, 16));
        let denied = Drop(Reason::PolicyIngress);
        for (id, packet, outcome) in [
            (10, datagram((A, 4000), (B, 53)), Redirect),
            (11, segment((A, 4000), (B, 80), ACK), Redirect),
            (12, datagram((A, 4000), (B, 54)), denied),
            (13, echo(8, A, B, 7), denied),
        ] {
            let (first, later) = cut(&packet, id);
            assert_eq!(scene.send(&later), Drop(Reason::Fragment), "before the first one, id {id}");
            assert_eq!(scene.send(&first), outcome, "id {id}");
            let outcome = if outcome == denied { Drop(Reason::Fragment) } else { outcome };
            assert_eq!(scene.send(&later), outcome, "id {id}");
        }
        let (_, later) = cut(&datagram((A, 4000), (B, 53)), 99);
        assert_eq!(scene.send(&later), Drop(Reason::Fragment), "of another packet");
        let (_, later) = cut(&datagram((B, 53), (A, 4000)), 10);
        assert_eq!(scene.send(&later), Drop(Reason::Fragment), "of the other end's packet");
    });
}

#[test]
fn fragmented_answers_and_echoes_pass() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(CLOSED, OPEN);
        scene.b(OPEN, CLOSED);
        for (id, there, back) in [
            (10, datagram((A, 4000), (B, 53)), datagram((B, 53), (A, 4000))),
            (11, echo(8, A, B, 7), echo(0, B, A, 7)),
        ] {
            for packet in [there, back] {
                let (first, later) = cut(&packet, id);
                assert_eq!((scene.send(&first), scene.send(&later)), (Redirect, Redirect), "id {id}");
            }
        }
        let (_, later) = cut(&packet(A, B, 47, vec![0; 100]), 12);
        assert_eq!(scene.send(&later), Redirect, "a protocol without ports needs no first one");
    });
}

#[test]
fn fragments_that_hide_or_overwrite_a_header_are_dropped() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(OPEN, OPEN);
        scene.b(OPEN, OPEN);
        let packet = segment((A, 4000), (B, 80), SYN);
        let (first, _) = cut(&packet, 10);
        assert_eq!(scene.send(&first), Redirect);
        let over_the_flags = Ip { id: 10, fragment: 1, payload: vec![0; 12], ..packet.clone() };
        assert_eq!(scene.send(&over_the_flags), Drop(Reason::Malformed));
        let half = Ip { id: 11, fragment: MORE, payload: packet.payload[..8].to_vec(), ..packet };
        assert_eq!(scene.send(&half), Drop(Reason::Malformed));
    });
}
