//! Extension headers and fragments: what cannot be read is closed.

use netkeel_dataplane_loader::common::{
    identities::ANY,
    policies::{CLOSED, Match, OPEN},
};

use super::*;
use crate::lab::isolated;

/// Options that fill one header.
const OPTIONS: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

#[test]
fn a_policy_sees_the_ports_behind_options_and_nothing_hides_behind_others() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(CLOSED, OPEN);
        scene.b(RULES, OPEN);
        allow(&scene.datapath, Match::ports(RULES, ANY, UDP, 53, 16));
        let (good, bad) = (datagram((A, 4000), (B, 53)), datagram((A, 4000), (B, 54)));
        for kind in [0, 60] {
            assert_eq!(scene.send(&behind(kind, OPTIONS, &good)), Redirect, "header {kind}");
            assert_eq!(
                scene.send(&behind(kind, OPTIONS, &bad)),
                Drop(Reason::PolicyIngress),
                "header {kind}"
            );
        }
        let twice = behind(0, OPTIONS, &behind(60, OPTIONS, &good));
        assert_eq!(scene.send(&twice), Redirect);
        let many = (0..5).fold(good.clone(), |packet, _| behind(60, OPTIONS, &packet));
        let cut = Ip6 { next: 0, payload: vec![17, 9, 0, 0], ..good.clone() };
        let beyond = behind(60, [0, 200, 1, 4, 0, 0, 0, 0], &good);
        for (story, packet, reason) in [
            ("a route", behind(43, OPTIONS, &good), Reason::ExtensionHeader),
            ("mobility", behind(135, OPTIONS, &good), Reason::ExtensionHeader),
            ("an experiment", behind(253, OPTIONS, &good), Reason::ExtensionHeader),
            ("too many", many, Reason::ExtensionHeader),
            ("cut", cut, Reason::ExtensionHeader),
            ("longer than the packet", beyond, Reason::Malformed),
            ("half a header", Ip6 { payload: good.payload[..7].to_vec(), ..good.clone() }, Reason::Malformed),
            ("encrypted", packet(A, B, 50, vec![0; 16]), Reason::PolicyIngress),
        ] {
            assert_eq!(scene.send(&packet), Drop(reason), "{story}");
        }
    });
}

#[test]
fn later_fragments_pass_once_the_first_one_has() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(CLOSED, OPEN);
        scene.b(RULES, CLOSED);
        allow(&scene.datapath, Match::ports(RULES, ANY, UDP, 53, 16));
        let denied = Drop(Reason::PolicyIngress);
        for (id, packet, outcome) in [
            (0x0001_0010, datagram((A, 4000), (B, 53)), Redirect),
            (0x0002_0010, datagram((A, 4000), (B, 54)), denied),
            (0x0003_0010, echo(128, A, B, 7), denied),
        ] {
            let first = fragment(&packet, (0, true), id);
            let later = fragment(&Ip6 { payload: vec![0; 100], ..packet }, (185, false), id);
            assert_eq!(scene.send(&later), Drop(Reason::Fragment), "before the first one, {id:#x}");
            assert_eq!(scene.send(&first), outcome, "{id:#x}");
            let outcome = if outcome == denied { Drop(Reason::Fragment) } else { outcome };
            assert_eq!(scene.send(&later), outcome, "{id:#x}");
        }
        let other = fragment(&datagram((A, 4000), (B, 53)), (185, false), 0x0001_0011);
        assert_eq!(scene.send(&other), Drop(Reason::Fragment), "of another packet");
        let whole = fragment(&datagram((A, 4001), (B, 53)), (0, false), 9);
        assert_eq!(scene.send(&whole), Redirect, "one that is the whole packet");
    });
}

#[test]
fn fragments_that_hide_or_overwrite_a_header_are_dropped() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(OPEN, OPEN);
        scene.b(OPEN, OPEN);
        let packet = segment((A, 4000), (B, 80), SYN);
        assert_eq!(scene.send(&fragment(&packet, (0, true), 10)), Redirect);
        let over = fragment(&Ip6 { payload: vec![0; 12], ..packet.clone() }, (1, false), 10);
        assert_eq!(scene.send(&over), Drop(Reason::Malformed));
        let half = Ip6 { payload: packet.payload[..8].to_vec(), ..packet.clone() };
        assert_eq!(scene.send(&fragment(&half, (0, true), 11)), Drop(Reason::Malformed));
        let hidden = fragment(&behind(60, OPTIONS, &packet), (0, true), 12);
        assert_eq!(scene.send(&hidden), Drop(Reason::ExtensionHeader));
    });
}
