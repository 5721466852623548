//! Packets that are larger than the tunnel carries, and what the pod hears of them from its gateway: "fragmentation needed"
//! (RFC 1191) or "packet too big" (RFC 4443, 3.2). Sums are those of the Internet checksum, in the order in which bytes lie in memory.

use crate::{
    Address,
    frame::{ETHERNET_LEN, Ip, Part, discovery},
    transport::{ICMP, ICMPV6, Kind, TCP, UDP},
};

/// The gateway of every pod, IPv4: the sender of the answers.
pub const GATEWAY: [u8; 4] = [169, 254, 1, 1];

/// Bytes that an answer quotes of an IPv4 packet: the longest header, and a TCP header behind it.
pub const QUOTED4: usize = 80;
/// Bytes that an answer quotes of an IPv6 packet: the header, 68 bytes of extensions, and a TCP header behind them.
pub const QUOTED6: usize = 128;
/// Bytes of the headers in front of what is quoted: IPv4 and ICMP.
pub const HEADERS4: usize = 28;
/// Bytes of the headers in front of what is quoted: IPv6 and ICMP.
pub const HEADERS6: usize = 48;

/// Where the ICMP header begins in [`headers4`].
pub const ICMP4: usize = 20;
/// Where the addresses begin in [`headers6`], which the checksum counts too; the ICMP header follows them.
pub const SUMMED6: usize = 8;
/// Where the checksum of ICMP is, from the start of the ICMP header.
pub const SUM: usize = 2;

/// Bytes of a transport header that are quoted at least: without them the kernel does not cut the packet.
const TRANSPORT: usize = 20;
/// Offset of the word with the length of a TCP header in the header.
pub const TCP_WORDS: usize = 12;

/// Size of the largest packet that a frame becomes on the wire, without its Ethernet header, in bytes. `segment` is the payload
/// of one segment where the kernel cuts the frame later, else 0; `tcp_words` is the byte of a TCP header at [`TCP_WORDS`].
#[must_use]
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "lengths of headers")]
pub const fn size(frame: u32, segment: u32, packet: &Ip, tcp_words: u8) -> u32 {
    let headers = (packet.payload - ETHERNET_LEN) as u32;
    match (segment, packet.protocol) {
        (0, _) => frame - ETHERNET_LEN as u32,
        (_, TCP) => headers + (tcp_words >> 4) as u32 * 4 + segment,
        (_, UDP) => headers + 8 + segment,
        // Cut by other rules.
        _ => 0,
    }
}

/// Whether the sender of a packet that is too big is told. An error is never told of an error, nor of a fragment that is not
/// the first (RFC 1122, 3.2.2), nor where the headers are longer than what is quoted.
#[must_use]
#[inline(always)]
pub const fn is_told(packet: &Ip, quoted: usize, kind: Kind) -> bool {
    matches!(packet.part, Part::Whole | Part::First)
        && packet.payload + TRANSPORT <= ETHERNET_LEN + quoted
        && !matches!(kind, Kind::Error)
}

/// IPv4 and ICMP header of the answer to `pod`, with the checksum of the first and without that of the second.
#[must_use]
#[inline(always)]
pub fn headers4(pod: &Address, mtu: u32) -> [u8; HEADERS4] {
    const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
    const FIXED: [u8; 10] = [0x45, 0xc0, 0, LENGTH4, 0, 0, 0x40, 0, 64, ICMP];
    let to = pod.words()[3].to_ne_bytes();
    let sum = summed(&FIXED) + summed(&GATEWAY) + summed(&to);
    let mut headers = [0; HEADERS4];
    headers[..10].copy_from_slice(&FIXED);
    headers[10..12].copy_from_slice(&fold(sum).to_ne_bytes());
    headers[12..16].copy_from_slice(&GATEWAY);
    headers[16..ICMP4].copy_from_slice(&to);
    headers[ICMP4..ICMP4 + 2].copy_from_slice(&FRAGMENTATION_NEEDED);
    headers[24..].copy_from_slice(&mtu.to_be_bytes());
    headers
}

