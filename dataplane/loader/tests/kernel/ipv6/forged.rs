//! Forged IPv6 by the hundred thousand: none leaves the pod's link, none comes out of the overlay, and each is counted.

use std::{net::UdpSocket, time::Duration};

use super::{
    overlay::{Cluster, FOUR, NODES, PORT, SIX, Underlay, cluster, with_checksum},
    *,
};
use netkeel_dataplane_loader::common::{VNI, policies::OPEN};

use crate::{
    forged::Random,
    lab::isolated,
    packet::{icmp6_body, vxlan},
    verdicts::DROP,
};

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

impl Random {
    /// Who of peer, third node and stranger sends it, the network identifier, and the inner frame. Something is wrong with each.
    fn tunnelled6(&mut self) -> (usize, u32, Vec<u8>) {
        let to = self.pick(&[A, NODES[0]]);
        let mac = (self.mac_but(MACS.0), MACS.0);
        let inner = |from: Ipv6Addr| Ip6 { mac, ..with_checksum((from, 4000), (to, 53)) }.frame();
        let of_third = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 2, self.byte().into());
        match self.below(6) {
            0 => (0, VNI, inner(of_third)),
            1 => (1, VNI, inner(REMOTE)),
            2 => (2, VNI, inner(self.pick(&[REMOTE, of_third]))),
            3 => (0, VNI ^ (1 << self.below(24)), inner(REMOTE)),
            // A source in the receiver's own block, in no block, link-local, or outside the cluster.
            4 => {
                let nobody = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 7, 7);
                let node = Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 2);
                (0, VNI, inner(self.pick(&[A, B, nobody, GATEWAY_ADDRESS, OUTSIDE, node])))
            }
            // Neighbour discovery does not travel: solicitations, advertisements and redirects of a source that is believed.
            _ => {
                let body = [&[0; 4][..], &self.address6_but(REMOTE).octets()].concat();
                let payload = icmp6_body(self.pick(&[133, 134, 135, 136, 137]), &body);
                (0, VNI, Ip6 { mac, from: REMOTE, to, hop_limit: 255, next: ICMPV6, payload }.frame())
            }
        }
    }
}

fn none_comes_out_of_the_overlay(lab: &Lab, underlay: Underlay) {
    let cluster = &cluster(lab, underlay);
    let Cluster { datapath, pod, peer, .. } = cluster;
    let in_pod = pod.run(|| UdpSocket::bind((A, 53)).unwrap());
    let on_node = UdpSocket::bind((NODES[0], 53)).unwrap();
    let mut random = Random::new(0x6e65_746b_6565_6c37);
    peer.run(|| {
        let outer = [1, 2, 3].map(|sender: usize| UdpSocket::bind((underlay[sender], 0)).unwrap());
        for _ in 0..FORGED {
            let (sender, vni, frame) = random.tunnelled6();
            outer[sender].send_to(&vxlan(vni, &frame), (underlay[0], PORT)).unwrap();
        }
    });
    let counts = counted(datapath);
    for (socket, whose) in [(in_pod, "the pod"), (on_node, "the node")] {
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let heard = socket.recv_from(&mut [0; 256]).ok();
        assert_eq!(heard, None, "{whose} got a forged packet; {counts:?}");
    }
    let reasons = [Reason::ForgedTunnel, Reason::UnknownSource, Reason::NeighbourDiscovery];
    assert_eq!(reasons.iter().map(|reason| counts[reason]).sum::<u64>(), FORGED, "{counts:?}");
    assert!(reasons.iter().all(|reason| counts[reason] > FORGED / 20), "{counts:?}");
}

#[test]
fn a_hundred_thousand_forged_tunnel_packets_are_dropped_and_counted_over_ipv4() {
    isolated(|lab| none_comes_out_of_the_overlay(lab, FOUR));
}

#[test]
fn a_hundred_thousand_forged_tunnel_packets_are_dropped_and_counted_over_ipv6() {
    isolated(|lab| none_comes_out_of_the_overlay(lab, SIX));
}
