//! Records as they stand in a reply to a question for their very owner, in network byte order (RFC 1035 section 4.1). The
//! general encoder stops compressing names after 120 of them, which would cost a large headless Service most of its records.

use std::net::IpAddr;

/// The type of an OPT record (RFC 6891 section 6.1.1).
pub(crate) const OPT_TYPE: u16 = 41;
/// Encoded size of an OPT record without options, in bytes.
pub(crate) const OPT: u16 = 11;
/// Size of a message's header, in bytes; the question begins behind it.
pub(crate) const HEADER: usize = 12;
/// In the third byte of a header: the message was cut (TC).
pub(crate) const TRUNCATED: u8 = 0x02;
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
    bytes.extend(OPT_BEGINS);
    bytes.extend([high, low, 0, version, u8::from(dnssec) << 7, 0, 0, 0]);
}

/// Longest name in a packet, in bytes (RFC 1035 section 3.1).
const NAME: usize = 255;
/// An OPT record as it begins: at the root, of type 41.
const OPT_BEGINS: [u8; 3] = [0, 0, OPT_TYPE.to_be_bytes()[1]];

/// Writes the reply that a question should come over TCP into `reply`: no answer, marked as cut, never longer than the question. Nothing
/// is written where `packet` is no question.
pub(crate) fn put_cut(packet: &[u8], payload: u16, reply: &mut Vec<u8>) {
    reply.clear();
    let Some(end) = question_end(packet) else { return };
    reply.extend_from_slice(&packet[..end]);
    // A reply, cut; "recursion desired" and "checking disabled" as asked, and recursion available.
    reply[2] = 0x80 | TRUNCATED | packet[2] & 0x01;
    reply[3] = 0x80 | packet[3] & 0x10;
    reply[6..HEADER].fill(0);
    let rest = &packet[end..];
    if rest.starts_with(&OPT_BEGINS) && rest.len() >= usize::from(OPT) {
        reply[11] = 1;
        put_opt(reply, payload, 0, rest[7] & 0x80 != 0);
    }
}

/// Where the question ends in a packet that asks one.
pub(crate) fn question_end(packet: &[u8]) -> Option<usize> {
    let header = packet.first_chunk::<HEADER>()?;
    if header[2] & 0xf8 != 0 || header[4..6] != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        match usize::from(*packet.get(at)?) {
            0 => break,
            length @ 1..64 if at + length < HEADER + NAME => at += length + 1,
            _ => return None,
        }
    }
    Some(at + 5).filter(|end| *end <= packet.len())
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    #[test]
    fn a_cut_reply_asks_for_tcp_and_is_no_longer_than_the_question() {
        for (edns, dnssec) in [(false, false), (true, false), (true, true)] {
            let mut question = Message::new(7, MessageType::Query, OpCode::Query);
            question.metadata.recursion_desired = true;
            let name = Name::from_ascii("WeB.example.").unwrap();
            question.add_query(Query::query(name, RecordType::ANY));
            if edns {
                let mut edns = Edns::new();
                edns.set_dnssec_ok(dnssec);
                question.set_edns(edns);
            }
            let (packet, mut bytes) = (question.to_vec().unwrap(), vec![1]);
            put_cut(&packet, 1232, &mut bytes);
            let reply = Message::from_vec(&bytes).unwrap();
            assert!(reply.metadata.truncation && reply.metadata.recursion_available);
            assert_eq!(reply.metadata.message_type, MessageType::Response);
            assert_eq!((reply.metadata.id, &reply.queries), (7, &question.queries));
            assert_eq!(reply.edns.map(|edns| edns.flags().dnssec_ok), edns.then_some(dnssec));
            assert_eq!(bytes.len(), packet.len());
        }
    }

    #[test]
    fn what_is_no_question_gets_no_cut_reply() {
        let good = [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"\x03web\0\0\x01\0\x01"].concat();
        let changed = |at: usize, to: u8| {
            let mut packet = good.clone();
            packet[at] = to;
            packet
        };
        let long = [&good[..HEADER], &[1, b'a'].repeat(128), &[0, 0, 1, 0, 1]].concat();
        let pointer = changed(HEADER, 0xc0);
        let mut reply = Vec::new();
        for bad in [changed(2, 0x81), changed(2, 0x29), changed(5, 2), pointer, long, good[..17].to_vec()] {
            put_cut(&bad, 1232, &mut reply);
            assert!(reply.is_empty(), "{bad:?}");
        }
        put_cut(&good, 1232, &mut reply);
        assert_eq!(reply.len(), good.len());
    }
}
