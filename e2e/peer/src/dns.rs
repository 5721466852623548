//! DNS messages as far as tests need them (RFC 1035, EDNS of RFC 6891).

pub(crate) mod server;

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) const A: u16 = 1;
pub(crate) const CNAME: u16 = 5;
pub(crate) const SOA: u16 = 6;
pub(crate) const TXT: u16 = 16;
pub(crate) const AAAA: u16 = 28;
pub(crate) const OPT: u16 = 41;
const IN: u16 = 1;
/// Names of record types and their numbers.
const TYPES: [(&str, u16); 9] = [
    ("A", A),
    ("NS", 2),
    ("CNAME", CNAME),
    ("SOA", SOA),
    ("PTR", 12),
    ("TXT", TXT),
    ("AAAA", AAAA),
    ("SRV", 33),
    ("OPT", OPT),
];

/// A record whose data is already in wire form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) kind: u16,
    /// In seconds.
    pub(crate) ttl: u32,
    pub(crate) data: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// Name without the last dot, and type.
    pub(crate) question: Option<(String, u16)>,
    pub(crate) answers: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    pub(crate) additional: Vec<Record>,
    /// Size of an answer over UDP that the sender takes, from its OPT record.
    pub(crate) udp_size: Option<u16>,
}

pub(crate) fn kind_number(name: &str) -> Option<u16> {
    TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, number)| *number)
}

pub(crate) fn kind_name(number: u16) -> String {
    TYPES
        .iter()
        .find(|(_, known)| *known == number)
        .map_or_else(|| format!("TYPE{number}"), |(name, _)| (*name).into())
}

/// A name in wire form, without compression.
pub(crate) fn wire_name(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len().min(63)).unwrap_or(63));
        out.extend(label.bytes().take(63));
    }
    out.push(0);
    out
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let opt = usize::from(self.udp_size.is_some());
        let counts = [
            usize::from(self.question.is_some()),
            self.answers.len(),
            self.authority.len(),
            self.additional.len() + opt,
        ];
        out.extend(self.id.to_be_bytes());
        out.extend(self.flags.to_be_bytes());
        for count in counts {
            out.extend(u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
        }
        if let Some((name, kind)) = &self.question {
            out.extend(wire_name(name));
            out.extend(kind.to_be_bytes());
            out.extend(IN.to_be_bytes());
        }
        for record in self.answers.iter().chain(&self.authority).chain(&self.additional) {
            out.extend(wire_name(&record.name));
            out.extend(record.kind.to_be_bytes());
            out.extend(IN.to_be_bytes());
            out.extend(record.ttl.to_be_bytes());
            out.extend(u16::try_from(record.data.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend(&record.data);
        }
        if let Some(size) = self.udp_size {
            out.push(0);
            out.extend(OPT.to_be_bytes());
            out.extend(size.to_be_bytes());
            out.extend([0; 6]);
        }
        out
    }

    /// `None` where the bytes are no message.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let [id, flags, questions, answers, authority, additional] = reader.u16s()?;
        let mut message = Self { id, flags, ..Self::default() };
        for _ in 0..questions {
            let name = reader.name()?;
            let [kind, _class] = reader.u16s()?;
            message.question = Some((name, kind));
        }
        message.answers = message.section(&mut reader, answers)?;
        message.authority = message.section(&mut reader, authority)?;
        message.additional = message.section(&mut reader, additional)?;
        Some(message)
    }

    fn section(&mut self, reader: &mut Reader<'_>, count: u16) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        for _ in 0..count {
            let name = reader.name()?;
            let [kind, class, ttl_high, ttl_low, length] = reader.u16s()?;
            let end = reader.at + usize::from(length);
            if kind == OPT {
                self.udp_size = Some(class);
            } else {
                let ttl = u32::from(ttl_high) << 16 | u32::from(ttl_low);
                records.push(Record { name, kind, ttl, data: reader.data(kind, end)? });
            }
            reader.at = end;
        }
        Some(records)
    }

    pub(crate) fn code(&self) -> &'static str {
        match self.flags & 0xf {
            0 => "NOERROR",
            1 => "FORMERR",
            2 => "SERVFAIL",
            3 => "NXDOMAIN",
            4 => "NOTIMP",
            5 => "REFUSED",
            _ => "OTHER",
        }
    }
}

