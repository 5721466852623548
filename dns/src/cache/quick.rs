//! The commonest questions for names outside the cluster, answered straight from the cache: one question for A or AAAA, with or
//! without EDNS. No message is read or built. Whatever is odd is left to the general way, which gives the same answers.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::{Given, key};
use crate::fast::Answered;
use crate::message::UDP_LIMIT;
use crate::wire::{HEADER, OPT, put_opt};

/// Longest name in a packet, in bytes (RFC 1035 section 3.1).
const NAME: usize = 255;
/// Largest reply to a client that says nothing of its own limit, in bytes (RFC 1035 section 4.2.1).
const PLAIN_LIMIT: usize = 512;
const LONGEST_LABEL: usize = 63;
const RECURSION_DESIRED: u8 = 0x01;
const CHECKING_DISABLED: u8 = 0x10;
const TRUNCATED: u8 = 0x02;
const AUTHENTIC: u8 = 0x20;

/// A packet that is one plain question.
pub(crate) struct Question<'a> {
    packet: &'a [u8],
    /// Where the question ends, in bytes from the start of the packet.
    end: usize,
    key: [u8; NAME + 3],
    /// Length of the key.
    length: usize,
    is_v4: bool,
    edns: bool,
    dnssec: bool,
    /// Largest reply, in bytes.
    limit: usize,
}

impl<'a> Question<'a> {
    pub(crate) fn read(packet: &'a [u8]) -> Option<Self> {
        // One question and nothing else but an OPT record.
        let [_, _, flags, more, 0, 1, 0, 0, 0, 0, 0, additionals @ 0..=1] = packet.first_chunk::<HEADER>()?
        else {
            return None;
        };
        if flags & !RECURSION_DESIRED != 0 || more & !(CHECKING_DISABLED | AUTHENTIC) != 0 {
            return None;
        }
        let (mut key, mut at) = ([0; NAME + 3], 0);
        loop {
            let label = packet.get(HEADER + at..)?;
            let length = usize::from(*label.first()?);
            if length == 0 {
                break;
            }
            let (from, into) = (label.get(..=length)?, key.get_mut(at..=at + length)?);
            if length > LONGEST_LABEL || at + length + 2 > NAME {
                return None;
            }
            into.copy_from_slice(from);
            into.make_ascii_lowercase(); // a length is no letter
            at += length + 1;
        }
        let end = HEADER + at + 5;
        let is_v4 = match packet.get(end - 4..end)? {
            [0, 1, 0, 1] => true,
            [0, 28, 0, 1] => false,
            _ => return None,
        };
        let (edns, limit, dnssec) = match (additionals, &packet[end..]) {
            (0, []) => (false, PLAIN_LIMIT, false),
            (1, [0, 0, 41, high, low, 0, 0, dnssec @ (0 | 0x80), 0, 0, 0]) => {
                let limit = u16::from_be_bytes([*high, *low]).min(UDP_LIMIT);
                (true, usize::from(limit).max(PLAIN_LIMIT), *dnssec != 0)
            }
            _ => return None,
        };
        key[at + 2] = if is_v4 { 1 } else { 28 };
        let unchecked = if more & CHECKING_DISABLED == 0 { 0 } else { key::UNCHECKED };
        key[at + 3] = unchecked | if dnssec { key::DNSSEC } else { 0 };
        Some(Self { packet, end, key, length: at + 4, is_v4, edns, dnssec, limit })
    }

    /// What its answer is kept under.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key[..self.length]
    }

    /// Whether the name may be that of an address, which the cluster may come to know.
    pub(crate) fn is_reverse(&self) -> bool {
        key::name(self.key()).ends_with(b"\x04arpa\0")
    }

    /// Writes the reply, unless it does not fit, was cut, or says what is counted in the general way only.
    pub(crate) fn answer(&self, given: &Given, turn: usize, bytes: &mut Vec<u8>) -> Option<Answered> {
        let reply = &given.entry.reply;
        let code = ResponseCode::from(0, reply.code());
        let size = reply.size() + if self.edns { usize::from(OPT) } else { 0 };
        if size > self.limit || !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
            return None;
        }
        reply.put(bytes, given.told, turn);
        finish(bytes, &self.packet[..self.end]);
        if self.edns {
            let additionals = u16::from_be_bytes([bytes[10], bytes[11]]) + 1;
            bytes[10..12].copy_from_slice(&additionals.to_be_bytes());
            put_opt(bytes, UDP_LIMIT, 0, self.dnssec);
        }
        Some(Answered {
            rtype: if self.is_v4 { RecordType::A } else { RecordType::AAAA },
            code,
            cached: true,
        })
    }
}

/// Gives a reply the id, the flags and the question of the packet that asked: its header and question.
pub(crate) fn finish(reply: &mut [u8], asked: &[u8]) {
    let (flags, more) = (reply[2], reply[3]);
    reply[..2].copy_from_slice(&asked[..2]);
    reply[2] = 0x80 | flags & TRUNCATED | asked[2] & RECURSION_DESIRED;
    reply[3] = 0x80 | more & (AUTHENTIC | 0x0f) | asked[3] & CHECKING_DISABLED;
    reply[HEADER..asked.len()].copy_from_slice(&asked[HEADER..]);
}