/// IPv6 and ICMP header of the answer to `pod`, without the checksum.
#[must_use]
#[inline(always)]
pub fn headers6(pod: &Address, mtu: u32) -> [u8; HEADERS6] {
    const PACKET_TOO_BIG: u8 = 2;
    let mut headers = [0; HEADERS6];
    headers[..SUMMED6].copy_from_slice(&[0x60, 0, 0, 0, 0, ICMP_LENGTH6, ICMPV6, 64]);
    headers[SUMMED6..24].copy_from_slice(&discovery::GATEWAY.0);
    headers[24..40].copy_from_slice(&pod.0);
    headers[40] = PACKET_TOO_BIG;
    headers[44..].copy_from_slice(&mtu.to_be_bytes());
    headers
}

/// Bytes of the answer of IPv4.
#[expect(clippy::cast_possible_truncation, reason = "108")]
const LENGTH4: u8 = (HEADERS4 + QUOTED4) as u8;
/// Bytes of the ICMP header of IPv6 and what it quotes.
#[expect(clippy::cast_possible_truncation, reason = "136")]
const ICMP_LENGTH6: u8 = (QUOTED6 + 8) as u8;

/// What the checksum of ICMP for IPv6 counts besides the bytes behind [`SUMMED6`]: length and protocol.
pub const PSEUDO6: u32 = summed(&[0, ICMP_LENGTH6, 0, ICMPV6]);

/// The checksum of a sum.
#[must_use]
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the upper half was added")]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// The sum of an even number of bytes.
#[inline(always)]
const fn summed(bytes: &[u8]) -> u32 {
    let (mut sum, mut at) = (0, 0);
    while at < bytes.len() {
        sum += u16::from_ne_bytes([bytes[at], bytes[at + 1]]) as u32;
        at += 2;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: Address = Address::v4([10, 244, 0, 7]);

    fn packet(protocol: u8, payload: usize) -> Ip {
        Ip {
            source_mac: [0; 6],
            source: POD,
            destination: Address::v4([10, 244, 1, 9]),
            protocol,
            payload,
            id: 0,
            part: Part::Whole,
        }
    }

    #[test]
    fn a_frame_that_is_cut_later_is_as_large_as_its_segments() {
        assert_eq!(size(1514, 0, &packet(TCP, 34), 0x80), 1500);
        assert_eq!(size(60_000, 1448, &packet(TCP, 34), 0x80), 1500, "20 + 32 + 1448");
        assert_eq!(size(60_000, 1400, &packet(TCP, 54), 0x50), 1460);
        assert_eq!(size(60_000, 1400, &packet(UDP, 34), 0xff), 1428);
        assert_eq!(size(60_000, 0xffff, &packet(132, 34), 0), 0, "SCTP says where it is cut itself");
    }

    #[test]
    fn nobody_is_told_of_an_error_or_of_a_fragment_or_of_what_cannot_be_quoted() {
        let whole = packet(TCP, 74);
        assert!(is_told(&whole, QUOTED4, Kind::Tcp(0)));
        assert!(is_told(&Ip { part: Part::First, ..whole }, QUOTED4, Kind::Datagram));
        for part in [Part::Second, Part::Later] {
            assert!(!is_told(&Ip { part, ..whole }, QUOTED4, Kind::Datagram));
        }
        assert!(!is_told(&whole, QUOTED4, Kind::Error));
        assert!(is_told(&packet(TCP, 54 + 68), QUOTED6, Kind::Tcp(0)));
        assert!(!is_told(&packet(TCP, 54 + 76), QUOTED6, Kind::Tcp(0)));
    }

    #[test]
    fn the_headers_say_where_they_come_from_and_how_large_a_packet_may_be() {
        let headers = headers4(&POD, 1400);
        assert_eq!(headers[10..12], [0x83, 0xd7], "the checksum of the header");
        assert_eq!(headers[12..20], [169, 254, 1, 1, 10, 244, 0, 7]);
        assert_eq!(headers[ICMP4..], [3, 4, 0, 0, 0, 0, 5, 120]);
        let pod = Address::from_words([1, 2, 3, 4]);
        let headers = headers6(&pod, 1400);
        assert_eq!(headers[SUMMED6..24], discovery::GATEWAY.0);
        assert_eq!((&headers[24..40], &headers[40..]), (&pod.0[..], &[2, 0, 0, 0, 0, 0, 5, 120][..]));
    }
}
