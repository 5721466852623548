//! Forged packets by the hundred thousand, of every shape that these tests can think of: none is delivered, and each is counted.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use netkeel_dataplane_loader::common::{Reason, VNI};

use crate::{
    lab::{counted, isolated},
    overlay::{self, NODE, OVERLAY, PEER, PORT, STRANGER, THIRD},
    packet::{Datagram, Ip, Mac, arp, decode, ethernet, icmp, tcp, udp, vxlan},
    verdicts::{self, DROP, HOST_MAC, NEIGHBOUR, OUTSIDE, POD, POD_MAC, REMOTE},
};

const FORGED: u64 = 100_000;

/// Numbers without a pattern, the same in every run (xorshift64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    pub(crate) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        let index = self.below(u64::try_from(among.len()).unwrap());
        among[usize::try_from(index).unwrap()]
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        (0..=self.below(most)).map(|_| self.byte()).collect()
    }

    /// An address that is not `own`: near it, another pod's, a node's, the outside's, or any.
    fn address_but(&mut self, own: Ipv4Addr) -> Ipv4Addr {
        let near = Ipv4Addr::from(u32::from(own) ^ (1 << self.below(32)));
        let any = Ipv4Addr::from([self.byte(), self.byte(), self.byte(), self.byte()]);
        let known = [near, any, NEIGHBOUR, REMOTE, OUTSIDE, NODE, Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED];
        let picked = self.pick(&known);
        if picked == own { near } else { picked }
    }

    pub(crate) fn mac_but(&mut self, own: Mac) -> Mac {
        let mut mac = own;
        mac[usize::try_from(self.below(6)).unwrap()] ^= 1 << self.below(8);
        mac
    }

    /// What an IP packet may carry, and the number of its protocol.
    fn payload(&mut self) -> (u8, Vec<u8>) {
        let ports = (u16::from_le_bytes([self.byte(), self.byte()]), self.pick(&[53, 80, 443, 8472]));
        match self.below(5) {
            0 => (6, tcp(ports, self.byte())),
            1 => (17, udp(ports, b"forged")),
            // Echo, unreachable, redirect, router advertisement.
            2 => (1, icmp(self.pick(&[8, 0, 3, 5, 9]), 7, b"forged")),
            3 => (4, self.bytes(60)),
            _ => (self.byte(), self.bytes(60)),
        }
    }

    /// An IPv4 packet in a frame, whole or a fragment, with options or without.
    fn ip(&mut self, mac: (Mac, Mac), from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let (protocol, payload) = self.payload();
        let fragment = self.pick(&[0, 0, 0x4000, 0x2000, 1, 185]);
        let options = vec![1; usize::try_from(self.below(11)).unwrap() * 4];
        Ip { mac, from, to, protocol, id: u16::from(self.byte()), fragment, options, payload }.frame()
    }

    /// Something that the pod must not send.
    fn frame(&mut self) -> Vec<u8> {
        let to = self.pick(&[NEIGHBOUR, REMOTE, OUTSIDE, NODE, POD, Ipv4Addr::BROADCAST]);
        let (own, foreign) = ((POD_MAC, HOST_MAC), self.mac_but(POD_MAC));
        let other = self.address_but(POD);
        match self.below(7) {
            0 | 1 => self.ip(own, other, to),
            2 => self.ip((foreign, HOST_MAC), POD, to),
            3 => arp(POD_MAC, (POD_MAC, other), to),
            4 => arp(POD_MAC, (foreign, POD), to),
            5 => arp(foreign, (POD_MAC, POD), to),
            _ => {
                // LLDP, VLAN, MPLS, PPPoE, EAPOL, and a length in the place of a type.
                let kind = self.pick(&[0x88cc, 0x8100, 0x8847, 0x8864, 0x888e, 0x0040]);
                ethernet(own, kind, &[0x45; 60])
            }
        }
    }
}

