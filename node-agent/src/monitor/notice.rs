//! Notices of the kernel, decoded as far as they are judged. What cannot be understood is left out: the regular look is there.

use rtnetlink::{
    packet_core::{NLM_F_REPLACE, NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
};

use crate::link::attribute;

/// `RTM_NEWNETCONF` of `rtnetlink.h`, which the library does not know.
const NEWNETCONF: u16 = 80;
/// `RTM_DELQDISC` and `RTM_DELTFILTER` of `rtnetlink.h`; of both the index of the device alone is read.
const DELQDISC: u16 = 37;
const DELTFILTER: u16 = 45;
/// Attributes of `netconf.h`: `NETCONFA_IFINDEX`, `NETCONFA_FORWARDING`, `NETCONFA_RP_FILTER`; host byte order.
const IFINDEX: u16 = 1;
const FORWARDING: u16 = 2;
const RP_FILTER: u16 = 3;
/// `NFT_MSG_NEWGEN`: the end of every transaction, which names no table.
const NEWGEN: u8 = 15;
const NFTABLES: u8 = 10;
const INET: u8 = 1;
/// Length of a netlink header, bytes.
const HEADER: usize = 16;
/// Length of `struct nfgenmsg` and, padded, of `struct netconfmsg`, bytes.
const FAMILY: usize = 4;

/// Something that happened in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A link, an address or a route.
    Route {
        /// What the kernel sent.
        message: Box<RouteNetlinkMessage>,
        /// It took the place of another one.
        replaces: bool,
    },
    /// IPv4 settings of a device.
    Setting {
        /// Its index; -1 for all devices, -2 for those to come.
        ifindex: i32,
        /// Whether it forwards, where that was told.
        forwarding: Option<bool>,
        /// Its `rp_filter`, where that was told.
        rp_filter: Option<i32>,
    },
    /// A filter of a device is gone, or the queueing discipline that may have held it.
    FilterGone {
        /// Index of the device.
        ifindex: u32,
    },
    /// Something in an nftables table of the family `inet`.
    Table {
        /// Name of the table.
        name: String,
    },
}

/// The notices of one datagram of rtnetlink.
pub(super) fn of_route(bytes: &[u8]) -> Vec<Notice> {
    let decoded = messages(bytes).filter_map(|message| match message.kind {
        NEWNETCONF => setting(message.body),
        DELQDISC | DELTFILTER => filter_gone(message.body),
        _ => route(message.whole),
    });
    decoded.collect()
}

/// The notices of one datagram of nfnetlink.
pub(super) fn of_nftables(bytes: &[u8]) -> Vec<Notice> {
    messages(bytes).filter_map(|message| table(&message)).collect()
}

struct Message<'a> {
    kind: u16,
    whole: &'a [u8],
    body: &'a [u8],
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let whole = bytes.get(..length.max(HEADER))?;
        bytes = bytes.get(whole.len().next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, whole, body: &whole[HEADER..] })
    })
}

fn route(whole: &[u8]) -> Option<Notice> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(whole).ok()?;
    let replaces = message.header.flags & NLM_F_REPLACE != 0;
    match message.payload {
        NetlinkPayload::InnerMessage(message) => Some(Notice::Route { message: Box::new(message), replaces }),
        _ => None,
    }
}

fn setting(body: &[u8]) -> Option<Notice> {
    let number = |wanted| {
        attributes(body)
            .find(|(kind, _)| *kind == wanted)
            .and_then(|(_, value)| Some(i32::from_ne_bytes(*value.first_chunk()?)))
    };
    let (forwarding, rp_filter) = (number(FORWARDING).map(|value| value != 0), number(RP_FILTER));
    Some(Notice::Setting { ifindex: number(IFINDEX)?, forwarding, rp_filter })
}

/// The index stands second in `struct tcmsg`, in host byte order.
fn filter_gone(body: &[u8]) -> Option<Notice> {
    Some(Notice::FilterGone { ifindex: u32::from_ne_bytes(*body.get(4..)?.first_chunk()?) })
}

fn table(message: &Message<'_>) -> Option<Notice> {
    let [message_kind, subsystem] = message.kind.to_le_bytes();
    if subsystem != NFTABLES || message_kind == NEWGEN || message.body.first() != Some(&INET) {
        return None;
    }
    // The first attribute of tables, chains, rules and sets is the table's name.
    let (_, name) = attributes(message.body).find(|(kind, _)| *kind == 1)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    Some(Notice::Table { name: String::from_utf8_lossy(name).into_owned() })
}

/// Kind and payload of each attribute behind the family header.
fn attributes(body: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    attribute::attributes(body.get(FAMILY..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A netlink message with these attributes behind a family header.
    fn message(kind: u16, family: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 0];
        for (kind, payload) in attributes {
            body.extend(u16::try_from(4 + payload.len()).unwrap().to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*payload);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut bytes = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_setting_is_told_with_its_device_and_value() {
        let bytes =
            message(NEWNETCONF, 2, &[(IFINDEX, &7_i32.to_ne_bytes()), (FORWARDING, &0_i32.to_ne_bytes())]);
        let forwarding = Notice::Setting { ifindex: 7, forwarding: Some(false), rp_filter: None };
        assert_eq!(of_route(&bytes), std::slice::from_ref(&forwarding));
        let other =
            message(NEWNETCONF, 2, &[(IFINDEX, &(-1_i32).to_ne_bytes()), (RP_FILTER, &2_i32.to_ne_bytes())]);
        let filter = Notice::Setting { ifindex: -1, forwarding: None, rp_filter: Some(2) };
        assert_eq!(of_route(&[bytes, other].concat()), [forwarding, filter]);
        assert_eq!(of_route(&message(NEWNETCONF, 2, &[])), [], "of no device");
    }

    #[test]
    fn a_filter_that_goes_is_told_with_its_device_alone() {
        let index = 7_u32.to_ne_bytes();
        for kind in [DELQDISC, DELTFILTER] {
            let mut bytes = message(kind, 0, &[]);
            bytes.extend([index, [0; 4], [0; 4], [0; 4]].concat());
            bytes[..4].copy_from_slice(&36_u32.to_ne_bytes());
            assert_eq!(of_route(&bytes), [Notice::FilterGone { ifindex: 7 }]);
            assert_eq!(of_route(&message(kind, 0, &[])), [], "cut off");
        }
    }

    #[test]
    fn what_happens_in_a_table_names_it_and_the_end_of_a_transaction_names_none() {
        let deleted = message(u16::from_le_bytes([2, NFTABLES]), INET, &[(1, b"netkeel\0")]);
        let end = message(u16::from_le_bytes([NEWGEN, NFTABLES]), 0, &[(1, &[0, 0, 0, 9])]);
        assert_eq!(of_nftables(&[deleted, end].concat()), [Notice::Table { name: "netkeel".to_owned() }]);
        let ipv4 = message(u16::from_le_bytes([2, NFTABLES]), 2, &[(1, b"netkeel\0")]);
        assert_eq!(of_nftables(&ipv4), [], "a table of another family");
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u16..100) {
            let _ = (of_route(&bytes), of_nftables(&bytes));
            let _ = of_route(&message(kind, 2, &[(1, &bytes)]));
        }
    }
}
