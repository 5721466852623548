//! Frames for the tests: built field by field, and written out so when a test fails.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

pub(crate) type Mac = [u8; 6];

const ETHERNET: usize = 14;
const UDP: u8 = 17;

/// A UDP datagram in an IPv4 packet in an Ethernet frame, with valid checksums.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) mac: (Mac, Mac),
    pub(crate) from: (Ipv4Addr, u16),
    pub(crate) to: (Ipv4Addr, u16),
    pub(crate) payload: Vec<u8>,
}

impl Datagram {
    pub(crate) fn frame(&self) -> Vec<u8> {
        let udp_len = u16::try_from(8 + self.payload.len()).unwrap();
        let mut ip = vec![0x45, 0];
        ip.extend((20 + udp_len).to_be_bytes());
        ip.extend([0, 1, 0, 0, 64, UDP, 0, 0]);
        ip.extend(self.from.0.octets());
        ip.extend(self.to.0.octets());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut frame = ethernet(self.mac, 0x0800, &ip);
        frame.extend(self.from.1.to_be_bytes());
        frame.extend(self.to.1.to_be_bytes());
        frame.extend(udp_len.to_be_bytes());
        frame.extend([0, 0]); // no checksum, which IPv4 allows
        frame.extend(&self.payload);
        frame
    }
}

/// An IPv4 packet with a valid header checksum in an Ethernet frame.
#[derive(Clone, Debug)]
pub(crate) struct Ip {
    pub(crate) mac: (Mac, Mac),
    pub(crate) from: Ipv4Addr,
    pub(crate) to: Ipv4Addr,
    pub(crate) protocol: u8,
    pub(crate) id: u16,
    /// Flags and offset, in units of 8 bytes.
    pub(crate) fragment: u16,
    /// Bytes of options, a multiple of four.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Ip {
    /// The packet without its Ethernet header.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut ip = vec![0x40 | u8::try_from(header / 4).unwrap(), 0];
        ip.extend(u16::try_from(header + self.payload.len()).unwrap().to_be_bytes());
        ip.extend(self.id.to_be_bytes());
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([64, self.protocol, 0, 0]);
        ip.extend(self.from.octets());
        ip.extend(self.to.octets());
        ip.extend(&self.options);
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip.extend(&self.payload);
        ip
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        ethernet(self.mac, 0x0800, &self.packet())
    }
}

/// An IPv6 packet in an Ethernet frame.
#[derive(Clone, Debug)]
pub(crate) struct Ip6 {
    pub(crate) mac: (Mac, Mac),
    pub(crate) from: Ipv6Addr,
    pub(crate) to: Ipv6Addr,
    pub(crate) hop_limit: u8,
    /// Number of the header that follows.
    pub(crate) next: u8,
    pub(crate) payload: Vec<u8>,
}

impl Ip6 {
    /// The packet without its Ethernet header.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let length = u16::try_from(self.payload.len()).unwrap().to_be_bytes();
        let fixed = [0x60, 0, 0, 0, length[0], length[1], self.next, self.hop_limit];
        [&fixed[..], &self.from.octets(), &self.to.octets(), &self.payload].concat()
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        ethernet(self.mac, 0x86dd, &self.packet())
    }
}

/// An ICMP packet of IPv6 with this type, the same form as [`icmp`]. The checksum is not filled in.
pub(crate) fn icmp6(kind: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    icmp6_body(kind, &[&[high, low, 0, 1], payload].concat())
}

/// An ICMP packet of IPv6 with this type and what follows its first four bytes.
pub(crate) fn icmp6_body(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0], body].concat()
}

/// A TCP header with these ports and flags. The checksum is not filled in.
pub(crate) fn tcp((from, to): (u16, u16), flags: u8) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]].concat()
}

/// A UDP header and payload, without a checksum.
pub(crate) fn udp((from, to): (u16, u16), payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    let header = [from.to_be_bytes(), to.to_be_bytes(), len.to_be_bytes(), [0, 0]].concat();
    [&header[..], payload].concat()
}

/// An ICMP packet of this type; `id` is where an echo has its identifier.
pub(crate) fn icmp(kind: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let mut packet = [&[kind, 0, 0, 0, high, low, 0, 1], payload].concat();
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A frame from the first MAC address to the second.
pub(crate) fn ethernet((from, to): (Mac, Mac), ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// An ARP request for `target`.
pub(crate) fn arp(mac: Mac, sender: (Mac, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let fixed: &[u8] = &[0, 1, 8, 0, 6, 4, 0, 1];
    let body = [fixed, &sender.0, &sender.1.octets(), &[0; 6], &target.octets()].concat();
    ethernet((mac, [0xff; 6]), 0x0806, &body)
}

/// A VXLAN header with this network identifier in front of a frame: the payload of the outer datagram.
pub(crate) fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0], &(vni << 8).to_be_bytes()[..], frame].concat()
}

pub(crate) fn checksum(header: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let sum: u32 = header.chunks(2).map(word).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}

/// A frame in words.
pub(crate) fn decode(frame: &[u8]) -> String {
    if frame.len() < ETHERNET {
        return format!("{} bytes: {frame:02x?}", frame.len());
    }
    let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
    let mut text = format!("{} bytes, {} > {}, ", frame.len(), mac(&frame[6..12]), mac(&frame[..6]));
    let body = &frame[ETHERNET..];
    let decoded = match ethertype {
        0x0800 if body.len() >= 20 => ipv4(body),
        0x0806 if body.len() >= 28 => {
            format!("ARP from {} {} for {}", mac(&body[8..14]), v4(&body[14..18]), v4(&body[24..28]))
        }
        0x86dd if body.len() >= 40 => format!("IPv6 {} > {}", v6(&body[8..24]), v6(&body[24..40])),
        other => format!("type {other:#06x}: {body:02x?}"),
    };
    text.push_str(&decoded);
    text
}

fn ipv4(packet: &[u8]) -> String {
    let mut text = format!("IPv4 {} > {}, ttl {}, ", v4(&packet[12..16]), v4(&packet[16..20]), packet[8]);
    let rest = packet.get(usize::from(packet[0] & 15) * 4..).unwrap_or_default();
    match rest {
        [a, b, c, d, ..] if packet[9] == UDP => {
            let ports = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
            write!(text, "UDP {} > {}, {:02x?}", ports.0, ports.1, rest.get(8..).unwrap_or_default())
                .unwrap();
        }
        _ => write!(text, "protocol {}, {rest:02x?}", packet[9]).unwrap(),
    }
    text
}

fn mac(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn v4(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap())
}

fn v6(bytes: &[u8]) -> Ipv6Addr {
    Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap())
}
