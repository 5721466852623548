//! A resolver's reply, read once and made ready to be given many times: without its OPT record, which is between two neighbours
//! only (RFC 6891 section 6.1.1), with the places of its times to live, and with how long it may be kept. Pure.

use std::ops::Range;

use netkeel_crds::cluster_network::dns::Cache;

use crate::wire::{HEADER, OPT_TYPE, TRUNCATED, address_size};

const AUTHORITATIVE: u8 = 0x04;
const A: u16 = 1;
const SOA: u16 = 6;
const AAAA: u16 = 28;
const TSIG: u16 = 250;
const ANY: u16 = 255;
const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NX_DOMAIN: u8 = 3;
/// How long a failure of a resolver is kept, in seconds (RFC 2308 section 7.1 allows 5 minutes).
pub(crate) const FAILURE: u32 = 5;
/// Largest time to live, in seconds; a larger one is none at all (RFC 2181 section 8).
const LARGEST: u32 = i32::MAX.cast_unsigned();

/// How long answers are kept, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    min: u32,
    max: u32,
    negative: u32,
}

impl Bounds {
    /// As the resolvers say.
    const NONE: Self = Self { min: 0, max: LARGEST, negative: LARGEST };

    pub(crate) fn of(cache: &Cache) -> Self {
        if cache.max_entries == 0 {
            return Self::NONE;
        }
        let Cache { min_ttl_seconds, max_ttl_seconds, negative_max_ttl_seconds, .. } = *cache;
        Self {
            min: min_ttl_seconds,
            max: max_ttl_seconds.max(min_ttl_seconds),
            negative: negative_max_ttl_seconds,
        }
    }
}

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// There are such records.
    Positive,
    /// There is no such name or record, by a SOA record that says for how long (RFC 2308 section 5).
    Negative,
    /// SERVFAIL.
    Failure,
    /// What is not kept: it was cut, refers to other servers, or refuses.
    Other,
}

/// The times to live that are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Less by this age in seconds.
    Aged(u32),
    /// This one for all records.
    Stale(u32),
}

/// A reply to be given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The whole message; the question in lower case.
    wire: Box<[u8]>,
    /// Where the times to live stand.
    ttls: Box<[u16]>,
    run: Run,
    kind: Kind,
    ttl: u32,
}

/// Address records of one name that follow each other and are of one size, so that any of them can be the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Run {
    start: usize,
    size: usize,
    count: usize,
}

impl Reply {
    /// Reads the reply to `question`; `None` where it is damaged, or no reply to that.
    pub(crate) fn read(packet: &[u8], question: &[u8], bounds: &Bounds) -> Option<Self> {
        let mut counts = counts(packet)?;
        let start = HEADER + question.len();
        let theirs = match packet[4..6] {
            [0, 0] => {
                counts = [0; 3];
                None
            }
            [0, 1] => Some(packet.get(HEADER..start)?),
            _ => return None,
        };
        if theirs.is_some_and(|theirs| !same_question(theirs, question))
            || u16::try_from(packet.len()).is_err()
        {
            return None;
        }
        let (records, extra) = records(packet, start, counts)?;
        counts[2] = extra;
        let end = records.last().map_or(start, |record| record.end);
        let mut wire = [&packet[..HEADER], question, packet.get(start..end).unwrap_or_default()].concat();
        wire[2] &= !AUTHORITATIVE;
        wire[5] = 1;
        for (at, count) in [6, 8, 10].into_iter().zip(counts) {
            wire[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
        let rtype = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
        let kind = kind(packet, rtype, &records);
        let ttl = bound(&mut wire, kind, &records, bounds);
        let ttls = records.iter().filter_map(|record| u16::try_from(record.ttl_at).ok()).collect();
        Some(Self { run: run(packet, &records), wire: wire.into(), ttls, kind, ttl })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// How long it may be kept, in seconds.
    pub(crate) fn ttl(&self) -> u32 {
        self.ttl
    }

    /// The response code.
    pub(crate) fn code(&self) -> u8 {
        self.wire[3] & 0x0f
    }

    /// Size of the message, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.wire.len()
    }

    /// Memory that this takes besides its own fields, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.wire.len() + 2 * self.ttls.len()
    }

    /// Appends the message. Its addresses begin with another one each `turn`.
    pub(crate) fn put(&self, bytes: &mut Vec<u8>, told: Told, turn: usize) {
        let begin = bytes.len();
        bytes.extend_from_slice(&self.wire);
        let message = &mut bytes[begin..];
        for at in &self.ttls {
            let at = usize::from(*at);
            let ttl = match told {
                Told::Aged(age) => number(message, at).saturating_sub(age),
                Told::Stale(ttl) => ttl,
            };
            message[at..at + 4].copy_from_slice(&ttl.to_be_bytes());
        }
        let Run { start, size, count } = self.run;
        if count > 1 {
            message[start..start + size * count].rotate_left(size * (turn % count));
        }
    }
}

/// One record of a packet: where its parts are.
#[derive(Debug)]
struct Record {
    section: usize,
    start: usize,
    rtype: u16,
    ttl_at: usize,
    data: Range<usize>,
    end: usize,
}

fn counts(packet: &[u8]) -> Option<[u16; 3]> {
    let header = packet.first_chunk::<HEADER>()?;
    Some([6, 8, 10].map(|at| u16::from_be_bytes([header[at], header[at + 1]])))
}

fn number(packet: &[u8], at: usize) -> u32 {
    packet.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// Whether both have the same name, whatever its case, and the same type and class.
pub(crate) fn same_question(theirs: &[u8], ours: &[u8]) -> bool {
    let name = ours.len().saturating_sub(4);
    theirs.len() == ours.len()
        && theirs[name..] == ours[name..]
        && theirs[..name].eq_ignore_ascii_case(&ours[..name])
}

/// The records up to the OPT record or a signature of the message, and how many of them are additional.
fn records(packet: &[u8], start: usize, counts: [u16; 3]) -> Option<(Vec<Record>, u16)> {
    let (mut at, mut found, mut extra) = (start, Vec::new(), 0);
    for (section, count) in counts.into_iter().enumerate() {
        for _ in 0..count {
            let record = record(packet, at, section)?;
            if matches!(record.rtype, OPT_TYPE | TSIG) {
                // the upper bits of the response code must be none: what they say is no answer
                let plain = section == 2 && (record.rtype == TSIG || packet[record.ttl_at] == 0);
                return plain.then_some((found, extra));
            }
            at = record.end;
            extra += u16::from(section == 2);
            found.push(record);
        }
    }
    Some((found, extra))
}

fn record(packet: &[u8], start: usize, section: usize) -> Option<Record> {
    let fields = skip_name(packet, start)?;
    let head = packet.get(fields..fields + 10)?;
    let data = fields + 10;
    let end = data + usize::from(u16::from_be_bytes([head[8], head[9]]));
    let rtype = u16::from_be_bytes([head[0], head[1]]);
    (end <= packet.len()).then_some(Record {
        section,
        start,
        rtype,
        ttl_at: fields + 4,
        data: data..end,
        end,
    })
}

/// Where the name at `at` ends; a pointer must lead backwards (RFC 1035 section 4.1.4).
fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += usize::from(length) + 1,
            high @ 0xc0.. => {
                let target = usize::from(u16::from_be_bytes([high & 0x3f, *packet.get(at + 1)?]));
                return (HEADER..at).contains(&target).then_some(at + 2);
            }
            _ => return None,
        }
    }
}

