//! What netfilter's messages have before their attributes, and addresses in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::link::attribute::within;

/// Length of `struct nfgenmsg`, bytes.
const HEADER: usize = 4;

/// The payload of the first attribute of a kind, of a message with its netfilter header.
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