impl Record {
    /// The data as zone files write it.
    pub(crate) fn text(&self) -> String {
        let number = |at: usize| Some(u16::from_be_bytes([*self.data.get(at)?, *self.data.get(at + 1)?]));
        let name = |at: usize| Reader { bytes: &self.data, at }.name();
        let text = match kind_name(self.kind).as_str() {
            "A" => {
                <[u8; 4]>::try_from(self.data.as_slice()).ok().map(|bytes| Ipv4Addr::from(bytes).to_string())
            }
            "AAAA" => {
                <[u8; 16]>::try_from(self.data.as_slice()).ok().map(|bytes| Ipv6Addr::from(bytes).to_string())
            }
            "CNAME" | "PTR" | "NS" | "SOA" => name(0),
            "SRV" => (|| Some(format!("{} {} {} {}", number(0)?, number(2)?, number(4)?, name(6)?)))(),
            "TXT" => Some(strings(&self.data)),
            _ => None,
        };
        text.unwrap_or_else(|| {
            self.data.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        })
    }
}

fn strings(mut data: &[u8]) -> String {
    let mut text = String::new();
    while let Some((length, rest)) = data.split_first() {
        let (string, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        text.push_str(&String::from_utf8_lossy(string));
        data = rest;
    }
    text
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn u16s<const N: usize>(&mut self) -> Option<[u16; N]> {
        let mut out = [0; N];
        for number in &mut out {
            *number = u16::from_be_bytes([self.u8()?, self.u8()?]);
        }
        Some(out)
    }

    /// A name, following pointers; at most 128 labels, so that a loop of pointers ends.
    fn name(&mut self) -> Option<String> {
        let mut labels: Vec<String> = Vec::new();
        let mut back = None;
        for _ in 0..128 {
            let length = self.u8()?;
            if length >= 0xc0 {
                let low = self.u8()?;
                back.get_or_insert(self.at);
                self.at = usize::from(length & 0x3f) << 8 | usize::from(low);
            } else if length == 0 {
                self.at = back.unwrap_or(self.at);
                return Some(labels.join("."));
            } else {
                let label = self.bytes.get(self.at..self.at + usize::from(length))?;
                labels.push(String::from_utf8_lossy(label).into_owned());
                self.at += usize::from(length);
            }
        }
        None
    }

    /// The data of a record up to `end`, names in it without compression.
    fn data(&mut self, kind: u16, end: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let fixed = match kind_name(kind).as_str() {
            "CNAME" | "PTR" | "NS" => 0,
            "SRV" => 6,
            _ => return self.bytes.get(self.at..end).map(<[u8]>::to_vec),
        };
        out.extend_from_slice(self.bytes.get(self.at..self.at + fixed)?);
        self.at += fixed;
        out.extend(wire_name(&self.name()?));
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_the_wire() {
        let record = |kind, data: Vec<u8>| Record { name: "a.test".into(), kind, ttl: 5, data };
        let message = Message {
            id: 7,
            flags: 0x8180,
            question: Some(("a.test".into(), A)),
            answers: vec![record(CNAME, wire_name("b.test")), record(A, vec![198, 51, 100, 10])],
            udp_size: Some(1232),
            ..Message::default()
        };
        let back = Message::decode(&message.encode()).unwrap();
        assert_eq!(back, message);
        assert_eq!(back.answers.iter().map(Record::text).collect::<Vec<_>>(), ["b.test", "198.51.100.10"]);
    }

    #[test]
    fn pointers_are_followed_and_a_loop_of_them_ends() {
        let mut bytes = vec![0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend([0xc0, 12, 0, 1, 0, 1]);
        assert_eq!(Message::decode(&bytes), None);
        let compressed = [1, b'a', 0, 1, b'b', 0xc0, 0];
        assert_eq!(Reader { bytes: &compressed, at: 3 }.name().unwrap(), "b.a");
    }
}
