//! The commonest questions, answered straight from the records that the zone has ready: one question for A or AAAA at a name
//! below the cluster domain, with or without EDNS (RFC 1035 section 4.1, RFC 6891). No message is built, and for a
//! Service's own name nothing is allocated. Whatever is odd is left to the general way, which gives the same answers.

use std::borrow::Cow;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::answer::is_hidden;
use crate::message::UDP_LIMIT;
use crate::wire::{HEADER, OPT, SOA_TIMES, address_size, put_address, put_opt, soa_ttl};
use crate::zone::{Entry, Service, Zone};

/// Largest reply to a client that says nothing of its own limit, in bytes (RFC 1035 section 4.2.1).
const PLAIN_LIMIT: usize = 512;
/// Longest name in a packet, in bytes (RFC 1035 section 3.1).
const NAME: usize = 255;
/// As many labels as such a name can have.
const LABELS: usize = 128;
const LONGEST_LABEL: usize = 63;

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) rtype: RecordType,
    pub(crate) code: ResponseCode,
    /// Whether it is a resolver's answer that was kept; else it is the cluster's own.
    pub(crate) cached: bool,
}

/// Writes the reply to a datagram into `reply`; `None`, with `reply` empty, where the general way has to. Replies with several
/// addresses begin with another one each `turn`.
pub(crate) fn answer(zone: &Zone, packet: &[u8], turn: usize, reply: &mut Vec<u8>) -> Option<Answered> {
    reply.clear();
    let mut question = Question::read(packet)?;
    let apex = question.below(zone.domain())?;
    let ttl = zone.settings().ttl;
    let (code, found) = match look_up(zone, &mut question, apex)? {
        Found::Records(records) => (ResponseCode::NoError, Some(records)),
        Found::NoData => (ResponseCode::NoError, None),
        Found::NxDomain => (ResponseCode::NXDomain, None),
    };
    question.begin(reply, code);
    match found {
        Some(records) => question.put_records(reply, &records, turn),
        None => put_soa(reply, question.offset(apex), zone.serial(), ttl),
    }
    if question.edns {
        reply[11] = 1;
        put_opt(reply, UDP_LIMIT, 0, false);
    }
    Some(Answered { rtype: question.rtype(), code, cached: false })
}

enum Found<'a> {
    /// Address records of the family that was asked for, at least one.
    Records(Cow<'a, [u8]>),
    NoData,
    NxDomain,
}

/// Labels are counted from the left; the one at `apex` is the first of the domain.
fn look_up<'a>(zone: &'a Zone, question: &mut Question<'_>, apex: usize) -> Option<Found<'a>> {
    match (apex, question.label(apex.checked_sub(1)?)) {
        (1, b"svc" | b"pod" | b"dns" | b"dns-version") => None,
        (2.., b"pod") => None,
        (2, b"svc") => {
            let namespace = std::str::from_utf8(question.label(0)).ok()?;
            Some(if zone.has_namespace(namespace) { Found::NoData } else { Found::NxDomain })
        }
        (2, b"dns") if question.label(0) == b"ns" => None,
        (3.., b"svc") => match zone.service(question.dotted(apex - 3)?) {
            Some(entry) if is_hidden(zone, entry) => Some(Found::NxDomain),
            Some(entry) => at_service(zone, question, entry, apex - 3),
            None => Some(Found::NxDomain),
        },
        _ => Some(Found::NxDomain),
    }
}

/// With so many labels below the Service's own name.
fn at_service<'a>(zone: &Zone, question: &Question<'_>, entry: &'a Entry, below: usize) -> Option<Found<'a>> {
    let records = match (entry.service()?, below) {
        (Service::Unreadable | Service::ExternalName(_), _) => return None,
        (Service::Headless, _) if entry.endpoints().is_empty() => return Some(Found::NxDomain),
        (_, 0) => Cow::Borrowed(entry.ready().records(question.is_v4)),
        (_, 1) => {
            let label =
                std::str::from_utf8(question.label(0)).ok().filter(|label| !label.starts_with('_'))?;
            let addresses = entry.endpoints().addresses(label);
            if addresses.is_empty() {
                return Some(Found::NxDomain);
            }
            let mut records = Vec::new();
            let addresses = addresses.into_iter().filter(|address| address.is_ipv4() == question.is_v4);
            addresses.for_each(|address| put_address(&mut records, zone.settings().ttl, address));
            Cow::Owned(records)
        }
        (_, 2) => return None,
        _ => return Some(Found::NxDomain),
    };
    Some(if records.is_empty() { Found::NoData } else { Found::Records(records) })
}

/// A packet that is one plain question.
struct Question<'a> {
    packet: &'a [u8],
    /// Where the question ends, in bytes from the start of the packet.
    end: usize,
    /// The name as in the packet, lower case.
    name: [u8; NAME],
    /// Length of the name with its root label.
    length: usize,
    /// Where each label's length stands in `name`.
    starts: [u8; LABELS],
    labels: usize,
    /// Whether it asks for A; else for AAAA.
    is_v4: bool,
    edns: bool,
    /// Largest reply, in bytes.
    limit: usize,
}

