//! What connection tracking and policy read behind an IP header: ports, TCP flags, what an ICMP packet is.
//! Bytes in, values out.

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMP for IPv6.
pub const ICMPV6: u8 = 58;

/// Bytes of a TCP header up to and with the flags.
pub const TCP_LEN: usize = 14;
/// Bytes of a UDP and of an ICMP header; of each header, what an ICMP error quotes at least.
pub const SHORT_LEN: usize = 8;

/// TCP flag: no more data from this side.
pub const FIN: u8 = 1;
/// TCP flag: a connection begins.
pub const SYN: u8 = 2;
/// TCP flag: the connection is gone.
pub const RST: u8 = 4;
/// TCP flag: the sender has heard the other side.
pub const ACK: u8 = 16;

/// What follows an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// What the packet is to a flow.
    pub kind: Kind,
    /// Port of the sender in network byte order; of an echo its identifier; zero where the protocol has none.
    pub source_port: u16,
    /// Port of the receiver, likewise.
    pub destination_port: u16,
}

/// What a packet is to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP segment with these flags.
    Tcp(u8),
    /// A packet of UDP or a protocol without ports.
    Datagram,
    /// An ICMP echo request.
    EchoRequest,
    /// The answer to one.
    EchoReply,
    /// An ICMP error, which quotes the packet that it is about.
    Error,
    /// IPv6 neighbour discovery: speaks to one link alone.
    Discovery,
    /// Any other ICMP packet: belongs to no flow.
    Lone,
}

impl Transport {
    /// A packet of a protocol without ports.
    pub const PORTLESS: Self = Self::portless(Kind::Datagram);

    const fn portless(kind: Kind) -> Self {
        Self { kind, source_port: 0, destination_port: 0 }
    }

    /// A TCP segment.
    #[must_use]
    #[inline(always)]
    pub const fn tcp(header: &[u8; TCP_LEN]) -> Self {
        let [a, b, c, d, ..] = *header;
        Self::with_ports([a, b, c, d], Kind::Tcp(header[13]))
    }

    /// A UDP datagram.
    #[must_use]
    #[inline(always)]
    pub const fn udp(header: &[u8; SHORT_LEN]) -> Self {
        let [a, b, c, d, ..] = *header;
        Self::with_ports([a, b, c, d], Kind::Datagram)
    }

    /// An ICMP packet.
    #[must_use]
    #[inline(always)]
    pub const fn icmp(header: &[u8; SHORT_LEN]) -> Self {
        let [.., a, b, _, _] = *header;
        match header[0] {
            0 => Self::with_ports([a, b, a, b], Kind::EchoReply),
            8 => Self::with_ports([a, b, a, b], Kind::EchoRequest),
            // Unreachable (too big is one), source quench, time exceeded, parameter problem.
            3 | 4 | 11 | 12 => Self::portless(Kind::Error),
            _ => Self::portless(Kind::Lone),
        }
    }

    /// An ICMP packet of IPv6.
    #[must_use]
    #[inline(always)]
    pub const fn icmpv6(header: &[u8; SHORT_LEN]) -> Self {
        let [.., a, b, _, _] = *header;
        match header[0] {
            128 => Self::with_ports([a, b, a, b], Kind::EchoRequest),
            129 => Self::with_ports([a, b, a, b], Kind::EchoReply),
            // Unreachable, too big, time exceeded, parameter problem.
            1..=4 => Self::portless(Kind::Error),
            133..=137 => Self::portless(Kind::Discovery),
            _ => Self::portless(Kind::Lone),
        }
    }

    /// What an ICMP error quotes of a packet with this protocol: no flags.
    #[must_use]
    #[inline(always)]
    pub const fn quoted(protocol: u8, header: &[u8; SHORT_LEN]) -> Self {
        let [a, b, c, d, ..] = *header;
        match protocol {
            TCP => Self::with_ports([a, b, c, d], Kind::Tcp(ACK)),
            UDP => Self::udp(header),
            ICMP => Self::icmp(header),
            ICMPV6 => Self::icmpv6(header),
            _ => Self::PORTLESS,
        }
    }

    #[inline(always)]
    const fn with_ports([a, b, c, d]: [u8; 4], kind: Kind) -> Self {
        let (source_port, destination_port) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
        Self { kind, source_port, destination_port }
    }

    /// The port that policy knows: the receiver's, zero where the protocol has none.
    #[must_use]
    #[inline(always)]
    pub const fn policy_port(&self) -> u16 {
        match self.kind {
            Kind::Tcp(_) | Kind::Datagram => self.destination_port,
            Kind::EchoRequest | Kind::EchoReply | Kind::Error | Kind::Discovery | Kind::Lone => 0,
        }
    }

    /// The port that policy knows of the flow that this packet answers to.
    #[must_use]
    #[inline(always)]
    pub const fn answers_port(&self) -> u16 {
        Self { destination_port: self.source_port, ..*self }.policy_port()
    }

