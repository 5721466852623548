//! The key of connection tracking: both ends of a flow in an order that does not depend on who sends, so that one
//! entry and one look-up serve both directions.

use crate::{
    Address,
    pod::map_abi,
    transport::{Kind, Transport},
};

/// A flow: two ends and a protocol.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Address of the low end.
    pub low: Address,
    /// Address of the high end.
    pub high: Address,
    /// Port of the low end in network byte order; of an echo its identifier; zero where the protocol has none.
    pub low_port: u16,
    /// Port of the high end, likewise.
    pub high_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Of an echo, the end that asks: 1 the low one, 2 the high one. Each end may ask with the same identifier.
    pub asker: u8,
    /// Zero.
    pub reserved: [u8; 2],
}
map_abi!(Flow: 40);

/// An end of a flow.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The one whose address and port come first.
    Low = 0,
    /// The other one.
    High = 1,
}

impl Side {
    /// The other end.
    #[must_use]
    #[inline(always)]
    pub const fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }
}

impl Flow {
    /// The flow of a packet, and the end that sent it.
    #[must_use]
    #[inline(always)]
    pub const fn of(
        source: Address,
        destination: Address,
        protocol: u8,
        transport: &Transport,
    ) -> (Self, Side) {
        let ports = (transport.source_port, transport.destination_port);
        let turned = is_before((destination, ports.1), (source, ports.0));
        let side = if turned { Side::High } else { Side::Low };
        let (low, high) = in_order(source, destination, turned);
        let (low_port, high_port) = if turned { (ports.1, ports.0) } else { ports };
        let asker = asker(transport.kind, side);
        (Self { low, high, low_port, high_port, protocol, asker, reserved: [0; 2] }, side)
    }

    /// The key of a fragmented packet from `side` with this identification, in `FRAGMENTS`.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "each half becomes a port")]
    pub const fn fragmented(&self, side: Side, id: u32) -> Self {
        Self { low_port: id as u16, high_port: (id >> 16) as u16, asker: 1 + side as u8, ..*self }
    }

    /// The flow of a packet between the same ends, which is this after all.
    #[must_use]
    #[inline(always)]
    pub const fn with(&self, transport: &Transport, side: Side) -> Self {
        let Transport { source_port, destination_port, kind } = *transport;
        let (low_port, high_port) = match side {
            Side::Low => (source_port, destination_port),
            Side::High => (destination_port, source_port),
        };
        Self { low_port, high_port, asker: asker(kind, side), ..*self }
    }

    /// The addresses of the end that sends and of the other one.
    #[must_use]
    #[inline(always)]
    pub const fn ends(&self, side: Side) -> (&Address, &Address) {
        match side {
            Side::Low => (&self.low, &self.high),
            Side::High => (&self.high, &self.low),
        }
    }
}

/// The end that asks in an echo.
#[inline(always)]
const fn asker(kind: Kind, side: Side) -> u8 {
    match kind {
        Kind::EchoRequest => 1 + side as u8,
        Kind::EchoReply => 1 + side.other() as u8,
        Kind::Tcp(_) | Kind::Datagram | Kind::Error | Kind::Discovery | Kind::Lone => 0,
    }
}

/// Two addresses, or the second and the first. Word by word: the kernel side has each in a register.
#[inline(always)]
const fn in_order(a: Address, b: Address, turned: bool) -> (Address, Address) {
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.words(), b.words());
    let (low, high) =
        if turned { ([b0, b1, b2, b3], [a0, a1, a2, a3]) } else { ([a0, a1, a2, a3], [b0, b1, b2, b3]) };
    (Address::from_words(low), Address::from_words(high))
}

/// Any total order will do; this one compares whole words.
#[inline(always)]
const fn is_before(a: (Address, u16), b: (Address, u16)) -> bool {
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.0.words(), b.0.words());
    if a3 != b3 {
        a3 < b3
    } else if a2 != b2 {
        a2 < b2
    } else if a1 != b1 {
        a1 < b1
    } else if a0 != b0 {
        a0 < b0
    } else {
        a.1 < b.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{ICMP, TCP};

    const A: Address = Address::v4([10, 244, 0, 7]);
    const B: Address = Address::v4([10, 244, 1, 3]);

    fn transport(kind: Kind, source_port: u16, destination_port: u16) -> Transport {
        Transport { kind, source_port, destination_port }
    }

    #[test]
    fn both_directions_have_one_key_and_different_sides() {
        let six = Address::from_words([1, 2, 3, 4]);
        let near = Address::from_words([1, 2, 3, 5]);
        for (from, to) in [
            ((A, 4000), (B, 80)),
            ((B, 80), (A, 4000)),
            ((A, 80), (A, 4000)),
            ((six, 1), (near, 1)),
            ((A, 1), (six, 1)),
        ] {
            let there = Flow::of(from.0, to.0, TCP, &transport(Kind::Tcp(0), from.1, to.1));
            let back = Flow::of(to.0, from.0, TCP, &transport(Kind::Tcp(0), to.1, from.1));
            assert_eq!(there.0, back.0);
            assert_eq!(there.1, back.1.other(), "{from:?} {to:?}");
        }
    }

    #[test]
    fn ends_ports_and_protocols_make_different_keys() {
        let key = |from, to, protocol, ports: (u16, u16)| {
            Flow::of(from, to, protocol, &transport(Kind::Datagram, ports.0, ports.1)).0
        };
        let flow = key(A, B, 17, (4000, 53));
        for other in [
            key(A, B, 17, (4001, 53)),
            key(A, B, 17, (4000, 54)),
            key(A, B, 17, (53, 4000)),
            key(A, B, 6, (4000, 53)),
            key(A, Address::v4([10, 244, 1, 4]), 17, (4000, 53)),
        ] {
            assert_ne!(flow, other);
        }
    }

    #[test]
    fn a_fragmented_packet_has_a_key_of_its_own_and_leads_back_to_its_flow() {
        let portless = Flow::of(B, A, ICMP, &Transport::PORTLESS);
        for kind in [Kind::Datagram, Kind::EchoRequest, Kind::EchoReply] {
            let packet = transport(kind, 4000, 53);
            let (flow, side) = Flow::of(B, A, ICMP, &packet);
            assert_eq!((portless.0.with(&packet, side), portless.1), (flow, side));
            assert_eq!(flow.fragmented(side, 7), portless.0.fragmented(portless.1, 7));
        }
        let (flow, side) = portless;
        assert_ne!(flow.fragmented(side, 7), flow.fragmented(side, 8));
        assert_ne!(flow.fragmented(side, 7), flow.fragmented(side.other(), 7), "of the other end");
        assert_eq!(flow.ends(side), (&B, &A));
    }

    #[test]
    fn an_echo_belongs_to_the_end_that_asks() {
        let request = transport(Kind::EchoRequest, 7, 7);
        let reply = transport(Kind::EchoReply, 7, 7);
        let asked_by_a = Flow::of(A, B, ICMP, &request);
        assert_eq!(Flow::of(B, A, ICMP, &reply), (asked_by_a.0, asked_by_a.1.other()));
        let asked_by_b = Flow::of(B, A, ICMP, &request);
        assert_ne!(asked_by_a.0, asked_by_b.0, "with the same identifier");
        assert_eq!(Flow::of(A, B, ICMP, &reply).0, asked_by_b.0);
    }
}
