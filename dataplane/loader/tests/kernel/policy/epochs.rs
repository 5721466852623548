//! A change of policy ends the flows that it forbids, at their next packet.

use netkeel_dataplane_loader::common::policies::{CLOSED, OPEN};

use super::*;
use crate::lab::isolated;

#[test]
fn a_forbidden_flow_ends_at_its_next_packet_in_either_direction() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        for (port, answer_first) in [(4000, false), (4001, true)] {
            scene.a(OPEN, OPEN);
            scene.b(OPEN, OPEN);
            next_epoch(&scene.datapath);
            let there = |flags| segment((A, port), (B, 80), flags);
            let back = |flags| segment((B, 80), (A, port), flags);
            for packet in [there(SYN), back(SYN_ACK), there(ACK)] {
                assert_eq!(scene.send(&packet), Redirect);
            }
            scene.a(OPEN, CLOSED); // B may still begin flows to A
            next_epoch(&scene.datapath);
            let denied = Drop(Reason::PolicyEgress);
            let mut packets = [there(ACK), back(ACK), back(ACK), there(ACK)];
            if answer_first {
                packets.rotate_left(1);
            }
            for packet in packets {
                assert_eq!(scene.send(&packet), denied, "{}", decode(&packet.frame()));
            }
            assert_eq!(scene.send(&back(SYN)), Redirect, "a connection of B's own may begin");
        }
    });
}

#[test]
fn a_flow_that_is_still_allowed_goes_on_and_one_that_is_allowed_again_resumes() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(CLOSED, OPEN);
        scene.b(OPEN, CLOSED);
        let (there, back) = (segment((A, 4000), (B, 80), ACK), segment((B, 80), (A, 4000), ACK));
        assert_eq!(scene.send(&there), Redirect);
        next_epoch(&scene.datapath);
        assert_eq!(scene.send(&back), Redirect, "judged as A began it");
        scene.b(CLOSED, CLOSED);
        next_epoch(&scene.datapath);
        assert_eq!(scene.send(&back), Drop(Reason::PolicyIngress));
        assert_eq!(scene.send(&there), Drop(Reason::PolicyIngress));
        scene.b(OPEN, CLOSED);
        next_epoch(&scene.datapath);
        assert_eq!(scene.send(&back), Redirect);
        assert_eq!(scene.send(&there), Redirect);
    });
}

#[test]
fn datagrams_of_the_other_end_are_its_own_when_they_may_be() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(OPEN, OPEN);
        scene.b(OPEN, OPEN);
        let (there, back) = (datagram((A, 7946), (B, 7946)), datagram((B, 7946), (A, 7946)));
        assert_eq!(scene.send(&there), Redirect);
        scene.b(CLOSED, OPEN);
        next_epoch(&scene.datapath);
        assert_eq!(scene.send(&there), Drop(Reason::PolicyIngress));
        assert_eq!(scene.send(&back), Redirect, "B may begin a flow to A");
        assert_eq!(scene.send(&there), Redirect, "and A's are the answers");
        scene.a(CLOSED, OPEN);
        next_epoch(&scene.datapath);
        assert_eq!(scene.send(&back), Drop(Reason::PolicyIngress));
        assert_eq!(scene.send(&there), Drop(Reason::PolicyIngress));
    });
}

#[test]
fn what_the_node_still_sends_does_not_keep_a_forbidden_flow() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        let node = Ipv4Addr::new(172, 18, 0, 1);
        for (there, back) in [
            (segment((A, 4000), (node, 53), ACK), segment((node, 53), (A, 4000), ACK)),
            (datagram((A, 4000), (node, 53)), datagram((node, 53), (A, 4000))),
        ] {
            scene.a(CLOSED, OPEN);
            next_epoch(&scene.datapath);
            assert_eq!((scene.send(&there), scene.send_from_node(&back)), (Next, Next));
            scene.a(CLOSED, CLOSED);
            next_epoch(&scene.datapath);
            for _ in 0..2 {
                assert_eq!(scene.send_from_node(&back), Next, "the node always passes into its pods");
                assert_eq!(scene.send(&there), Drop(Reason::PolicyEgress));
            }
        }
    });
}
