//! Records as they stand in a reply to a question for their very owner, in network byte order (RFC 1035 section 4.1). The
//! general encoder stops compressing names after 120 of them, which would cost a large headless Service most of its records.

use std::net::IpAddr;

/// Encoded size of an OPT record without options, in bytes.
pub(crate) const OPT: u16 = 11;
/// Size of a message's header, in bytes; the question begins behind it.
pub(crate) const HEADER: usize = 12;
/// The question's name, as a compression pointer.
const OWNER: [u8; 2] = [0xc0, 12];
/// Times of a SOA record in seconds: refresh, retry, expire.
pub(crate) const SOA_TIMES: [u32; 3] = [7200, 1800, 86_400];
/// Longest time to live of a SOA record, in seconds, as in CoreDNS: that of an absence is its last field (RFC 2308 section 5).
const SOA_TTL: u32 = 300;
const CLASS_IN: [u8; 2] = [0, 1];

/// Time to live of the SOA record where that of other records is `ttl`, both in seconds.
pub(crate) fn soa_ttl(ttl: u32) -> u32 {
    ttl.min(SOA_TTL)
}

/// Appends the address record of the name that was asked; `ttl` in seconds.
pub(crate) fn put_address(bytes: &mut Vec<u8>, ttl: u32, address: IpAddr) {
    let put = |bytes: &mut Vec<u8>, rtype: u8, data: &[u8], length: u8| {
        bytes.extend(OWNER);
        bytes.extend([0, rtype]);
        bytes.extend(CLASS_IN);
        bytes.extend(ttl.to_be_bytes());
        bytes.extend([0, length]);
        bytes.extend(data);
    };
    match address {
        IpAddr::V4(address) => put(bytes, 1, &address.octets(), 4),
        IpAddr::V6(address) => put(bytes, 28, &address.octets(), 16),
    }
}

/// Size of such a record, in bytes.
pub(crate) const fn address_size(is_v4: bool) -> usize {
    if is_v4 { 16 } else { 28 }
}

/// Appends the OPT record of a reply without options and with a code below 16; `payload` is the largest datagram that is taken, in bytes.
pub(crate) fn put_opt(bytes: &mut Vec<u8>, payload: u16, version: u8, dnssec: bool) {
    let [high, low] = payload.to_be_bytes();
    bytes.extend([0, 0, 41, high, low, 0, version, u8::from(dnssec) << 7, 0, 0, 0]);
}