#[test]
fn a_hundred_thousand_frames_that_a_pod_must_not_send_are_dropped_and_counted() {
    isolated(|lab| {
        let datapath = lab.load();
        let link = verdicts::node(&datapath);
        let mut random = Random::new(0x6e65_746b_6565_6c31);
        for number in 0..FORGED {
            let frame = random.frame();
            let action = datapath.dry_run("from_pod", &frame, link).unwrap().action;
            assert_eq!(action, DROP, "number {number}: {}", decode(&frame));
        }
        let counted = counted(&datapath);
        let shapes = [Reason::SpoofedSource, Reason::UnknownProtocol];
        assert_eq!(counted.values().sum::<u64>(), FORGED, "{counted:?}");
        assert!(shapes.iter().all(|reason| counted[reason] > FORGED / 20), "{counted:?}");
        assert_eq!(counted.len(), shapes.len(), "{counted:?}");
    });
}

#[test]
fn a_hundred_thousand_forged_tunnel_packets_are_dropped_and_counted() {
    isolated(|lab| {
        let cluster = &overlay::cluster(lab);
        let overlay::Cluster { datapath, peer, pod, .. } = cluster;
        let in_pod = pod.netns.run(|| UdpSocket::bind((pod.address, 53)).unwrap());
        let on_node = UdpSocket::bind((OVERLAY, 53)).unwrap();
        let mut random = Random::new(0x6e65_746b_6565_6c32);
        let macs = ([2, 0, 0, 0, 9, 9], pod.mac);
        peer.run(|| {
            let outer = [PEER, THIRD, STRANGER].map(|own| UdpSocket::bind((own, 0)).unwrap());
            for _ in 0..FORGED {
                let forged = forged(&mut random, macs, pod.address);
                let (sender, vni, frame) = forged;
                outer[sender].send_to(&vxlan(vni, &frame), (NODE, PORT)).unwrap();
            }
        });
        let counts = counted(datapath);
        for (socket, whose) in [(in_pod, "the pod"), (on_node, "the node")] {
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let heard = socket.recv_from(&mut [0; 256]).ok();
            assert_eq!(heard, None, "{whose} got a forged packet; {counts:?}");
        }
        assert_all_counted(&counts);
    });
}

/// Who of peer, third node and stranger sends it, the network identifier, and the inner frame. Something is wrong with each.
fn forged(random: &mut Random, mac: (Mac, Mac), pod: Ipv4Addr) -> (usize, u32, Vec<u8>) {
    let to = random.pick(&[pod, OVERLAY]);
    let inner = |from: Ipv4Addr, payload: Vec<u8>| {
        Datagram { mac, from: (from, 4000), to: (to, 53), payload }.frame()
    };
    let (of_peer, of_third) = (REMOTE, Ipv4Addr::new(10, 244, 2, random.byte()));
    let payload = random.bytes(40);
    match random.below(6) {
        0 => (0, VNI, inner(of_third, payload)),
        1 => (1, VNI, inner(of_peer, payload)),
        2 => (2, VNI, inner(random.pick(&[of_peer, of_third]), payload)),
        3 => (0, VNI ^ (1 << random.below(24)), inner(of_peer, payload)),
        // A source in the receiver's own block, in no block, or outside the cluster.
        4 => {
            let from = [pod, NEIGHBOUR, Ipv4Addr::new(10, 244, 7, 7), OUTSIDE, NODE];
            (0, VNI, inner(random.pick(&from), payload))
        }
        _ => (0, VNI, arp(mac.0, (mac.0, of_peer), to)),
    }
}

fn assert_all_counted(counts: &HashMap<Reason, u64>) {
    let reasons = [Reason::ForgedTunnel, Reason::UnknownSource, Reason::UnknownProtocol];
    let sum: u64 = reasons.iter().filter_map(|reason| counts.get(reason)).sum();
    assert_eq!(sum, FORGED, "{counts:?}");
}
