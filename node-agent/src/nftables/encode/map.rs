//! Maps of a table: what they map, and their elements. Each part of a key or value takes whole words, as registers do.

use std::net::{IpAddr, SocketAddr};

use super::{
    super::attribute::{address, behind_header, octets},
    Message, NESTED, Table, text, value,
};
use crate::link::attribute::{attributes, put, within};

const NEWSET: u16 = 9;
pub(crate) const NEWSETELEM: u16 = 12;
pub(crate) const GETSETELEM: u16 = 13;
pub(crate) const DELSETELEM: u16 = 14;

/// A map, not a set (`NFT_SET_MAP`).
const MAP: u32 = 8;
/// Elements of one message: a message is at most 64 KiB long.
const A_MESSAGE: usize = 256;

/// nft's own numbers of types, by which it prints a map; six bits each in a concatenation.
const IPV4_ADDR: u32 = 7;
const IPV6_ADDR: u32 = 8;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;
const WORD: u32 = 4;

/// A family of addresses, as netfilter numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4 = 2,
    V6 = 10,
}

impl Family {
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Bytes of an address.
    pub(crate) const fn len(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    const fn kind(self) -> u32 {
        match self {
            Self::V4 => IPV4_ADDR,
            Self::V6 => IPV6_ADDR,
        }
    }
}

/// What a map maps: protocol and port, behind an address where `at` is set, to an address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapType {
    pub(crate) family: Family,
    pub(crate) at: bool,
}

impl MapType {
    const fn key(self) -> (u32, u32) {
        let pair = INET_PROTO << 6 | INET_SERVICE;
        if self.at {
            (self.family.kind() << 12 | pair, self.family.len() + 2 * WORD)
        } else {
            (pair, 2 * WORD)
        }
    }

    const fn data(self) -> (u32, u32) {
        (self.family.kind() << 6 | INET_SERVICE, self.family.len() + WORD)
    }
}

/// An element of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    /// `None` in a map without addresses in its keys.
    pub(crate) at: Option<IpAddr>,
    /// IP protocol number.
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) to: SocketAddr,
}

impl Element {
    fn key(&self) -> Vec<u8> {
        let [high, low] = self.port.to_be_bytes();
        let at = self.at.map(octets).unwrap_or_default();
        [&at[..], &[self.protocol, 0, 0, 0, high, low, 0, 0]].concat()
    }

    fn data(&self) -> Vec<u8> {
        let [high, low] = self.to.port().to_be_bytes();
        [&octets(self.to.ip())[..], &[high, low, 0, 0]].concat()
    }

    fn read(key: &[u8], data: &[u8]) -> Option<Self> {
        let (at, rest) = key.split_at_checked(key.len().checked_sub(8)?)?;
        let [protocol, _, _, _, high, low, ..] = *rest else { return None };
        let (to, port) = data.split_at_checked(data.len().checked_sub(4)?)?;
        let [to_high, to_low, ..] = *port else { return None };
        let at = if at.is_empty() { None } else { Some(address(at)?) };
        let to = SocketAddr::new(address(to)?, u16::from_be_bytes([to_high, to_low]));
        Some(Self { at, protocol, port: u16::from_be_bytes([high, low]), to })
    }
}

impl Table {
    /// Adds a map, which starts empty. It must come before the chains that ask it.
    pub(crate) fn map(&mut self, name: &'static str, map: MapType) {
        let (key, data) = (map.key(), map.data());
        self.maps += 1;
        let mut body = map_name(self.name, name);
        for (kind, number) in [(3, MAP), (4, key.0), (5, key.1), (6, data.0), (7, data.1), (10, self.maps)] {
            put(&mut body, kind, &number.to_be_bytes());
        }
        self.parts.push(Message { kind: NEWSET, create: true, body });
    }
}

/// The attributes that name a map of a table, as a map and as the owner of elements.
pub(crate) fn map_name(table: &str, name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    put(&mut body, 1, &text(table));
    put(&mut body, 2, &text(name));
    body
}

/// The messages that add elements to a map (`NEWSETELEM`) or take them away (`DELSETELEM`).
pub(crate) fn elements(kind: u16, table: &str, map: &str, all: &[Element]) -> Vec<Message> {
    let message = |some: &[Element]| {
        let mut list = Vec::new();
        for element in some {
            let mut one = Vec::new();
            put(&mut one, 1 | NESTED, &value(&element.key()));
            if kind == NEWSETELEM {
                put(&mut one, 2 | NESTED, &value(&element.data()));
            }
            put(&mut list, 1 | NESTED, &one);
        }
        let mut body = map_name(table, map);
        put(&mut body, 3 | NESTED, &list);
        Message { kind, create: kind == NEWSETELEM, body }
    };
    all.chunks(A_MESSAGE).map(message).collect()
}

/// The elements that a message of the kernel lists.
pub(crate) fn elements_of(body: &[u8]) -> Vec<Element> {
    let list = behind_header(body, 3).unwrap_or_default();
    let part = |one, kind| within(within(one, kind)?, 1);
    let element = |one| Element::read(part(one, 1)?, part(one, 2)?);
    attributes(list).filter_map(|(_, one)| element(one)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_back_as_they_were_sent() {
        for (at, to) in [
            (None, "10.244.0.7:80"),
            (Some("192.0.2.1"), "10.244.0.7:80"),
            (None, "[fd00::7]:53"),
            (Some("2001:db8::1"), "[fd00::7]:53"),
        ] {
            let at = at.map(|at| at.parse().unwrap());
            let all: Vec<_> = (0..300)
                .map(|number| Element { at, protocol: 17, port: 1000 + number, to: to.parse().unwrap() })
                .collect();
            let messages = elements(NEWSETELEM, "table", "map", &all);
            assert_eq!(messages.len(), 2);
            let back: Vec<_> = messages
                .iter()
                .flat_map(|message| elements_of(&[&[0; 4][..], &message.body].concat()))
                .collect();
            assert_eq!(back, all);
        }
        assert_eq!(elements_of(&[0; 7]), []);
    }

    #[test]
    fn a_map_has_whole_words() {
        let four = MapType { family: Family::V4, at: true };
        let six = MapType { family: Family::V6, at: false };
        assert_eq!((four.key().1, four.data().1), (12, 8));
        assert_eq!((six.key().1, six.data().1), (8, 20));
    }
}
