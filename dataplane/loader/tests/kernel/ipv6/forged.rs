//! Forged IPv6 by the hundred thousand: none leaves the pod's link, and each is counted.

use super::*;
use netkeel_dataplane_loader::common::policies::OPEN;

use crate::{forged::Random, lab::isolated, packet::icmp6_body, verdicts::DROP};

const FORGED: u64 = 100_000;

/// Router advertisement and redirect (RFC 4861), which no pod may send.
const ROUTERS: [u8; 2] = [134, 137];
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const GATEWAY_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

impl Random {
    /// An address that is not the pod's: near it, another's, link-local, mapped, or any.
    fn address6_but(&mut self, own: Ipv6Addr) -> Ipv6Addr {
        let near = Ipv6Addr::from(u128::from(own) ^ (1 << self.below(128)));
        let any = Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|_| self.byte()));
        let others =
            [near, any, B, REMOTE, OUTSIDE, GATEWAY_ADDRESS, Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED];
        let picked = self.pick(&others);
        if picked == own { near } else { picked }
    }

    /// Something that the pod A must not send.
    fn frame6(&mut self) -> Vec<u8> {
        let ports = (u16::from_le_bytes([self.byte(), self.byte()]), self.pick(&[53, 80, 8472]));
        let (next, payload) = match self.below(3) {
            0 => (TCP, tcp(ports, self.byte())),
            1 => (UDP, udp(ports, b"forged")),
            _ => (ICMPV6, icmp6(128, 7, b"forged")),
        };
        let to = self.pick(&[B, REMOTE, OUTSIDE, A]);
        let own = Ip6 { mac: (MACS.0, HOST_MAC), from: A, to, hop_limit: 255, next, payload };
        let target = self.address6_but(A).octets();
        let about_another = |kind, hop_limit| Ip6 {
            next: ICMPV6,
            hop_limit,
            payload: icmp6_body(kind, &[&[0; 4][..], &target].concat()),
            ..own.clone()
        };
        match self.below(6) {
            0 | 1 => Ip6 { from: self.address6_but(A), ..own }.frame(),
            2 => Ip6 { mac: (self.mac_but(MACS.0), HOST_MAC), ..own }.frame(),
            3 => about_another(self.pick(&ROUTERS), 255).frame(),
            4 => about_another(NEIGHBOUR_ADVERTISEMENT, 255).frame(),
            // To a group: all nodes, all routers, a solicited node's, any.
            _ => {
                let mut group = self.address6_but(A).octets();
                group[0] = 0xff;
                Ip6 { to: group.into(), ..own }.frame()
            }
        }
    }
}

#[test]
fn a_hundred_thousand_frames_that_a_pod_must_not_send_are_dropped_and_counted() {
    isolated(|lab| {
        let scene = Scene::new(lab);
        scene.a(OPEN, OPEN);
        scene.b(OPEN, OPEN);
        let mut random = Random::new(0x6e65_746b_6565_6c36);
        for number in 0..FORGED {
            let frame = random.frame6();
            let action = scene.datapath.dry_run("from_pod", &frame, Way::from(scene.links.0)).unwrap().action;
            assert_eq!(action, DROP, "number {number}: {}", decode(&frame));
        }
        let counted = counted(&scene.datapath);
        assert_eq!(counted.values().sum::<u64>(), FORGED, "{counted:?}");
        for reason in [Reason::SpoofedSource, Reason::NeighbourDiscovery, Reason::Multicast] {
            assert!(counted[&reason] > FORGED / 20, "{counted:?}");
        }
    });
}
