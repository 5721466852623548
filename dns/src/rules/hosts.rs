//! Names with addresses of their own, forwards and backwards, as in `/etc/hosts`.

use std::collections::HashMap;
use std::net::IpAddr;

use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use netkeel_crds::cluster_network::dns::Host;

use super::record::{addresses, found};
use super::text::{lies_in, zone_name};
use crate::answer::Answer;
use crate::name;
use crate::zone::Zone;

#[derive(Debug)]
pub(super) struct Hosts {
    /// Addresses and times to live in seconds, by name.
    by_name: HashMap<String, Vec<(IpAddr, u32)>>,
    /// First names and times to live in seconds, by address.
    by_address: HashMap<IpAddr, Vec<(Name, u32)>>,
}

impl Hosts {
    pub(super) fn new(hosts: &[Host]) -> Self {
        let (mut by_name, mut by_address) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for Host { ip, names, ttl_seconds: ttl } in hosts {
            for name in names {
                let known = by_name.entry(name.clone()).or_default();
                if !known.iter().any(|(other, _)| other == ip) {
                    known.push((*ip, *ttl));
                }
            }
            let pointers = by_address.entry(*ip).or_default();
            let first = names.first().map(|name| zone_name(name));
            pointers.extend(
                first
                    .filter(|name| !pointers.iter().any(|(other, _)| other == name))
                    .map(|name| (name, *ttl)),
            );
        }
        Self { by_name, by_address }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(super) fn know(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Whether one of the names lies below `domain`.
    pub(super) fn have_below(&self, domain: &str) -> bool {
        self.by_name.keys().any(|name| lies_in(name, domain))
    }

    /// The answer at `name`, which is `text`. A name that is known has no records but its addresses, and no other ones.
    pub(super) fn answer(&self, zone: &Zone, name: &Name, text: &str, rtype: RecordType) -> Option<Answer> {
        if let Some(known) = self.by_name.get(text) {
            let ttl = known.iter().map(|(_, ttl)| *ttl).min().unwrap_or_default();
            return Some(found(zone, name.clone(), ttl, addresses(name, rtype, known.iter().copied())));
        }
        if self.by_address.is_empty() {
            return None;
        }
        let pointers = self.by_address.get(&name::address(name)?)?;
        let ttl = pointers.iter().map(|(_, ttl)| *ttl).min().unwrap_or_default();
        let record = |(target, ttl): &(Name, u32)| {
            Record::from_rdata(name.clone(), *ttl, RData::PTR(PTR(target.clone())))
        };
        let records = if matches!(rtype, RecordType::PTR | RecordType::ANY) {
            pointers.iter().map(record).collect()
        } else {
            vec![]
        };
        Some(found(zone, name.clone(), ttl, records))
    }
}
