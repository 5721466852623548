//! The nftables table of host ports: what comes from outside to a port of the node gets the pod's address, and keeps its
//! own source. A port more or less is one element of a map. Another table than that of masquerading: either can be
//! replaced without the other's losing anything. Ports at a loopback address are none of its business: the translation comes
//! before the kernel refuses such destinations, so somebody outside would reach what is meant for the node's own processes.

use std::collections::BTreeSet;

use super::Forward;
use crate::{
    link::name,
    nftables::{
        Error,
        encode::{self, DELSETELEM, Family, Hook, MapType, NEWSETELEM, Rule, Table},
        nfnetlink::Nfnetlink,
    },
    overlay,
};

/// Name of the table, family `inet`. There is none while no pod has a host port.
pub(crate) const TABLE: &str = "netkeel-ports";

/// `NF_IP_PRI_NAT_DST`.
const DSTNAT: i32 = -100;

/// The maps: ports at one address come first.
const MAPS: [(&str, MapType); 4] = [
    ("at4", MapType { family: Family::V4, at: true }),
    ("at6", MapType { family: Family::V6, at: true }),
    ("any4", MapType { family: Family::V4, at: false }),
    ("any6", MapType { family: Family::V6, at: false }),
];

/// Makes the table hold these and nothing else, where it does not. Whether anything was written.
pub(crate) fn converge(wanted: &BTreeSet<Forward>) -> Result<bool, Error> {
    let wanted: BTreeSet<Forward> = from_outside(wanted).copied().collect();
    let mut kernel = Nfnetlink::open()?;
    if wanted.is_empty() {
        let there = kernel.has(TABLE)?;
        if there {
            kernel.commit(&encode::delete(TABLE))?;
        }
        return Ok(there);
    }
    let table = table();
    if kernel.holds(&table)? && held(&mut kernel)? == wanted {
        return Ok(false);
    }
    let mut messages = encode::replace(&table);
    messages.extend(changes(NEWSETELEM, &wanted));
    kernel.commit(&messages).map(|()| true)
}

/// Adds forwards to the table. Refused where there is no table, or it holds others for the same ports: [`converge`] then.
pub(crate) fn add(forwards: &[Forward]) -> Result<(), Error> {
    let new = changes(NEWSETELEM, from_outside(forwards));
    if new.is_empty() { Ok(()) } else { Nfnetlink::open()?.commit(&new) }
}

/// Takes forwards out of the table. One that is not there is fine, and one to another pod is left alone: the kernel
/// itself would go by protocol and port. Gives those that were there.
pub(crate) fn take(forwards: &[Forward]) -> Result<Vec<Forward>, Error> {
    let mut kernel = Nfnetlink::open()?;
    let held = held(&mut kernel)?;
    let gone: Vec<Forward> =
        from_outside(forwards).filter(|forward| held.contains(forward)).copied().collect();
    if !gone.is_empty() {
        kernel.commit(&changes(DELSETELEM, &gone))?;
    }
    Ok(gone)
}

/// Whether the table is there and holds all of these.
pub(crate) fn holds(forwards: &[Forward]) -> Result<bool, Error> {
    let mut kernel = Nfnetlink::open()?;
    let held = if kernel.holds(&table())? { held(&mut kernel)? } else { BTreeSet::new() };
    Ok(from_outside(forwards).all(|forward| held.contains(forward)))
}

/// Deletes the table; none is no error.
pub(crate) fn remove() -> Result<(), Error> {
    converge(&BTreeSet::new()).map(drop)
}

/// Those that somebody outside may use.
fn from_outside<'a>(forwards: impl IntoIterator<Item = &'a Forward>) -> impl Iterator<Item = &'a Forward> {
    forwards.into_iter().filter(|forward| forward.at.is_none_or(|at| !at.is_loopback()))
}

fn held(kernel: &mut Nfnetlink) -> Result<BTreeSet<Forward>, Error> {
    let mut all = BTreeSet::new();
    for (name, _) in MAPS {
        all.extend(kernel.elements(TABLE, name)?);
    }
    Ok(all)
}

fn changes<'a>(kind: u16, forwards: impl IntoIterator<Item = &'a Forward>) -> Vec<encode::Message> {
    let forwards: Vec<_> = forwards.into_iter().copied().collect();
    let of = |map: MapType| {
        let fits = |forward: &&Forward| {
            MapType { family: Family::of(forward.to.ip()), at: forward.at.is_some() } == map
        };
        forwards.iter().filter(fits).copied().collect::<Vec<_>>()
    };
    MAPS.iter().flat_map(|(name, map)| encode::elements(kind, TABLE, name, &of(*map))).collect()
}

/// Pods are left out: sockets have sent them to the right place already, and what they send past them would get answers
/// that nobody translates back, because those take the short way between pods. What is forwarded to somebody else stays his,
/// whatever address a pod asks for.
fn table() -> Table {
    let mut table = Table::new(TABLE);
    let mut rules = vec![
        Rule::new().input_devices(name::PREFIX).accept(),
        Rule::new().input_devices(overlay::DEVICE).accept(),
    ];
    for (name, map) in MAPS {
        table.map(name, map);
        rules.push(Rule::new().family(map.family).for_this_host().translated_by(name, map));
    }
    table.chain("prerouting", "nat", Hook::Prerouting, DSTNAT, rules);
    table
}