    /// Whether the packet asks for a new connection, whatever there was before.
    #[must_use]
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        matches!(self.kind, Kind::Tcp(flags) if flags & (SYN | ACK | RST) == SYN)
    }

    /// Whether a packet that belongs to no known flow begins one when it may pass.
    #[must_use]
    #[inline(always)]
    pub const fn begins_flow(&self) -> bool {
        match self.kind {
            Kind::Tcp(flags) => flags & RST == 0,
            Kind::Datagram | Kind::EchoRequest => true,
            Kind::EchoReply | Kind::Error | Kind::Discovery | Kind::Lone => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transport(kind: Kind, source_port: u16, destination_port: u16) -> Transport {
        Transport { kind, source_port: source_port.to_be(), destination_port: destination_port.to_be() }
    }

    #[test]
    fn ports_and_flags_are_read() {
        let segment = [0x1f, 0x90, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, SYN | ACK];
        assert_eq!(Transport::tcp(&segment), transport(Kind::Tcp(SYN | ACK), 8080, 80));
        assert_eq!(Transport::udp(&[0, 53, 0x1f, 0x90, 0, 8, 0, 0]), transport(Kind::Datagram, 53, 8080));
    }

    #[test]
    fn icmp_packets_are_told_apart() {
        for (kind, expected) in [
            (0, transport(Kind::EchoReply, 0x1234, 0x1234)),
            (8, transport(Kind::EchoRequest, 0x1234, 0x1234)),
            (3, transport(Kind::Error, 0, 0)),
            (4, transport(Kind::Error, 0, 0)),
            (11, transport(Kind::Error, 0, 0)),
            (12, transport(Kind::Error, 0, 0)),
            (5, transport(Kind::Lone, 0, 0)),
            (13, transport(Kind::Lone, 0, 0)),
        ] {
            assert_eq!(Transport::icmp(&[kind, 0, 0, 0, 0x12, 0x34, 0, 1]), expected, "type {kind}");
        }
    }

    #[test]
    fn icmp_packets_of_ipv6_are_told_apart() {
        for (kind, expected) in [
            (128, transport(Kind::EchoRequest, 0x1234, 0x1234)),
            (129, transport(Kind::EchoReply, 0x1234, 0x1234)),
            (1, transport(Kind::Error, 0, 0)),
            (2, transport(Kind::Error, 0, 0)),
            (3, transport(Kind::Error, 0, 0)),
            (4, transport(Kind::Error, 0, 0)),
            (0, transport(Kind::Lone, 0, 0)),
            (5, transport(Kind::Lone, 0, 0)),
            (132, transport(Kind::Lone, 0, 0)),
            (133, transport(Kind::Discovery, 0, 0)),
            (137, transport(Kind::Discovery, 0, 0)),
            (143, transport(Kind::Lone, 0, 0)),
        ] {
            assert_eq!(Transport::icmpv6(&[kind, 0, 0, 0, 0x12, 0x34, 0, 1]), expected, "type {kind}");
        }
    }

    #[test]
    fn a_quoted_header_has_ports_and_no_flags() {
        let header = [0x1f, 0x90, 0, 80, 1, 2, 3, 4];
        assert_eq!(Transport::quoted(TCP, &header), transport(Kind::Tcp(ACK), 8080, 80));
        assert_eq!(Transport::quoted(UDP, &header), transport(Kind::Datagram, 8080, 80));
        let echo = [8, 0, 0, 0, 0x12, 0x34, 0, 1];
        assert_eq!(Transport::quoted(ICMP, &echo), transport(Kind::EchoRequest, 0x1234, 0x1234));
        let echo = [128, 0, 0, 0, 0x12, 0x34, 0, 1];
        assert_eq!(Transport::quoted(ICMPV6, &echo), transport(Kind::EchoRequest, 0x1234, 0x1234));
        assert_eq!(Transport::quoted(47, &header), Transport::PORTLESS);
    }

    #[test]
    fn policy_knows_the_ports_of_tcp_and_udp_alone() {
        assert_eq!(transport(Kind::Tcp(SYN), 4000, 80).policy_port(), 80_u16.to_be());
        assert_eq!(transport(Kind::Datagram, 4000, 53).policy_port(), 53_u16.to_be());
        assert_eq!(transport(Kind::EchoRequest, 7, 7).policy_port(), 0);
        assert_eq!(transport(Kind::EchoReply, 7, 7).policy_port(), 0);
        assert_eq!(transport(Kind::Tcp(ACK), 80, 4000).answers_port(), 80_u16.to_be());
        assert_eq!(transport(Kind::EchoReply, 7, 7).answers_port(), 0);
    }

    #[test]
    fn only_a_syn_alone_opens_and_only_packets_of_flows_begin_one() {
        for (kind, opens, begins) in [
            (Kind::Tcp(SYN), true, true),
            (Kind::Tcp(SYN | ACK), false, true),
            (Kind::Tcp(ACK), false, true),
            (Kind::Tcp(ACK | FIN), false, true),
            (Kind::Tcp(RST), false, false),
            (Kind::Tcp(RST | SYN), false, false),
            (Kind::Datagram, false, true),
            (Kind::EchoRequest, false, true),
            (Kind::EchoReply, false, false),
            (Kind::Error, false, false),
            (Kind::Discovery, false, false),
            (Kind::Lone, false, false),
        ] {
            let packet = transport(kind, 1, 2);
            assert_eq!((packet.opens(), packet.begins_flow()), (opens, begins), "{kind:?}");
        }
    }
}
