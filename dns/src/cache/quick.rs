//! The commonest questions for names outside the cluster, answered straight from the cache. No message is read or built. Whatever is odd is left to the general way, which gives the same answers.

use hickory_proto::op::ResponseCode;

use super::Given;
use crate::fast::Answered;
use crate::message::UDP_LIMIT;
use crate::plain::{AUTHENTIC, CHECKING_DISABLED, Question, RECURSION_DESIRED};
use crate::wire::{HEADER, OPT, TRUNCATED, put_opt};

/// Writes the reply, unless it does not fit, was cut, or says what is counted in the general way only.
pub(crate) fn answer(
    question: &Question<'_>,
    given: &Given,
    turn: usize,
    bytes: &mut Vec<u8>,
) -> Option<Answered> {
    let reply = &given.entry.reply;
    let code = ResponseCode::from(0, reply.code());
    let size = reply.size() + if question.edns.is_some() { usize::from(OPT) } else { 0 };
    if size > question.limit || !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return None;
    }
    reply.put(bytes, given.told, turn);
    finish(bytes, &question.packet[..question.end]);
    if let Some(dnssec) = question.edns {
        let additionals = u16::from_be_bytes([bytes[10], bytes[11]]) + 1;
        bytes[10..12].copy_from_slice(&additionals.to_be_bytes());
        put_opt(bytes, UDP_LIMIT, 0, dnssec);
    }
    Some(Answered { rtype: question.rtype(), code, cached: true })
}

/// Gives a reply the id, the flags and the question of the packet that asked: its header and question.
pub(crate) fn finish(reply: &mut [u8], asked: &[u8]) {
    let (flags, more) = (reply[2], reply[3]);
    reply[..2].copy_from_slice(&asked[..2]);
    reply[2] = 0x80 | flags & TRUNCATED | asked[2] & RECURSION_DESIRED;
    reply[3] = 0x80 | more & (AUTHENTIC | 0x0f) | asked[3] & CHECKING_DISABLED;
    reply[HEADER..asked.len()].copy_from_slice(&asked[HEADER..]);
}
