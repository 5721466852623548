//! A pod sends only as itself, and its packets go where their destination lives.

use std::net::Ipv4Addr;

use netkeel_dataplane_loader::common::policies::OPEN;

use super::*;
use crate::{lab::isolated, packet::Datagram};

#[test]
fn a_pod_sends_only_as_itself() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(OPEN, OPEN);
        scene.b(OPEN, OPEN);
        let own = datagram((A, 4000), (OUTSIDE, 53));
        let spoofed = Drop(Reason::SpoofedSource);
        let link = scene.links.0.into();
        let run = |packet: &Ip6| scene.run("from_pod", &packet.frame(), link);
        let mapped = Ipv4Addr::new(10, 244, 0, 7).to_ipv6_mapped();
        for (story, packet, outcome) in [
            ("own address", own.clone(), Next),
            ("another pod's", Ip6 { from: B, ..own.clone() }, spoofed),
            ("another MAC address", Ip6 { mac: (MACS.1, HOST_MAC), ..own.clone() }, spoofed),
            ("nobody's", Ip6 { from: Ipv6Addr::UNSPECIFIED, ..own.clone() }, spoofed),
            ("a link-local one", Ip6 { from: "fe80::7".parse().unwrap(), ..own.clone() }, spoofed),
            ("a mapped one", Ip6 { from: mapped, ..own.clone() }, Drop(Reason::Malformed)),
            ("to a mapped one", Ip6 { to: mapped, ..own.clone() }, Drop(Reason::Malformed)),
            ("spoofed towards a local pod", Ip6 { from: REMOTE, to: B, ..own.clone() }, spoofed),
            ("spoofed towards a remote pod", Ip6 { from: B, to: REMOTE, ..own.clone() }, spoofed),
            ("to all nodes", Ip6 { to: "ff02::1".parse().unwrap(), ..own }, Drop(Reason::Multicast)),
        ] {
            assert_eq!(run(&packet), outcome, "{story}");
        }
    });
}

#[test]
fn a_pods_packet_goes_where_its_destination_lives() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(OPEN, OPEN);
        scene.b(OPEN, OPEN);
        for (story, to, outcome) in [
            ("local pod", B, Redirect),
            ("remote pod", REMOTE, Redirect),
            ("no pod in the own block", Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0x99), Next),
            ("outside", OUTSIDE, Next),
        ] {
            assert_eq!(scene.send(&datagram((A, 4000), (to, 53))), outcome, "{story}");
        }
        scene.datapath.set_config(&Config::new(&[Address::v4([172, 18, 0, 1])], ifindex("vx0"))).unwrap();
        let lost = scene.send(&datagram((A, 4001), (REMOTE, 53)));
        assert_eq!(lost, Drop(Reason::TunnelKey), "the node has no address of the other's family");
    });
}

#[test]
fn a_pod_with_both_families_sends_in_both_and_as_nobody_else() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        let four = Ipv4Addr::new(10, 244, 0, 7);
        scene.a(OPEN, OPEN);
        let link = Link::new(four.into(), MACS.0, OPEN).with(address(A));
        scene.datapath.links().unwrap().put(&scene.links.0, &link).unwrap();
        let endpoint = Endpoint::new(scene.links.0, OPEN);
        scene.datapath.endpoints().unwrap().put(&four.into(), &endpoint).unwrap();
        let outside = Ipv4Addr::new(192, 0, 2, 1);
        let from = |from| {
            let mac = (MACS.0, HOST_MAC);
            Datagram { mac, from: (from, 4000), to: (outside, 53), payload: Vec::new() }.frame()
        };
        let way = scene.links.0.into();
        assert_eq!(scene.run("from_pod", &from(four), way), Next);
        let other = Ipv4Addr::new(10, 244, 0, 8);
        assert_eq!(scene.run("from_pod", &from(other), way), Drop(Reason::SpoofedSource));
        assert_eq!(scene.send(&datagram((A, 4000), (OUTSIDE, 53))), Next);
        let spoof = Ip6 { mac: (MACS.0, HOST_MAC), ..datagram((B, 4000), (OUTSIDE, 53)) };
        assert_eq!(scene.run("from_pod", &spoof.frame(), way), Drop(Reason::SpoofedSource));
    });
}

#[test]
fn what_the_node_sends_into_the_overlay_needs_a_known_destination() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        let overlay = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0);
        let way: Way = ifindex("vx0").into();
        for (story, to, outcome) in [
            ("remote pod", REMOTE, Next),
            ("nobody", Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 9, 9), Drop(Reason::NoTunnel)),
            ("a report of group membership", "ff02::16".parse().unwrap(), Drop(Reason::Multicast)),
        ] {
            let frame = datagram((overlay, 4000), (to, 53)).frame();
            assert_eq!(scene.run("to_overlay", &frame, way), outcome, "{story}");
        }
        let frame = datagram((REMOTE, 53), (A, 4000)).frame();
        assert_eq!(
            scene.run("from_overlay", &frame, way),
            Drop(Reason::ForgedTunnel),
            "without an outer header"
        );
    });
}
