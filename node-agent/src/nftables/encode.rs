//! The messages of nftables, as far as Netkeel's tables need them (the kernel's header `nf_tables.h`, Linux 6.6).
//! All integers of nftables attributes are in network byte order, unless they are compared data.

mod map;
mod translate;

use std::ops::RangeInclusive;

use ipnet::IpNet;
use netkeel_dataplane_common::transport::UDP;

pub(crate) use self::map::{
    DELSETELEM, Element, Family, GETSETELEM, MapType, NEWSETELEM, elements, elements_of, map_name,
};
use super::attribute::octets;
use crate::link::attribute::put;

pub(crate) const NEWTABLE: u16 = 0;
pub(crate) const GETTABLE: u16 = 1;
pub(crate) const DELTABLE: u16 = 2;
pub(crate) const NEWCHAIN: u16 = 3;
pub(crate) const NEWRULE: u16 = 6;
pub(crate) const GETRULE: u16 = 7;

pub(crate) const TABLE_NAME: u16 = 1;
pub(crate) const TABLE_USERDATA: u16 = 6;
pub(crate) const RULE_TABLE: u16 = 1;

/// Goes into a table's mark: raised when equal messages are written in another way. From 1 on rules stand in their order.
const FORM: u8 = 1;
pub(crate) const NESTED: u16 = 0x8000;
const REGISTER: u32 = 1;
const ACCEPT: u32 = 1;
const IFNAMSIZ: usize = 16;
/// What is known of a packet (`nft_meta_keys`).
const L4PROTO: u32 = 16;
/// The headers of a packet (`nft_payload_bases`).
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// Where a chain hooks in, as the family `inet` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Prerouting = 0,
    Output = 3,
    Postrouting = 4,
}

/// One message of a transaction, without its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) create: bool,
    pub(crate) body: Vec<u8>,
}

/// A table with maps, and base chains with their rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) rules: usize,
    maps: u32,
    /// Maps, chains and rules, in the order in which they are made.
    parts: Vec<Message>,
}

impl Table {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, rules: 0, maps: 0, parts: Vec::new() }
    }

    /// Adds a base chain that accepts what no rule decides.
    pub(crate) fn chain(&mut self, name: &str, kind: &str, hook: Hook, priority: i32, rules: Vec<Rule>) {
        let mut at = Vec::new();
        put(&mut at, 1, &(hook as u32).to_be_bytes());
        put(&mut at, 2, &priority.to_be_bytes());
        let mut chain = Vec::new();
        put(&mut chain, 1, &text(self.name));
        put(&mut chain, 3, &text(name));
        put(&mut chain, 4 | NESTED, &at);
        put(&mut chain, 5, &ACCEPT.to_be_bytes());
        put(&mut chain, 7, &text(kind));
        self.parts.push(Message { kind: NEWCHAIN, create: true, body: chain });
        self.rules += rules.len();
        for rule in rules {
            let mut body = Vec::new();
            put(&mut body, RULE_TABLE, &text(self.name));
            put(&mut body, 2, &text(name));
            put(&mut body, 4 | NESTED, &rule.0);
            self.parts.push(Message { kind: NEWRULE, create: true, body });
        }
    }

    /// A short mark of all that is in the table; kept in the table itself, it tells whether the table is this one.
    pub(crate) fn mark(&self) -> [u8; 8] {
        let bytes = self.parts.iter().flat_map(|message| &message.body).chain(&[FORM]);
        // FNV-1a: any change of the wanted table gives another mark; nobody has a reason to forge one.
        bytes
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
            .to_be_bytes()
    }
}

/// The transaction that makes the table, in place of the one that may be there.
pub(crate) fn replace(table: &Table) -> Vec<Message> {
    let mut messages = delete(table.name);
    messages.push(new_table(table.name, Some(table.mark())));
    messages.extend(table.parts.iter().cloned());
    messages
}

/// The transaction that deletes the table, there or not.
pub(crate) fn delete(name: &str) -> Vec<Message> {
    vec![new_table(name, None), Message { kind: DELTABLE, create: false, body: table_name(name) }]
}

/// The attribute that names a table.
pub(crate) fn table_name(name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    put(&mut body, TABLE_NAME, &text(name));
    body
}

fn new_table(name: &str, mark: Option<[u8; 8]>) -> Message {
    let mut body = table_name(name);
    if let Some(mark) = mark {
        put(&mut body, TABLE_USERDATA, &mark);
    }
    Message { kind: NEWTABLE, create: true, body }
}

