//! A node with two pods, of which single frames are judged, in either family.

use std::{collections::HashMap, marker::PhantomData};

use netkeel_dataplane_loader::{
    Datapath, Table, Way,
    common::{
        Address, Config, Reason,
        conntrack::Entry,
        endpoints::Endpoint,
        flow::Flow,
        links::Link,
        policies::{ALLOW, Match, Verdict},
        tunnels::{Block, Tunnel},
    },
};

use crate::{
    lab::{Lab, counted, ifindex, ip},
    packet::{Mac, decode},
};

pub(crate) const MACS: (Mac, Mac) = ([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8]);
pub(crate) const HOST_MAC: Mac = [2, 0, 0, 0, 1, 1];

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SYN: u8 = 2;
pub(crate) const SYN_ACK: u8 = 18;

/// A table with rules.
pub(crate) const RULES: u32 = 7;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// To the host stack, or out of the device.
    Next,
    /// Straight to a pod or into the tunnel.
    Redirect,
    Drop(Reason),
}
use Outcome::{Drop, Next, Redirect};

/// A packet of one family, and where that family's ends of a scene are.
pub(crate) trait Packet: Sized {
    type Ip: Copy + PartialEq + Into<Address>;

    /// The pods.
    const A: Self::Ip;
    const B: Self::Ip;
    /// A pod of another node.
    const REMOTE: Self::Ip;
    /// Addresses outside of the cluster.
    const OUTSIDE: Self::Ip;
    const ROUTER: Self::Ip;

    fn segment(from: (Self::Ip, u16), to: (Self::Ip, u16), flags: u8) -> Self;

    fn datagram(from: (Self::Ip, u16), to: (Self::Ip, u16)) -> Self;

    /// An echo request, or the reply to one.
    fn echo(reply: bool, from: Self::Ip, to: Self::Ip, id: u16) -> Self;

    /// A block with the address outside, a smaller one inside it and without that address, and an address of the smaller one.
    fn around_outside() -> (Block, Block, Self::Ip);

    /// The block of another node's pods, that node's address, and the own node's.
    fn remote() -> (Block, [Self::Ip; 2]);

    /// Source and destination.
    fn ends(&self) -> (Self::Ip, Self::Ip);

    /// The packet in a frame from the first MAC address to the second.
    fn between(&self, mac: (Mac, Mac)) -> Vec<u8>;
}

/// A node with the pods A and B, whose links are `nk0` and `nk1`, a remote block, and the interface `vx1`. Nothing is sent.
pub(crate) struct Scene<P> {
    pub(crate) datapath: Datapath,
    pub(crate) links: (u32, u32),
    packets: PhantomData<P>,
}

impl<P: Packet> Scene<P> {
    pub(crate) fn new(lab: &Lab) -> Self {
        let datapath = lab.load();
        for (device, peer) in [("nk0", "p0"), ("nk1", "p1"), ("vx0", "vx1")] {
            ip(&format!("link add {device} type veth peer name {peer}"));
        }
        ip("link set vx1 address 02:00:00:00:01:01"); // HOST_MAC
        let (block, [peer, own]) = P::remote();
        datapath.tunnels().unwrap().put(&block, &Tunnel::to(peer.into())).unwrap();
        datapath.set_config(&Config::new(&[own.into()], ifindex("vx0"))).unwrap();
        Self { datapath, links: (ifindex("nk0"), ifindex("nk1")), packets: PhantomData }
    }

    /// Gives A its tables of ingress and egress.
    pub(crate) fn a(&self, ingress: u32, egress: u32) {
        put_pod(&self.datapath, P::A, (self.links.0, MACS.0), (ingress, egress));
    }

    /// Gives B its tables of ingress and egress.
    pub(crate) fn b(&self, ingress: u32, egress: u32) {
        put_pod(&self.datapath, P::B, (self.links.1, MACS.1), (ingress, egress));
    }

