//! Neighbour discovery does not leave a pod's link, and says nothing of others.

use netkeel_dataplane_loader::common::policies::{CLOSED, OPEN};

use super::*;
use crate::{lab::isolated, packet::icmp6_body};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// A message about `target` from A with its MAC address behind it in this option.
fn message(kind: u8, target: Ipv6Addr, option: u8, to: Ipv6Addr) -> Ip6 {
    let body = [&[0; 4], &target.octets()[..], &[option, 1], &MACS.0].concat();
    Ip6 { hop_limit: 255, ..packet(A, to, ICMPV6, icmp6_body(kind, &body)) }
}

#[test]
fn a_pod_asks_for_its_gateway_alone_and_routers_are_not_heard() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(CLOSED, CLOSED);
        scene.b(OPEN, OPEN);
        let group: Ipv6Addr = "ff02::1:ff00:1".parse().unwrap();
        let all: Ipv6Addr = "ff02::1".parse().unwrap();
        let ask = message(SOLICITATION, gateway(), 1, group);
        let tell = message(ADVERTISEMENT, A, 2, gateway());
        let denied = Drop(Reason::NeighbourDiscovery);
        let body = |bytes: &[u8]| icmp6_body(SOLICITATION, bytes);
        let advertisement = packet(A, all, ICMPV6, icmp6_body(134, &[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]));
        let report =
            packet(Ipv6Addr::UNSPECIFIED, "ff02::16".parse().unwrap(), ICMPV6, icmp6_body(143, &[0; 20]));
        for (story, packet, outcome) in [
            ("the gateway", ask.clone(), Next),
            ("the gateway, itself asked", Ip6 { to: gateway(), ..ask.clone() }, Next),
            ("that it is there", tell.clone(), Next),
            ("another pod", message(SOLICITATION, B, 1, group), denied),
            ("as another", Ip6 { from: B, mac: (MACS.0, HOST_MAC), ..ask.clone() }, denied),
            ("as nobody", Ip6 { from: Ipv6Addr::UNSPECIFIED, ..ask.clone() }, denied),
            ("that it is another", message(ADVERTISEMENT, B, 2, all), denied),
            ("that it is the gateway", message(ADVERTISEMENT, gateway(), 2, all), denied),
            ("from afar", Ip6 { hop_limit: 64, ..ask.clone() }, denied),
            (
                "with more behind it",
                Ip6 { payload: [&ask.payload[..], &[0; 8]].concat(), ..ask.clone() },
                denied,
            ),
            ("cut", Ip6 { payload: body(&[0; 12]), ..ask.clone() }, denied),
            ("behind options", behind(0, [0, 0, 1, 4, 0, 0, 0, 0], &ask), denied),
            ("in fragments", fragment(&ask, (0, true), 1), denied),
            ("an advertisement of a router", Ip6 { hop_limit: 255, ..advertisement }, denied),
            ("a search for routers", message(133, gateway(), 1, "ff02::2".parse().unwrap()), denied),
            ("a redirect", message(137, gateway(), 2, OUTSIDE), denied),
            (
                "a report of group membership",
                behind(0, [0, 0, 5, 2, 0, 0, 0, 0], &report),
                Drop(Reason::Multicast),
            ),
        ] {
            let run = scene.run("from_pod", &packet.frame(), scene.links.0.into());
            assert_eq!(run, outcome, "{story}");
        }
    });
}

#[test]
fn a_pod_hears_its_own_node_alone() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(OPEN, OPEN);
        let ask = Ip6 { from: "fe80::2".parse().unwrap(), to: A, ..message(SOLICITATION, A, 1, A) };
        let router = Ip6 { from: "fe80::2".parse().unwrap(), ..message(134, gateway(), 1, A) };
        assert_eq!(scene.send_from_node(&ask), Next);
        for (story, packet) in [("asked", &ask), ("by a router", &router)] {
            assert_eq!(scene.forward(packet), Drop(Reason::NeighbourDiscovery), "{story}");
        }
        let outcome = scene.arrive(&Ip6 { from: REMOTE, ..ask }, HOST_MAC);
        assert_eq!(outcome, Drop(Reason::NeighbourDiscovery), "by a pod of another node, over the underlay");
    });
}