/// A rule, expression by expression: what must match, then what is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule(Vec<u8>);

impl Rule {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Matches UDP packets, of both families, to a port.
    pub(crate) fn udp_destination(self, port: u16) -> Self {
        self.meta(L4PROTO).equals(&[UDP]).payload(TRANSPORT, 2, 2).equals(&port.to_be_bytes())
    }

    /// Matches packets to a network.
    pub(crate) fn destination(self, net: IpNet) -> Self {
        self.address(net, if net.network().is_ipv4() { 16 } else { 24 })
    }

    /// Matches packets from a network.
    pub(crate) fn source(self, net: IpNet) -> Self {
        self.address(net, if net.network().is_ipv4() { 12 } else { 8 })
    }

    /// Matches packets that leave through a device.
    pub(crate) fn output_device(self, name: &str) -> Self {
        const OIFNAME: u32 = 7;
        let mut padded = name.as_bytes().to_vec();
        padded.resize(IFNAMSIZ, 0);
        self.meta(OIFNAME).equals(&padded)
    }

    /// Lets the packet pass this chain.
    pub(crate) fn accept(self) -> Self {
        let (mut code, mut verdict, mut data) = (Vec::new(), Vec::new(), Vec::new());
        put(&mut code, 1, &ACCEPT.to_be_bytes());
        put(&mut verdict, 2 | NESTED, &code);
        put(&mut data, 1, &0_u32.to_be_bytes());
        put(&mut data, 2 | NESTED, &verdict);
        self.expression("immediate", &data)
    }

    /// Gives the packet the address of the device it leaves through, and a random one of these ports.
    pub(crate) fn masquerade(self, ports: &RangeInclusive<u16>) -> Self {
        const PORTS_GIVEN: u32 = 1 << 1;
        const RANDOM_FULLY: u32 = 1 << 4;
        const LAST: u32 = REGISTER + 1;
        let mut data = Vec::new();
        for (kind, value) in (1..).zip([PORTS_GIVEN | RANDOM_FULLY, REGISTER, LAST]) {
            put(&mut data, kind, &value.to_be_bytes());
        }
        self.load(REGISTER, *ports.start()).load(LAST, *ports.end()).expression("masq", &data)
    }

    /// Keeps the packet out of connection tracking.
    pub(crate) fn notrack(self) -> Self {
        self.expression("notrack", &[])
    }

    /// Matches packets of a network's family that have an address of it at this offset of their header.
    fn address(self, net: IpNet, offset: u32) -> Self {
        let family = Family::of(net.network());
        let (mask, network) = (octets(net.netmask()), octets(net.network()));
        let address = self.family(family).payload(NETWORK, offset, family.len());
        address.masked(&mask).equals(&network)
    }

    fn load(self, register: u32, port: u16) -> Self {
        let mut data = Vec::new();
        put(&mut data, 1, &register.to_be_bytes());
        put(&mut data, 2 | NESTED, &value(&port.to_be_bytes()));
        self.expression("immediate", &data)
    }

    fn meta(self, key: u32) -> Self {
        self.meta_to(REGISTER, key)
    }

    fn payload(self, base: u32, offset: u32, length: u32) -> Self {
        self.payload_to(REGISTER, base, offset, length)
    }

    fn masked(self, mask: &[u8]) -> Self {
        let mut data = Vec::new();
        let length = if mask.len() == 4 { 4 } else { 16 };
        for (kind, value) in (1..).zip([REGISTER, REGISTER, length]) {
            put(&mut data, kind, &u32::to_be_bytes(value));
        }
        put(&mut data, 4 | NESTED, &value(mask));
        put(&mut data, 5 | NESTED, &value(&vec![0; mask.len()]));
        self.expression("bitwise", &data)
    }

    fn equals(self, bytes: &[u8]) -> Self {
        let mut data = Vec::new();
        put(&mut data, 1, &REGISTER.to_be_bytes());
        put(&mut data, 2, &0_u32.to_be_bytes());
        put(&mut data, 3 | NESTED, &value(bytes));
        self.expression("cmp", &data)
    }

    fn expression(mut self, name: &str, data: &[u8]) -> Self {
        let mut element = Vec::new();
        put(&mut element, 1, &text(name));
        put(&mut element, 2 | NESTED, data);
        put(&mut self.0, 1 | NESTED, &element);
        self
    }
}

fn value(bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    put(&mut data, 1, bytes);
    data
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
