//! Writes the most common reply by hand: addresses of the very name that was asked.

use std::mem::take;
use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record};

use super::emit;
use crate::wire::{OPT, TRUNCATED, address_size, put_address, put_opt};

/// The reply in at most `limit` bytes; `None`, with `reply` unchanged, where it holds anything else.
pub(super) fn encode(reply: &mut Message, limit: u16) -> Option<Vec<u8>> {
    let [query] = reply.queries.as_slice() else { return None };
    let plain = |record: &Record| record.name.eq_case(query.name()) && address(record).is_some();
    let only_answers = reply.authorities.is_empty() && reply.additionals.is_empty();
    if !only_answers
        || reply.metadata.response_code != ResponseCode::NoError
        || !reply.answers.iter().all(plain)
    {
        return None;
    }
    let (answers, edns) = (take(&mut reply.answers), take(&mut reply.edns));
    let (mut bytes, _) = emit(reply, limit);
    let room = usize::from(limit - if edns.is_some() { OPT } else { 0 });
    let mut count = 0_u16;
    for record in &answers {
        let Some(address) = address(record) else { continue };
        if bytes.len() + address_size(address.is_ipv4()) > room {
            bytes[2] |= TRUNCATED;
            break;
        }
        put_address(&mut bytes, record.ttl, address);
        count += 1;
    }
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    if let Some(edns) = edns {
        bytes[10..12].copy_from_slice(&1_u16.to_be_bytes());
        put_opt(&mut bytes, edns.max_payload(), edns.version(), edns.flags().dnssec_ok);
    }
    Some(bytes)
}

fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
}
