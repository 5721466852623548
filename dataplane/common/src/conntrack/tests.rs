use super::*;
use crate::{
    Address,
    transport::{ICMP, TCP, UDP},
};

const CLIENT: Address = Address::v4([10, 244, 1, 3]);
const SERVER: Address = Address::v4([10, 244, 0, 7]);
const EPOCH: u32 = 5;
const START: u32 = 1000;

/// Who sends a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Client,
    Server,
}
use Sender::{Client, Server};

fn packet(protocol: u8, from: Sender, kind: Kind) -> (Flow, Transport, Side) {
    let (source_port, destination_port) = match (from, protocol) {
        (_, ICMP) => (7, 7),
        (Client, _) => (4000, 80),
        (Server, _) => (80, 4000),
    };
    let transport = Transport { kind, source_port, destination_port };
    let (source, destination) = match from {
        Client => (CLIENT, SERVER),
        Server => (SERVER, CLIENT),
    };
    let (flow, side) = Flow::of(source, destination, protocol, &transport);
    (flow, transport, side)
}

/// A flow on its way, as the programs keep it.
#[derive(Clone, Copy)]
struct Tracked {
    protocol: u8,
    entry: Option<Entry>,
    moment: Moment,
    into: bool,
}

impl Tracked {
    fn none(protocol: u8) -> Self {
        Self { protocol, entry: None, moment: Moment { now: START, epoch: EPOCH }, into: false }
    }

    fn step(&self, from: Sender, kind: Kind) -> Step {
        let (flow, transport, side) = packet(self.protocol, from, kind);
        step(self.entry, &flow, (&transport, side), self.into, self.moment)
    }

    /// Lets a packet pass, and does with the entry what the programs do.
    fn pass(&mut self, from: Sender, kind: Kind) -> Step {
        let step = self.step(from, kind);
        let (flow, transport, side) = packet(self.protocol, from, kind);
        match step {
            Step::New if transport.begins_flow() => {
                self.entry = Some(Entry::new(&flow, (&transport, side), INTO, self.moment));
            }
            Step::New | Step::Pass => {}
            Step::Refresh(next) | Step::Again(next) => self.entry = Some(next),
        }
        step
    }

    fn after(protocol: u8, packets: &[(Sender, Kind)]) -> Self {
        let mut tracked = Self::none(protocol);
        for (from, kind) in packets {
            tracked.pass(*from, *kind);
        }
        tracked
    }

    /// The seconds that the flow stays known without a packet.
    fn lifetime(&self, kind: Kind) -> u64 {
        let known = |now| {
            let later = Self { moment: Moment { now, ..self.moment }, ..*self };
            later.step(Server, kind) != Step::New
        };
        let last = (START..START + 30_000).take_while(|now| known(*now)).last().unwrap();
        (u64::from(last - START) << 30) / 1_000_000_000
    }
}

const OPEN: [(Sender, Kind); 3] =
    [(Client, Kind::Tcp(SYN)), (Server, Kind::Tcp(SYN | ACK)), (Client, Kind::Tcp(ACK))];

/// An established connection, then these packets.
fn connection(more: &[(Sender, Kind)]) -> Tracked {
    Tracked::after(TCP, &[&OPEN, more].concat())
}

#[test]
fn a_flow_is_known_for_as_long_as_its_state_says() {
    const HOURS: u64 = 6 * 3600;
    let (data, fin, rst) = (Kind::Tcp(ACK), Kind::Tcp(FIN | ACK), Kind::Tcp(RST));
    for (story, tracked, kind, seconds) in [
        ("SYN", Tracked::after(TCP, &OPEN[..1]), data, 60),
        ("answered SYN", Tracked::after(TCP, &OPEN[..2]), data, 60),
        ("established", connection(&[]), data, HOURS),
        ("one end has closed", connection(&[(Client, fin)]), data, HOURS),
        ("and the other still talks", connection(&[(Client, fin), (Server, data)]), data, HOURS),
        ("both have closed", connection(&[(Client, fin), (Server, fin)]), data, 10),
        (
            "and the last ACK is through",
            connection(&[(Client, fin), (Server, fin), (Client, data)]),
            data,
            10,
        ),
        ("reset by the server", connection(&[(Server, rst)]), data, 10),
        ("reset by the client", connection(&[(Client, rst)]), data, 10),
        ("and again", connection(&[(Client, rst), (Client, rst)]), data, 10),
        ("a new connection between the same ports", connection(&[(Client, rst), OPEN[0]]), data, 60),
        ("data after a reset", connection(&[(Server, rst), (Client, data)]), data, HOURS),
        ("a segment from the middle", Tracked::after(TCP, &[(Client, data)]), data, 60),
        ("answered", Tracked::after(TCP, &[(Client, data), (Server, data)]), data, HOURS),
        ("a datagram", Tracked::after(UDP, &[(Client, Kind::Datagram)]), Kind::Datagram, 30),
        (
            "answered datagrams",
            Tracked::after(UDP, &[(Client, Kind::Datagram), (Server, Kind::Datagram)]),
            Kind::Datagram,
            180,
        ),
        (
            "an echo",
            Tracked::after(ICMP, &[(Client, Kind::EchoRequest), (Server, Kind::EchoReply)]),
            Kind::EchoReply,
            30,
        ),
    ] {
        let lifetime = tracked.lifetime(kind);
        assert!((seconds..=seconds + 2).contains(&lifetime), "{story}: {lifetime} s, not {seconds}");
    }
}

