//! What an answer is kept under: the name in lower case as it is in packets, the type, and whether the question asked for
//! signatures (DO, RFC 3225) or unchecked data (CD, RFC 4035 section 3.2.2), for which resolvers give other answers. Pure.

use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::BinEncodable;

use crate::message::UDP_LIMIT;
use crate::plain::{CHECKING_DISABLED, RECURSION_DESIRED};
use crate::wire::{HEADER, put_opt};

pub(crate) const DNSSEC: u8 = 1;
pub(crate) const UNCHECKED: u8 = 2;
/// Bytes of a key behind the name: the type and the flags.
pub(crate) const TAIL: usize = 3;

/// The key of a question.
pub(crate) fn key(name: &Name, rtype: RecordType, flags: u8) -> Vec<u8> {
    let mut key = name.to_lowercase().to_bytes().unwrap_or_default();
    key.extend(u16::from(rtype).to_be_bytes());
    key.push(flags);
    key
}

/// The name as it is in packets, in lower case.
pub(crate) fn name(key: &[u8]) -> &[u8] {
    &key[..key.len().saturating_sub(TAIL)]
}

/// The question section of a packet: the name, the type, and class IN.
pub(crate) fn question(key: &[u8]) -> Vec<u8> {
    [&key[..key.len().saturating_sub(1)], &[0, 1]].concat()
}

/// The question as it is put to a resolver, with an OPT record or without.
pub(crate) fn query(key: &[u8], id: u16, edns: bool) -> Vec<u8> {
    let flags = key.last().copied().unwrap_or_default();
    let mut packet = Vec::with_capacity(HEADER + key.len() + 16);
    packet.extend(id.to_be_bytes());
    packet.push(RECURSION_DESIRED);
    packet.push(if flags & UNCHECKED == 0 { 0 } else { CHECKING_DISABLED });
    packet.extend([0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    packet.extend(question(key));
    if edns {
        put_opt(&mut packet, UDP_LIMIT, 0, flags & DNSSEC != 0);
    }
    packet
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;

    use super::*;

    #[test]
    fn a_key_says_all_that_a_resolver_is_asked() {
        let name = Name::from_ascii("WwW.Example.").unwrap();
        for (flags, dnssec, unchecked) in
            [(0, false, false), (DNSSEC, true, false), (UNCHECKED, false, true), (3, true, true)]
        {
            let key = key(&name, RecordType::MX, flags);
            assert_eq!(super::name(&key), b"\x03www\x07example\x00");
            let asked = Message::from_vec(&query(&key, 7, true)).unwrap();
            assert_eq!(asked.queries[0].name().to_ascii(), "www.example.");
            assert_eq!(asked.queries[0].query_type(), RecordType::MX);
            assert!(asked.metadata.recursion_desired);
            assert_eq!((asked.metadata.id, asked.metadata.checking_disabled), (7, unchecked));
            let edns = asked.edns.unwrap();
            assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (1232, dnssec));
            assert!(Message::from_vec(&query(&key, 7, false)).unwrap().edns.is_none());
        }
    }
}
