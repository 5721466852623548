//! Attributes of netlink messages, padded to four bytes, and what all of netfilter's messages have before them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of `struct nfgenmsg`, bytes.
const HEADER: usize = 4;

/// Appends one attribute.
pub(crate) fn put(bytes: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let length = u16::try_from(payload.len() + 4)
        .expect("the API bounds a rule: at most 16 CIDRs a field; elements go in portions");
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Kind and payload of each attribute.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let ([a, b, c, d], _) = bytes.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let payload = bytes.get(4..length)?;
        let kind = u16::from_ne_bytes([*c, *d]) & 0x3fff;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// The payload of the first attribute of a kind.
pub(super) fn within(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, payload)| payload)
}

/// The same of a message with its netfilter header.
pub(super) fn behind_header(message: &[u8], wanted: u16) -> Option<&[u8]> {
    within(message.get(HEADER..)?, wanted)
}

/// An address in network byte order.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The address that these octets are.
pub(super) fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(octets) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(octets).ok().map(|six| Ipv6Addr::from(six).into())
}
