//! Packets that are one plain question, read without building a message: for A or AAAA, with or without EDNS (RFC 1035 section 4.1,
//! RFC 6891). All that the two quick ways ([`crate::fast`] and the cache's) need to know of it; whatever is odd is left to the general way.

use hickory_proto::rr::RecordType;

use crate::cache::key;
use crate::message::UDP_LIMIT;
use crate::wire::HEADER;

/// Largest reply to a client that says nothing of its own limit, in bytes (RFC 1035 section 4.2.1).
const PLAIN_LIMIT: usize = 512;
/// Longest name in a packet, in bytes (RFC 1035 section 3.1).
const NAME: usize = 255;
/// As many labels as such a name can have.
const LABELS: usize = 128;
const LONGEST_LABEL: usize = 63;
pub(crate) const RECURSION_DESIRED: u8 = 0x01;
pub(crate) const CHECKING_DISABLED: u8 = 0x10;
pub(crate) const AUTHENTIC: u8 = 0x20;

/// A packet that is one plain question.
pub(crate) struct Question<'a> {
    pub(crate) packet: &'a [u8],
    /// Where the question ends, in bytes from the start of the packet.
    pub(crate) end: usize,
    /// The name as in the packet, lower case, and behind it the rest of what an answer is kept under: see [`key`].
    name: [u8; NAME + key::TAIL],
    /// Length of the name with its root label.
    length: usize,
    /// Where each label's length stands in `name`.
    starts: [u8; LABELS],
    labels: usize,
    /// Whether an object of Kubernetes can have each of the labels.
    pub(crate) is_host: bool,
    /// Whether it asks for A; else for AAAA.
    pub(crate) is_v4: bool,
    /// Where there is an OPT record, whether it asks for signatures (DO, RFC 3225).
    pub(crate) edns: Option<bool>,
    /// Largest reply, in bytes.
    pub(crate) limit: usize,
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
        let (mut name, mut starts, mut labels, mut at) = ([0; NAME + key::TAIL], [0; LABELS], 0, 0);
        let mut is_host = true;
        loop {
            let label = packet.get(HEADER + at..)?;
            let length = usize::from(*label.first()?);
            if length == 0 {
                break;
            }
            if length > LONGEST_LABEL || at + length + 2 > NAME {
                return None;
            }
            let (from, into) = (label.get(..=length)?, name.get_mut(at..=at + length)?);
            into.copy_from_slice(from);
            into.make_ascii_lowercase(); // a length is no letter
            is_host &=
                from[1..].iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
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
            (0, []) => (None, PLAIN_LIMIT),
            // of version 0, without options
            (1, [0, 0, 41, high, low, 0, 0, dnssec @ (0 | 0x80), 0, 0, 0]) => {
                let limit = u16::from_be_bytes([*high, *low]).min(UDP_LIMIT);
                (Some(*dnssec != 0), usize::from(limit).max(PLAIN_LIMIT))
            }
            _ => return None,
        };
        let unchecked = if more & CHECKING_DISABLED == 0 { 0 } else { key::UNCHECKED };
        let flags = unchecked | if edns == Some(true) { key::DNSSEC } else { 0 };
        name[at + 1..=at + key::TAIL].copy_from_slice(&[0, if is_v4 { 1 } else { 28 }, flags]);
        Some(Self { packet, end, name, length: at + 1, starts, labels, is_host, is_v4, edns, limit })
    }

    pub(crate) fn rtype(&self) -> RecordType {
        if self.is_v4 { RecordType::A } else { RecordType::AAAA }
    }

    /// What its answer is kept under. Not after [`Question::dotted`].
    pub(crate) fn key(&self) -> &[u8] {
        &self.name[..self.length + key::TAIL]
    }

    /// Whether the name may be that of an address, which the cluster may come to know.
    pub(crate) fn is_reverse(&self) -> bool {
        self.name[..self.length].ends_with(b"\x04arpa\0")
    }

    /// How many labels stand before `domain`, where the name lies below it.
    pub(crate) fn below(&self, domain: &[u8]) -> Option<usize> {
        let at = self.length.checked_sub(domain.len())?;
        let inside = self.name.get(at..self.length)? == domain;
        let starts = &self.starts[..self.labels];
        starts.iter().position(|start| usize::from(*start) == at).filter(|_| inside)
    }

    pub(crate) fn label(&self, index: usize) -> &[u8] {
        let start = usize::from(self.starts[index]);
        &self.name[start + 1..=start + usize::from(self.name[start])]
    }

    /// The label at `index` and the next one with a dot between them; the name is good for nothing else after that but its first labels.
    pub(crate) fn dotted(&mut self, index: usize) -> Option<&str> {
        let [start, dot, end] = [0, 1, 2].map(|more| usize::from(self.starts[index + more]));
        self.name[dot] = b'.';
        std::str::from_utf8(&self.name[start + 1..end]).ok()
    }

    /// Where a label of the name stands in the packet.
    pub(crate) fn offset(&self, label: usize) -> usize {
        HEADER + usize::from(self.starts[label])
    }
}
