//! Ports of a rule, and the prefixes that a longest-prefix-match trie holds of them.

use std::ops::RangeInclusive;

use netkeel_dataplane_common::Protocol;

/// Some ports of one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Destination ports, host byte order; [`ALL`] when the rule names none.
    pub range: RangeInclusive<u16>,
}

/// Every port of a protocol.
pub const ALL: RangeInclusive<u16> = 0..=u16::MAX;

impl Ports {
    /// Whether traffic of this IP protocol to this port (host byte order) is meant.
    #[must_use]
    pub fn contains(&self, protocol: u8, port: u16) -> bool {
        self.protocol as u8 == protocol && self.range.contains(&port)
    }
}

/// The fewest prefixes that cover exactly these ports: first port and number of bits, at most 30 of them.
pub fn prefixes(range: RangeInclusive<u16>) -> impl Iterator<Item = (u16, u8)> {
    let (mut next, end) = (u32::from(*range.start()), u32::from(*range.end()));
    std::iter::from_fn(move || {
        let port = u16::try_from(next).ok().filter(|_| next <= end)?;
        let mut bits = 16;
        while bits > 0 && next.trailing_zeros() > 16 - bits && next + (2 << (16 - bits)) - 1 <= end {
            bits -= 1;
        }
        next += 1 << (16 - bits);
        u8::try_from(bits).ok().map(|bits| (port, bits))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(range: RangeInclusive<u16>) -> Vec<(u16, u8)> {
        prefixes(range).collect()
    }

    #[test]
    fn ranges_become_the_fewest_prefixes() {
        assert_eq!(found(80..=80), [(80, 16)]);
        assert_eq!(found(ALL), [(0, 0)]);
        assert_eq!(found(8080..=8087), [(8080, 13)]);
        assert_eq!(found(1..=6), [(1, 16), (2, 15), (4, 15), (6, 16)]);
        assert_eq!(found(65535..=65535), [(65535, 16)]);
        assert_eq!(found(32768..=65535), [(32768, 1)]);
        assert_eq!(found(1..=65534).len(), 30);
        assert_eq!(found(RangeInclusive::new(81, 80)), []);
    }

    proptest! {
        #[test]
        fn the_prefixes_cover_the_range_and_nothing_else(first: u16, last: u16) {
            let mut next = u32::from(first);
            for (port, bits) in prefixes(first..=last) {
                prop_assert_eq!(u32::from(port), next);
                let size = 1_u32 << (16 - u32::from(bits));
                prop_assert_eq!(next % size, 0, "{} is not the first port of a prefix of {} bits", port, bits);
                next += size;
            }
            prop_assert_eq!(next, u32::from(first).max(u32::from(last) + u32::from(first <= last)));
        }
    }
}
