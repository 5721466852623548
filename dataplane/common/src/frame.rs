//! What the programs read of a frame, and what they think of it. Bytes in, values out: the kernel
//! programs copy the headers out of the packet, the host tests write them down.

pub mod discovery;
pub mod ipv6;

use crate::{Address, Reason, links::Link};

/// Bytes of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of an Ethernet and an IPv4 header without options.
pub const IPV4_LEN: usize = 34;
/// Bytes of an Ethernet header and an ARP packet for IPv4.
pub const ARP_LEN: usize = 42;

const ETHERTYPE: core::ops::Range<usize> = 12..14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// The first bytes of a frame, enough for an IPv4 header without options.
pub type Head = [u8; IPV4_LEN];

/// What kind of packet a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// IPv4 ([`ipv4`]).
    Ipv4,
    /// IPv6 ([`ipv6::parse`]).
    Ipv6,
    /// ARP.
    Arp,
}

/// The parts of an IPv4 header, or of an IPv6 header and its extensions, that decisions need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// MAC address of the sender of the frame.
    pub source_mac: [u8; 6],
    /// Source address; its family is the packet's.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// IP protocol number; of IPv6 that of the last header.
    pub protocol: u8,
    /// Where the headers end, in bytes from the start of the frame: IPv4 34 to 74, IPv6 54 to [`ipv6::LONGEST`].
    pub payload: usize,
    /// Identification, the same in all fragments of a packet, as it lies in memory; of IPv4 twice 16 bits.
    pub id: u32,
    /// How much of a packet this is.
    pub part: Part,
}

impl Ip {
    /// Whether this is IPv6 to a group (`ff00::/8`).
    #[must_use]
    #[inline(always)]
    pub const fn is_multicast6(&self) -> bool {
        self.destination.words()[0].to_ne_bytes()[0] == 0xff
    }
}

/// How much of a packet is in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment, which has the ports.
    First,
    /// A fragment without ports.
    Later,
    /// A fragment that starts 8 bytes behind the ports: over the rest of a TCP header.
    Second,
}

/// What an Ethernet header says that follows.
///
/// # Errors
/// The reason to drop the frame: an unknown protocol.
#[inline(always)]
pub const fn kind(header: &[u8; ETHERNET_LEN]) -> Result<Packet, Reason> {
    match [header[ETHERTYPE.start], header[ETHERTYPE.start + 1]] {
        ETHERTYPE_IPV4 => Ok(Packet::Ipv4),
        ETHERTYPE_ARP => Ok(Packet::Arp),
        ETHERTYPE_IPV6 => Ok(Packet::Ipv6),
        _ => Err(Reason::UnknownProtocol),
    }
}

/// Reads the head of a frame that carries IPv4, whatever its Ethernet header says.
///
/// # Errors
/// The header is not one.
#[inline(always)]
pub const fn ipv4(head: &Head) -> Result<Ip, Reason> {
    let (version, words) = (head[14] >> 4, head[14] & 0x0f);
    if version != 4 || words < 5 {
        return Err(Reason::Malformed);
    }
    Ok(Ip {
        source_mac: [head[6], head[7], head[8], head[9], head[10], head[11]],
        source: Address::v4([head[26], head[27], head[28], head[29]]),
        destination: Address::v4([head[30], head[31], head[32], head[33]]),
        protocol: head[23],
        payload: ETHERNET_LEN + words as usize * 4,
        id: u32::from_ne_bytes([head[18], head[19], head[18], head[19]]),
        part: part(u16::from_be_bytes([head[20], head[21]])),
    })
}

/// From the flags and the offset of a header.
#[inline(always)]
const fn part(word: u16) -> Part {
    const MORE: u16 = 0x2000;
    const OFFSET: u16 = 0x1fff;
    match (word & OFFSET, word & MORE) {
        (0, 0) => Part::Whole,
        (0, _) => Part::First,
        (1, _) => Part::Second,
        _ => Part::Later,
    }
}

/// Whether the pod behind `link` may send this packet.
#[must_use]
#[inline(always)]
pub const fn is_from(packet: &Ip, link: &Link) -> bool {
    link.owns(&packet.source) && same_mac(packet.source_mac, link.mac)
}

/// Whether the pod behind `link` may send this ARP packet: Ethernet and IPv4, and sender MAC and address its own.
#[must_use]
#[inline(always)]
pub const fn arp_is_from(frame: &[u8; ARP_LEN], link: &Link) -> bool {
    let fixed = [frame[14], frame[15], frame[16], frame[17], frame[18], frame[19]];
    let frame_mac = [frame[6], frame[7], frame[8], frame[9], frame[10], frame[11]];
    let sender_mac = [frame[22], frame[23], frame[24], frame[25], frame[26], frame[27]];
    let sender = Address::v4([frame[28], frame[29], frame[30], frame[31]]);
    same_mac(fixed, [0, 1, 8, 0, 6, 4])
        && same_mac(frame_mac, link.mac)
        && same_mac(sender_mac, link.mac)
        && sender.is(&link.ipv4)
}

/// Six bytes compared without a call: the kernel side has no `memcmp`.
#[inline(always)]
const fn same_mac(a: [u8; 6], b: [u8; 6]) -> bool {
    let difference =
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5]);
    difference == 0
}

/// Whether a packet out of the overlay comes from where its source lives: `owner` is the node that owns
/// the block of the inner source address, `outer` the sender of the outer packet.
///
/// # Errors
/// The reason to drop the packet.
#[inline(always)]
pub fn check_tunnel(owner: Option<Address>, outer: Address, vni: u32) -> Result<(), Reason> {
    match owner {
        None => Err(Reason::UnknownSource),
        Some(owner) if owner.is(&outer) && vni == crate::VNI => Ok(()),
        Some(_) => Err(Reason::ForgedTunnel),
    }
}

#[cfg(test)]
mod tests;
