//! Who may begin a flow, and that its answers pass: what the programs decide alike in both families.

use netkeel_dataplane_loader::{
    Table,
    common::{
        Reason,
        identities::{ANY, FIRST, NODE, WORLD},
        policies::{CLOSED, Match, OPEN},
        tunnels::Block,
    },
};

use crate::scene::{
    Outcome::{Drop, Next, Redirect},
    Packet, RULES, SYN, SYN_ACK, Scene, TCP, UDP, allow, identify,
};

pub(crate) fn tables_decide_in_both_directions_and_on_every_path<P: Packet>(scene: &Scene<P>) {
    let mut port = 1000;
    let mut fresh = |from, to| {
        port += 1;
        P::segment((from, port), (to, 80), SYN)
    };
    scene.b(OPEN, OPEN);
    for (egress, outcome) in
        [(OPEN, Redirect), (CLOSED, Drop(Reason::PolicyEgress)), (9, Drop(Reason::PolicyEgress))]
    {
        scene.a(CLOSED, egress);
        assert_eq!(scene.send(&fresh(P::A, P::B)), outcome, "to a pod, egress {egress}");
        assert_eq!(scene.send(&fresh(P::A, P::REMOTE)), outcome, "to a remote pod, egress {egress}");
        let outcome = if outcome == Redirect { Next } else { outcome };
        assert_eq!(scene.send(&fresh(P::A, P::OUTSIDE)), outcome, "outside, egress {egress}");
    }
    scene.a(OPEN, OPEN);
    for (ingress, outcome) in
        [(OPEN, Redirect), (CLOSED, Drop(Reason::PolicyIngress)), (9, Drop(Reason::PolicyIngress))]
    {
        scene.b(ingress, CLOSED);
        assert_eq!(scene.send(&fresh(P::A, P::B)), outcome, "from a pod, ingress {ingress}");
        let outcome = if outcome == Redirect { Next } else { outcome };
        assert_eq!(scene.forward(&fresh(P::OUTSIDE, P::B)), outcome, "from outside, ingress {ingress}");
    }
}

/// B's rules afterwards: ports of A, UDP of the CIDR around the outside, everything of nodes, one port of everybody.
pub(crate) fn a_rule_allows_its_peer_its_protocol_and_its_ports<P: Packet>(scene: &Scene<P>) {
    let datapath = &scene.datapath;
    scene.a(OPEN, OPEN);
    scene.b(RULES, OPEN);
    identify(datapath, P::A, FIRST);
    identify(datapath, P::REMOTE, NODE);
    let (around, leaf, in_leaf) = P::around_outside();
    let mut cidrs = datapath.cidrs().unwrap();
    cidrs.put(&around, &(FIRST + 1)).unwrap();
    cidrs.put(&leaf, &(FIRST + 2)).unwrap();
    cidrs.put(&Block::single(P::A.into()), &(FIRST + 1)).unwrap();
    for entry in [
        Match::ports(RULES, FIRST, TCP, 8080, 12),
        Match::protocol(RULES, FIRST + 1, UDP),
        Match::identity(RULES, NODE),
        Match::ports(RULES, ANY, TCP, 443, 16),
        Match::ports(RULES, WORLD, UDP, 5000, 16),
        Match::identity(RULES + 1, FIRST),
    ] {
        allow(datapath, entry);
    }
    let denied = Drop(Reason::PolicyIngress);
    let segment = |from, port| P::segment((from, 1), (P::B, port), SYN);
    let datagram = |from, port| P::datagram((from, 1), (P::B, port));
    for (story, packet, outcome) in [
        ("a port of the prefix", segment(P::A, 8081), Redirect),
        ("a port behind it", segment(P::A, 8096), denied),
        ("everybody's port", segment(P::A, 443), Redirect),
        ("the port over UDP", datagram(P::A, 443), denied),
        ("a pod's identity comes before its block's", datagram(P::A, 53), denied),
        ("a block", datagram(P::OUTSIDE, 53), Next),
        ("not its TCP", segment(P::OUTSIDE, 53), denied),
        ("a leaf taken out of it", datagram(in_leaf, 53), denied),
        ("a node, any protocol", P::echo(false, P::REMOTE, P::B, 7), Next),
        ("the world", datagram(P::ROUTER, 5000), Next),
        ("the world's other ports", datagram(P::ROUTER, 5001), denied),
        ("an echo where ports are named", P::echo(false, P::A, P::B, 7), denied),
    ] {
        let run = if packet.ends().0 == P::A { scene.send(&packet) } else { scene.forward(&packet) };
        assert_eq!(run, outcome, "{story}");
    }
}

/// A may send and B may not; `more` are flows of a family that has them.
pub(crate) fn answers_pass_whatever_is_denied_and_nothing_else_does<P: Packet>(
    scene: &Scene<P>,
    more: Vec<(P, P)>,
) {
    let (a, b) = ((P::A, 4000), P::B);
    scene.a(CLOSED, OPEN);
    scene.b(OPEN, CLOSED);
    let mut flows = vec![
        (P::segment(a, (b, 80), SYN), P::segment((b, 80), a, SYN_ACK)),
        (P::datagram(a, (b, 53)), P::datagram((b, 53), a)),
        (P::echo(false, P::A, b, 7), P::echo(true, b, P::A, 7)),
    ];
    flows.extend(more);
    for (_, back) in &flows {
        assert_eq!(scene.send(back), Drop(Reason::PolicyEgress), "before it is one");
    }
    for (there, back) in &flows {
        assert_eq!((scene.send(there), scene.send(back)), (Redirect, Redirect));
    }
    scene.a(CLOSED, CLOSED);
    for (there, back) in &flows {
        assert_eq!((scene.send(there), scene.send(back)), (Redirect, Redirect), "in the same epoch");
    }
    for (story, packet) in [
        ("another port", P::segment((b, 81), a, SYN_ACK)),
        ("to another port", P::datagram((b, 53), (P::A, 4001))),
        ("a connection of its own between the same ports", P::segment((b, 80), a, SYN)),
        ("an echo of its own with the same identifier", P::echo(false, b, P::A, 7)),
        ("the answer to another echo", P::echo(true, b, P::A, 8)),
    ] {
        assert_eq!(scene.send(&packet), Drop(Reason::PolicyEgress), "{story}");
    }
    assert_eq!(scene.send(&flows[0].0), Redirect, "what was dropped took nothing away");
}