fn kind(packet: &[u8], rtype: u16, records: &[Record]) -> Kind {
    let answers = || records.iter().filter(|record| record.section == 0);
    let found = answers().any(|record| record.rtype == rtype || rtype == ANY);
    let soa = records.iter().any(|record| record.section == 1 && record.rtype == SOA);
    match packet[3] & 0x0f {
        _ if packet[2] & TRUNCATED != 0 => Kind::Other,
        NO_ERROR if found => Kind::Positive,
        NO_ERROR | NX_DOMAIN if soa => Kind::Negative,
        NO_ERROR if answers().next().is_some() => Kind::Positive,
        SERVER_FAILURE => Kind::Failure,
        _ => Kind::Other,
    }
}

/// Brings the times to live into their bounds. Returns how long the reply may be kept.
fn bound(wire: &mut [u8], kind: Kind, records: &[Record], bounds: &Bounds) -> u32 {
    let mut least = match kind {
        Kind::Positive => bounds.max,
        Kind::Negative => bounds.negative,
        Kind::Failure => return FAILURE,
        Kind::Other => return 0,
    };
    for record in records {
        let told = match number(wire, record.ttl_at) {
            ttl if ttl > LARGEST => 0,
            ttl => ttl,
        };
        let ttl = if kind == Kind::Negative && record.section == 1 && record.rtype == SOA {
            // RFC 2308 section 5: the lesser of the SOA record's own time and its minimum field
            let minimum = number(wire, record.data.end.saturating_sub(4).max(record.data.start));
            told.min(minimum).max(bounds.min).min(bounds.negative)
        } else {
            told.clamp(bounds.min, bounds.max)
        };
        wire[record.ttl_at..record.ttl_at + 4].copy_from_slice(&ttl.to_be_bytes());
        if record.section < 2 {
            least = least.min(ttl);
        }
    }
    least
}

/// The first run of addresses in the answer.
fn run(packet: &[u8], records: &[Record]) -> Run {
    let size = |record: &Record| match record.rtype {
        A => address_size(true),
        AAAA => address_size(false),
        _ => 0,
    };
    // an owner that is a pointer alone makes the size; the same pointer makes the same name
    let fits = |record: &Record| record.section == 0 && record.end - record.start == size(record);
    let Some(first) = records.iter().position(fits) else { return Run::default() };
    let like = |record: &&Record| {
        let (this, that) = (&records[first], *record);
        fits(that)
            && that.rtype == this.rtype
            && packet[that.start..that.start + 2] == packet[this.start..this.start + 2]
    };
    let count = records[first..].iter().take_while(like).count();
    Run { start: records[first].start, size: size(&records[first]), count }
}

#[cfg(test)]
mod tests;
