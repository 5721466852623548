//! Flows of UDP that conntrack remembers. They keep the translation with which they began, or that there was none, as long as
//! somebody sends: when a port leads to another pod, or to none, they must begin anew.

use std::{collections::HashSet, net::IpAddr};

use netkeel_dataplane_common::transport::UDP;

use super::{
    Error,
    attribute::{address, behind_header},
    encode::{Family, NESTED},
    nfnetlink::{ACK, DUMP, Nfnetlink},
};
use crate::link::attribute::{put, within};

/// `NFNL_SUBSYS_CTNETLINK`, and its messages.
const CONNTRACK: u16 = 1 << 8;
const GET: u16 = CONNTRACK | 1;
const DELETE: u16 = CONNTRACK | 2;

/// `CTA_TUPLE_ORIG` of `nfnetlink_conntrack.h`, and what is in it.
const ORIGINAL: u16 = 1;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IPV4_DESTINATION: u16 = 2;
const IPV6_DESTINATION: u16 = 4;
const NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;

/// Forgets the flows to these ports at these addresses. Gives their number.
pub(crate) fn forget(ports: &HashSet<u16>, at: &[IpAddr]) -> Result<usize, Error> {
    let mut kernel = Nfnetlink::open()?;
    let mut forgotten = 0;
    for family in [Family::V4, Family::V6] {
        // A node may know a million flows; those to be forgotten are few.
        let mut found = Vec::new();
        let meant = |tuple: &&[u8]| {
            destination(tuple).is_some_and(|(ip, port)| ports.contains(&port) && at.contains(&ip))
        };
        kernel
            .each(GET, DUMP, family as u8, &[], |body| {
                found.extend(behind_header(body, ORIGINAL).filter(meant).map(<[u8]>::to_vec));
            })
            .map_err(Error::Conntrack)?;
        for tuple in found {
            let mut body = Vec::new();
            put(&mut body, ORIGINAL | NESTED, &tuple);
            match kernel.each(DELETE, ACK, family as u8, &body, |_| ()) {
                Ok(()) => forgotten += 1,
                // It has ended by itself.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => {}
                Err(error) => return Err(Error::Conntrack(error)),
            }
        }
    }
    Ok(forgotten)
}

/// Where a flow of UDP was sent.
fn destination(tuple: &[u8]) -> Option<(IpAddr, u16)> {
    let (ip, proto) = (within(tuple, TUPLE_IP)?, within(tuple, TUPLE_PROTO)?);
    if within(proto, NUMBER)? != [UDP] {
        return None;
    }
    let port = u16::from_be_bytes(*within(proto, DESTINATION_PORT)?.first_chunk()?);
    let ip = within(ip, IPV4_DESTINATION).or_else(|| within(ip, IPV6_DESTINATION))?;
    Some((address(ip)?, port))
}
