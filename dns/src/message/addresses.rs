//! Writes the most common reply by hand: addresses of the very name that was asked. The general encoder
//! stops compressing names after 120 of them, which costs a large headless Service most of its records.

use std::mem::take;

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::{RData, Record};

use super::{OPT, emit};

/// Where the name of the question lies, as a compression pointer.
const QUESTION: [u8; 2] = [0xc0, 12];
/// Size of a record's fields before its data: pointer, type, class, time to live, length.
const FIXED: usize = 12;
const CLASS_IN: [u8; 2] = [0, 1];
const TRUNCATED: u8 = 0x02;

/// The reply in at most `limit` bytes; `None`, with `reply` unchanged, where it holds anything else.
pub(super) fn encode(reply: &mut Message, limit: u16) -> Option<Vec<u8>> {
    let [query] = reply.queries.as_slice() else { return None };
    let plain = |record: &Record| record.name.eq_case(query.name()) && rdata(record).is_some();
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
        let Some((rtype, data)) = rdata(record) else { continue };
        if bytes.len() + FIXED + data.len() > room {
            bytes[2] |= TRUNCATED;
            break;
        }
        let length = u16::try_from(data.len()).unwrap_or_default().to_be_bytes();
        let fixed: [&[u8]; 5] = [&QUESTION, &rtype, &CLASS_IN, &record.ttl.to_be_bytes(), &length];
        bytes.extend(fixed.into_iter().flatten().chain(&data));
        count += 1;
    }
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    if let Some(edns) = edns {
        bytes[10..12].copy_from_slice(&1_u16.to_be_bytes());
        bytes.extend(opt(&edns));
    }
    Some(bytes)
}

/// Type and data of an address record, in network byte order.
fn rdata(record: &Record) -> Option<([u8; 2], Vec<u8>)> {
    match &record.data {
        RData::A(address) => Some(([0, 1], address.0.octets().to_vec())),
        RData::AAAA(address) => Some(([0, 28], address.0.octets().to_vec())),
        _ => None,
    }
}

/// The OPT record of a reply without options and with a code below 16.
fn opt(edns: &Edns) -> [u8; OPT as usize] {
    let [high, low] = edns.max_payload().to_be_bytes();
    let dnssec = if edns.flags().dnssec_ok { 0x80 } else { 0 };
    [0, 0, 41, high, low, 0, edns.version(), dnssec, 0, 0, 0]
}
