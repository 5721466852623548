//! The commonest questions, answered straight from the records that the zone has ready: one question for A or AAAA at a name
//! below the cluster domain, with or without EDNS. No message is built, and for a Service's own name nothing is allocated. Whatever is
//! odd is left to the general way, which gives the same answers.

use std::borrow::Cow;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::answer::is_hidden;
use crate::message::UDP_LIMIT;
use crate::plain::{CHECKING_DISABLED, Question, RECURSION_DESIRED};
use crate::wire::{OPT, SOA_TIMES, TRUNCATED, address_size, put_address, put_opt, soa_ttl};
use crate::zone::{Entry, Service, Zone};

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) rtype: RecordType,
    pub(crate) code: ResponseCode,
    /// Whether it is a resolver's answer that was kept; else it is the cluster's own.
    pub(crate) cached: bool,
}

/// Appends the reply to a datagram to `reply`; `None`, with nothing appended, where the general way has to. The question is below the
/// zone's domain, whose first label is the one at `apex`. Replies with several addresses begin with another one each `turn`.
pub(crate) fn answer(
    zone: &Zone,
    question: &mut Question<'_>,
    (apex, turn): (usize, usize),
    reply: &mut Vec<u8>,
) -> Option<Answered> {
    if !question.is_host {
        return None;
    }
    let ttl = zone.settings().ttl;
    let (code, found) = match look_up(zone, question, apex)? {
        Found::Records(records) => (ResponseCode::NoError, Some(records)),
        Found::NoData => (ResponseCode::NoError, None),
        Found::NxDomain => (ResponseCode::NXDomain, None),
    };
    begin(question, reply, code);
    match found {
        Some(records) => put_records(question, reply, &records, turn),
        None => put_soa(reply, question.offset(apex), zone.serial(), ttl),
    }
    if let Some(dnssec) = question.edns {
        reply[11] = 1;
        put_opt(reply, UDP_LIMIT, 0, dnssec);
    }
    Some(Answered { rtype: question.rtype(), code, cached: false })
}

/// The same of a packet.
#[cfg(test)]
pub(crate) fn answer_packet(
    zone: &Zone,
    packet: &[u8],
    turn: usize,
    reply: &mut Vec<u8>,
) -> Option<Answered> {
    reply.clear();
    let mut question = Question::read(packet)?;
    let apex = question.below(zone.domain())?;
    answer(zone, &mut question, (apex, turn), reply)
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

/// The reply's header and the question, as it was asked.
fn begin(question: &Question<'_>, reply: &mut Vec<u8>, code: ResponseCode) {
    reply.extend_from_slice(&question.packet[..question.end]);
    reply[2] = 0x84 | question.packet[2] & RECURSION_DESIRED;
    reply[3] = 0x80 | question.packet[3] & CHECKING_DISABLED | code.low();
    reply[11] = 0;
}

/// As many as fit, from the one on whose turn it is.
fn put_records(question: &Question<'_>, reply: &mut Vec<u8>, records: &[u8], turn: usize) {
    let size = address_size(question.is_v4);
    let opt = if question.edns.is_some() { usize::from(OPT) } else { 0 };
    let (count, room) = (records.len() / size, question.limit - reply.len() - opt);
    let fitting = count.min(room / size);
    let first = turn % count;
    let before_end = fitting.min(count - first);
    reply.extend_from_slice(&records[first * size..(first + before_end) * size]);
    reply.extend_from_slice(&records[..(fitting - before_end) * size]);
    if fitting < count {
        reply[2] |= TRUNCATED;
    }
    reply[6..8].copy_from_slice(&u16::try_from(fitting).unwrap_or_default().to_be_bytes());
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

#[cfg(test)]
mod tests;
