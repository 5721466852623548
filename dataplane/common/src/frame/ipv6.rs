//! IPv6 headers and what may stand between them and the payload. Extension headers that are not known are not passed over:
//! behind them could be anything.

use super::{Ip, Part};
use crate::{Address, Reason};

/// Bytes of an Ethernet and an IPv6 header.
pub const IPV6_LEN: usize = 54;
/// Bytes that are read of an extension header.
pub const EXTENSION_LEN: usize = 8;
/// Extension headers of one packet that are passed over, at most.
pub const EXTENSIONS: usize = 4;
/// Where the payload begins at the latest, in bytes from the start of the frame.
pub const LONGEST: usize = 0x1fff;

/// Options for every node on the way.
const HOP_BY_HOP: u8 = 0;
/// The way that the packet is to take.
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
/// Options for the receiver.
const DESTINATION: u8 = 60;

/// The first bytes of a frame, enough for an IPv6 header.
pub type Head = [u8; IPV6_LEN];

/// Reads the head of a frame that carries IPv6, whatever its Ethernet header says. The protocol is that of the header that
/// follows, an extension or not.
///
/// # Errors
/// The header is not one, or has a v4-mapped address, which no packet may have.
#[inline(always)]
pub const fn parse(head: &Head) -> Result<Ip, Reason> {
    let (source, destination) = (address(head, 22), address(head, 38));
    if head[14] >> 4 != 6 || source.is_v4() || destination.is_v4() {
        return Err(Reason::Malformed);
    }
    Ok(Ip {
        source_mac: [head[6], head[7], head[8], head[9], head[10], head[11]],
        source,
        destination,
        protocol: head[20],
        payload: IPV6_LEN,
        id: 0,
        part: Part::Whole,
    })
}

#[inline(always)]
const fn address(head: &Head, at: usize) -> Address {
    Address::from_words([word(head, at), word(head, at + 4), word(head, at + 8), word(head, at + 12)])
}

#[inline(always)]
const fn word(head: &Head, at: usize) -> u32 {
    u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

/// Whether a header with this number says what comes next, and is not the payload itself.
#[must_use]
#[inline(always)]
pub const fn is_extension(number: u8) -> bool {
    // The others: mobility, host identity, Shim6, and the two numbers for experiments.
    matches!(number, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION | 135 | 139 | 140 | 253 | 254)
}

/// How far the headers of a packet have been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Number of the next header.
    pub next: u8,
    /// Where it begins, in bytes from the start of the frame.
    pub at: usize,
    /// Identification of a fragment, as it lies in memory; zero without one.
    pub id: u32,
    /// How much of a packet this is.
    pub part: Part,
}

impl Walk {
    /// In front of a packet's first extension header.
    #[must_use]
    #[inline(always)]
    pub const fn new(next: u8, at: usize) -> Self {
        Self { next, at, id: 0, part: Part::Whole }
    }

    /// Whether the payload is reached: behind a fragment that is not the first there are no more headers.
    #[must_use]
    #[inline(always)]
    pub const fn is_done(&self) -> bool {
        matches!(self.part, Part::Second | Part::Later) || !is_extension(self.next)
    }

    /// Passes over an extension header that begins with these bytes.
    ///
    /// # Errors
    /// Not one that may be passed over: unknown, a route for the packet, a second fragment, or too long.
    #[inline(always)]
    pub const fn step(self, header: &[u8; EXTENSION_LEN]) -> Result<Self, Reason> {
        let [next, length, high, low, a, b, c, d] = *header;
        match self.next {
            HOP_BY_HOP | DESTINATION => {
                let at = self.at + EXTENSION_LEN * (length as usize + 1);
                if at > LONGEST { Err(Reason::ExtensionHeader) } else { Ok(Self { next, at, ..self }) }
            }
            FRAGMENT if matches!(self.part, Part::Whole) && self.id == 0 => {
                let part = part(u16::from_be_bytes([high, low]));
                let at = self.at + EXTENSION_LEN;
                // A later fragment of an extension header cannot be told from one of the payload.
                if is_extension(next) && !matches!(part, Part::Whole) {
                    return Err(Reason::ExtensionHeader);
                }
                Ok(Self { next, at, id: u32::from_ne_bytes([a, b, c, d]), part })
            }
            _ => Err(Reason::ExtensionHeader),
        }
    }

    /// The packet, its headers read.
    #[must_use]
    #[inline(always)]
    pub const fn packet(&self, packet: &Ip) -> Ip {
        Ip { protocol: self.next, payload: self.at, id: self.id, part: self.part, ..*packet }
    }

    /// As one word, which a kernel function can return. Never zero.
    #[must_use]
    #[inline(always)]
    pub const fn to_word(&self) -> u64 {
        let head = (self.at & LONGEST) as u64 | (self.part as u64) << 16;
        head | (self.next as u64) << 24 | (self.id as u64) << 32
    }

    /// From [`Walk::to_word`].
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "each field as wide as it was")]
    pub const fn from_word(word: u64) -> Self {
        let part = match (word >> 16) as u8 {
            0 => Part::Whole,
            1 => Part::First,
            2 => Part::Later,
            _ => Part::Second,
        };
        Self { next: (word >> 24) as u8, at: word as usize & LONGEST, id: (word >> 32) as u32, part }
    }
}

/// From the offset, in units of 8 bytes above three bits, and the lowest bit, which says that more follow.
#[inline(always)]
const fn part(word: u16) -> Part {
    match (word >> 3, word & 1) {
        (0, 0) => Part::Whole,
        (0, _) => Part::First,
        (1, _) => Part::Second,
        _ => Part::Later,
    }
}

#[cfg(test)]
mod tests;