#[test]
fn nothing_is_known_without_an_entry_and_a_stale_one_is_as_none() {
    let none = Tracked::none(TCP);
    assert_eq!(none.step(Client, Kind::Tcp(SYN)), Step::New);
    assert_eq!(none.step(Server, Kind::Tcp(ACK)), Step::New);
    let mut closed = connection(&[(Client, Kind::Tcp(RST))]);
    closed.moment.now += 12;
    assert_eq!(closed.step(Client, Kind::Tcp(ACK)), Step::New);
    assert_eq!(closed.step(Server, Kind::Tcp(ACK)), Step::New);
}

#[test]
fn an_entry_of_another_flow_is_none() {
    let mut tracked = connection(&[]);
    let entry = tracked.entry.as_mut().unwrap();
    entry.owner.ports ^= 1;
    assert_eq!(tracked.step(Client, Kind::Tcp(ACK)), Step::New);
}

#[test]
fn an_entry_is_written_once_a_tick_and_when_its_state_changes() {
    let mut tracked = connection(&[(Server, Kind::Tcp(ACK))]);
    for from in [Client, Server] {
        assert_eq!(tracked.pass(from, Kind::Tcp(ACK)), Step::Pass);
    }
    tracked.moment.now += 1;
    let Step::Refresh(next) = tracked.pass(Client, Kind::Tcp(ACK)) else { panic!("not written") };
    assert_eq!(next.seen, START + 1);
    assert_eq!(tracked.pass(Server, Kind::Tcp(ACK)), Step::Pass);
    assert!(matches!(tracked.pass(Server, Kind::Tcp(ACK | FIN)), Step::Refresh(_)));
    assert_eq!(tracked.pass(Server, Kind::Tcp(ACK | FIN)), Step::Pass, "repeated");
}

#[test]
fn a_clock_that_another_processor_read_later_makes_nothing_stale() {
    let mut tracked = connection(&[]);
    tracked.moment.now -= 1;
    assert_ne!(tracked.step(Client, Kind::Tcp(ACK)), Step::New);
}

#[test]
fn a_flow_of_an_earlier_epoch_is_judged_again_and_keeps_its_beginning() {
    for from in [Client, Server] {
        let mut tracked = connection(&[]);
        tracked.moment = Moment { now: START + 3, epoch: EPOCH + 1 };
        let Step::Again(next) = tracked.step(from, Kind::Tcp(ACK)) else { panic!("not judged") };
        assert_eq!((next.epoch, next.seen), (EPOCH + 1, START + 3));
        assert!(next.is_from(packet(TCP, Client, Kind::Tcp(ACK)).2), "the client began it");
        tracked.pass(from, Kind::Tcp(ACK));
        assert_eq!(tracked.step(from, Kind::Tcp(ACK)), Step::Pass);
    }
}

#[test]
fn a_connection_of_the_other_end_between_the_same_ports_is_new() {
    let tracked = connection(&[]);
    assert_eq!(tracked.step(Server, Kind::Tcp(SYN)), Step::New);
    assert!(matches!(tracked.step(Client, Kind::Tcp(SYN)), Step::Refresh(_)), "not the client's");
    assert_eq!(tracked.step(Server, Kind::Tcp(SYN | ACK)), Step::Pass, "nor an answer");
}

#[test]
fn what_goes_to_a_pod_that_was_not_asked_is_judged_again() {
    for (story, grounds, into, from, again) in [
        ("not asked", 0, true, Client, true),
        ("not to a pod of this node", 0, false, Client, false),
        ("an answer", 0, true, Server, false),
        ("asked", INTO, true, Client, false),
        ("from the node", NODE, true, Client, false),
    ] {
        let mut tracked = connection(&[]);
        tracked.entry.as_mut().unwrap().grounds = grounds;
        tracked.into = into;
        assert_eq!(matches!(tracked.step(from, Kind::Tcp(ACK)), Step::Again(_)), again, "{story}");
    }
}