    /// Runs `from_pod` for what B sends, or else A.
    pub(crate) fn send(&self, packet: &P) -> Outcome {
        let (link, mac) = self.side(packet.ends().0);
        let outcome = self.run("from_pod", &packet.between((mac, HOST_MAC)), link.into());
        self.judge_again(packet, link, outcome);
        outcome
    }

    /// What passed to A or B passes `to_pod` too, which is asked where a limit sends the packet through the link's queue, and
    /// which changes nothing of what is known of flows.
    fn judge_again(&self, packet: &P, came_over: u32, outcome: Outcome) {
        let to = packet.ends().1;
        if outcome != Redirect || (to != P::A && to != P::B) {
            return;
        }
        let before = self.known();
        assert_eq!(self.deliver(packet, came_over), Next, "judged once more");
        assert_eq!(self.known(), before, "judged once more");
    }

    /// All flows, without the times at which they were seen.
    fn known(&self) -> Vec<HashMap<Flow, Entry>> {
        let timeless = |(flow, entry)| (flow, Entry { seen: 0, ..entry });
        let tables = [self.datapath.connections().unwrap(), self.datapath.flows().unwrap()];
        tables.iter().map(|table| table.dump().unwrap().into_iter().map(timeless).collect()).collect()
    }

    /// Runs `to_pod` for what the host stack forwards to A or B.
    pub(crate) fn forward(&self, packet: &P) -> Outcome {
        self.deliver(packet, ifindex("vx0"))
    }

    /// Runs `to_pod` for what the host stack itself sends to A or B.
    pub(crate) fn send_from_node(&self, packet: &P) -> Outcome {
        self.deliver(packet, 0)
    }

    /// Runs `to_pod` for a packet to A or B that came over the device with this index.
    pub(crate) fn deliver(&self, packet: &P, came_over: u32) -> Outcome {
        let (device, mac) = self.side(packet.ends().1);
        self.run("to_pod", &packet.between((HOST_MAC, mac)), Way { device, came_over })
    }

    /// Runs `from_underlay` for what another host sends to this MAC address; the node's own is [`HOST_MAC`].
    pub(crate) fn arrive(&self, packet: &P, mac: Mac) -> Outcome {
        let way = ifindex("vx1");
        let outcome = self.run("from_underlay", &packet.between(([2, 0, 0, 0, 9, 9], mac)), way.into());
        self.judge_again(packet, way, outcome);
        outcome
    }

    fn side(&self, end: P::Ip) -> (u32, Mac) {
        if end == P::B { (self.links.1, MACS.1) } else { (self.links.0, MACS.0) }
    }

    pub(crate) fn run(&self, program: &str, frame: &[u8], way: Way) -> Outcome {
        let before = counted(&self.datapath);
        let verdict = self.datapath.dry_run(program, frame, way).unwrap();
        assert_eq!(verdict.frame, frame, "{} became {}", decode(frame), decode(&verdict.frame));
        let mut after = counted(&self.datapath);
        after.retain(|reason, count| before.get(reason) != Some(count));
        match (verdict.action, after.into_iter().collect::<Vec<_>>().as_slice()) {
            (-1, []) => Next,
            (7, []) => Redirect,
            (2, [(reason, _)]) => Drop(*reason),
            (action, reasons) => panic!("{}: action {action}, counted {reasons:?}", decode(frame)),
        }
    }
}

/// Enters a pod in both tables.
pub(crate) fn put_pod(
    datapath: &Datapath,
    pod: impl Into<Address>,
    (link, mac): (u32, Mac),
    (ingress, egress): (u32, u32),
) {
    let pod = pod.into();
    datapath.links().unwrap().put(&link, &Link::new(pod, mac, egress)).unwrap();
    datapath.endpoints().unwrap().put(&pod, &Endpoint::new(link, ingress)).unwrap();
}

pub(crate) fn identify(datapath: &Datapath, address: impl Into<Address>, identity: u32) {
    datapath.identities().unwrap().put(&address.into(), &identity).unwrap();
}

pub(crate) fn allow(datapath: &Datapath, entry: Match) {
    datapath.policies().unwrap().put(&entry, &Verdict { rule: 1, action: ALLOW }).unwrap();
}
