//! `FRAGMENTS`: the ports of fragmented packets, recorded by their first fragment once it was let through. An LRU hash
//! from a [`Flow`](crate::flow::Flow), with the packet's identification for ports, to [`Recorded`].

use crate::{
    pod::map_abi,
    transport::{ACK, Kind, TCP, Transport},
};

/// Name of the map, without the layout version.
pub const NAME: &str = "FRAGMENTS";
/// Fragmented packets that are remembered; the least recently used one is forgotten first.
pub const MAX: u32 = 8192;

/// What the first fragment said.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Recorded {
    /// Port of the sender, as in [`Transport`].
    pub source_port: u16,
    /// Port of the receiver, as in [`Transport`].
    pub destination_port: u16,
    /// When, in ticks of [`conntrack`](crate::conntrack).
    pub seen: u32,
    /// 1 an echo request, 2 a reply, 0 anything else.
    pub echo: u8,
    /// Zero.
    pub reserved: [u8; 3],
}
map_abi!(Recorded: 12);

/// How long receivers wait for the rest of a packet (`net.ipv4.ipfrag_time`, 30 s), in ticks.
const PATIENCE: u32 = 30;

impl Recorded {
    /// What a first fragment leaves behind.
    #[must_use]
    #[inline(always)]
    pub const fn new(transport: &Transport, now: u32) -> Self {
        let echo = match transport.kind {
            Kind::EchoRequest => 1,
            Kind::EchoReply => 2,
            Kind::Tcp(_) | Kind::Datagram | Kind::Error | Kind::Discovery | Kind::Lone => 0,
        };
        let Transport { source_port, destination_port, .. } = *transport;
        Self { source_port, destination_port, seen: now, echo, reserved: [0; 3] }
    }

    /// What a later fragment of a packet with this protocol is; `None` when the record is of an earlier packet with
    /// the same identification.
    #[must_use]
    #[inline(always)]
    pub const fn recall(&self, protocol: u8, now: u32) -> Option<Transport> {
        if now.saturating_sub(self.seen) > PATIENCE {
            return None;
        }
        let kind = match (self.echo, protocol) {
            (1, _) => Kind::EchoRequest,
            (2, _) => Kind::EchoReply,
            (_, TCP) => Kind::Tcp(ACK),
            _ => Kind::Datagram,
        };
        Some(Transport { kind, source_port: self.source_port, destination_port: self.destination_port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{ICMP, SYN, UDP};

    #[test]
    fn later_fragments_are_what_the_first_one_was() {
        for (protocol, kind, later) in [
            (UDP, Kind::Datagram, Kind::Datagram),
            (TCP, Kind::Tcp(SYN), Kind::Tcp(ACK)),
            (ICMP, Kind::EchoRequest, Kind::EchoRequest),
            (ICMP, Kind::EchoReply, Kind::EchoReply),
        ] {
            let first = Transport { kind, source_port: 1, destination_port: 2 };
            let record = Recorded::new(&first, 100);
            assert_eq!(record.recall(protocol, 101), Some(Transport { kind: later, ..first }));
        }
    }

    #[test]
    fn a_record_is_not_taken_for_a_later_packet_with_the_same_identification() {
        let record = Recorded::new(&Transport::PORTLESS, 100);
        assert!(record.recall(UDP, 100 + PATIENCE).is_some());
        assert_eq!(record.recall(UDP, 101 + PATIENCE), None);
    }
}