impl<'a> Question<'a> {
    fn read(packet: &'a [u8]) -> Option<Self> {
        // No bits but "recursion desired", "authentic data" and "checking disabled"; one question and nothing else but an OPT record.
        let [_, _, flags, more, 0, 1, 0, 0, 0, 0, 0, additionals @ 0..=1] = packet.first_chunk::<HEADER>()?
        else {
            return None;
        };
        if flags & !0x01 != 0 || more & !0x30 != 0 {
            return None;
        }
        let (mut name, mut starts, mut labels, mut at) = ([0; NAME], [0; LABELS], 0, 0);
        loop {
            let label = packet.get(HEADER + at..)?;
            let length = usize::from(*label.first()?);
            if length == 0 {
                break;
            }
            let (from, into) = (label.get(1..=length)?, name.get_mut(at..at + length + 2)?);
            if length > LONGEST_LABEL {
                return None;
            }
            into[0] = label[0];
            for (into, from) in into[1..].iter_mut().zip(from) {
                *into = lower(*from)?;
            }
            *starts.get_mut(labels)? = u8::try_from(at).ok()?;
            (labels, at) = (labels + 1, at + length + 1);
        }
        let end = HEADER + at + 5;
        let is_v4 = match packet.get(end - 4..end)? {
            [0, 1, 0, 1] => true,
            [0, 28, 0, 1] => false,
            _ => return None,
        };
        let (edns, limit) = match (additionals, &packet[end..]) {
            (0, []) => (false, PLAIN_LIMIT),
            (1, rest) => (true, edns_limit(rest)?),
            _ => return None,
        };
        Some(Self { packet, end, name, length: at + 1, starts, labels, is_v4, edns, limit })
    }

    fn rtype(&self) -> RecordType {
        if self.is_v4 { RecordType::A } else { RecordType::AAAA }
    }

    /// How many labels stand before `domain`, where the name lies below it.
    fn below(&self, domain: &[u8]) -> Option<usize> {
        let at = self.length.checked_sub(domain.len())?;
        let inside = self.name.get(at..self.length)? == domain;
        let starts = &self.starts[..self.labels];
        starts.iter().position(|start| usize::from(*start) == at).filter(|_| inside)
    }

    fn label(&self, index: usize) -> &[u8] {
        let start = usize::from(self.starts[index]);
        &self.name[start + 1..=start + usize::from(self.name[start])]
    }

    /// The label at `index` and the next one with a dot between them; the name is good for nothing else after that but its first labels.
    fn dotted(&mut self, index: usize) -> Option<&str> {
        let [start, dot, end] = [0, 1, 2].map(|more| usize::from(self.starts[index + more]));
        self.name[dot] = b'.';
        std::str::from_utf8(&self.name[start + 1..end]).ok()
    }

    /// Where a label of the name stands in the packet.
    fn offset(&self, label: usize) -> usize {
        HEADER + usize::from(self.starts[label])
    }

    /// The reply's header and the question, as it was asked.
    fn begin(&self, reply: &mut Vec<u8>, code: ResponseCode) {
        reply.extend_from_slice(&self.packet[..self.end]);
        reply[2] = 0x84 | self.packet[2] & 0x01;
        reply[3] = 0x80 | self.packet[3] & 0x10 | code.low();
        reply[11] = 0;
    }

    /// As many as fit, from the one on whose turn it is.
    fn put_records(&self, reply: &mut Vec<u8>, records: &[u8], turn: usize) {
        let size = address_size(self.is_v4);
        let (count, room) =
            (records.len() / size, self.limit - reply.len() - if self.edns { usize::from(OPT) } else { 0 });
        let fitting = count.min(room / size);
        let first = turn % count;
        let before_end = fitting.min(count - first);
        reply.extend_from_slice(&records[first * size..(first + before_end) * size]);
        reply.extend_from_slice(&records[..(fitting - before_end) * size]);
        if fitting < count {
            reply[2] |= 0x02;
        }
        reply[6..8].copy_from_slice(&u16::try_from(fitting).unwrap_or_default().to_be_bytes());
    }
}

/// The SOA record of the domain that stands at `domain` in the packet, as authority.
fn put_soa(reply: &mut Vec<u8>, domain: usize, serial: u32, ttl: u32) {
    let [high, low] = u16::try_from(domain).unwrap_or_default().to_be_bytes();
    let domain = [0xc0 | high, low];
    reply[9] = 1;
    reply.extend(domain);
    reply.extend([0, 6, 0, 1]);
    reply.extend(soa_ttl(ttl).to_be_bytes());
    let start = reply.len();
    reply.extend([0, 0]);
    reply.extend_from_slice(b"\x02ns\x03dns");
    reply.extend(domain);
    reply.extend_from_slice(b"\x0ahostmaster");
    reply.extend(domain);
    let [refresh, retry, expire] = SOA_TIMES;
    for number in [serial, refresh, retry, expire, ttl] {
        reply.extend(number.to_be_bytes());
    }
    let length = u16::try_from(reply.len() - start - 2).unwrap_or_default();
    reply[start..start + 2].copy_from_slice(&length.to_be_bytes());
}

/// A byte of a label that an object of Kubernetes can have, in lower case.
fn lower(byte: u8) -> Option<u8> {
    (byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')).then(|| byte.to_ascii_lowercase())
}

/// How large a reply may be by this OPT record, which is of version 0 and has no flags or options.
fn edns_limit(opt: &[u8]) -> Option<usize> {
    let [0, 0, 41, high, low, 0, 0, 0, 0, 0, 0] = opt else { return None };
    Some(usize::from(u16::from_be_bytes([*high, *low]).min(UDP_LIMIT)).max(PLAIN_LIMIT))
}

#[cfg(test)]
mod tests;
