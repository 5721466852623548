//! Builds the records of one answer: the owner is the question's name as it was asked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::Answer;
use crate::wire::{SOA_TIMES, soa_ttl};
use crate::zone::{Port, Zone};

/// Time to live of the version record, which changes with the program only; in seconds.
const VERSION_TTL: u32 = 28_800;
/// Version of the Kubernetes DNS specification that is followed.
const VERSION: &str = "1.1.0";

/// A name that stands for a Service, or for a part of it.
pub(super) struct Member<'a> {
    /// The name, below the domain.
    pub(super) path: String,
    pub(super) addresses: Vec<IpAddr>,
    /// The ports that are asked for.
    pub(super) ports: Vec<&'a Port>,
}

pub(super) struct Maker<'a> {
    zone: &'a Zone,
    owner: &'a Name,
    /// See [`super::answer_within`].
    pub(super) most: usize,
}

impl<'a> Maker<'a> {
    pub(super) fn new(zone: &'a Zone, owner: &'a Name) -> Self {
        Self { zone, owner, most: usize::MAX }
    }

    /// The same for less than `most` answers.
    pub(super) fn within(self, most: usize) -> Self {
        Self { most, ..self }
    }

    #[expect(clippy::unused_self, reason = "reads like its siblings at the place of use")]
    pub(super) fn found(&self, answers: Vec<Record>, additionals: Vec<Record>) -> Answer {
        Answer::Records { answers, additionals }
    }

    pub(super) fn nodata(&self) -> Answer {
        Answer::NoData(self.soa())
    }

    pub(super) fn nxdomain(&self) -> Answer {
        Answer::NxDomain(self.soa())
    }

    pub(super) fn alias(&self, target: &Name) -> Answer {
        Answer::Alias { cname: self.cname(target), target: target.clone() }
    }

    pub(super) fn cname(&self, target: &Name) -> Record {
        self.record(self.owner.clone(), RData::CNAME(CNAME(target.clone())))
    }

    /// The addresses of the family that `rtype` asks for, or that there are none.
    pub(super) fn addresses(&self, addresses: &[IpAddr], rtype: RecordType) -> Answer {
        let mut records = self.address_records(self.owner, addresses);
        records.retain(|record| record.record_type() == rtype);
        if records.is_empty() { self.nodata() } else { self.found(records, vec![]) }
    }

    pub(super) fn address_records(&self, owner: &Name, addresses: &[IpAddr]) -> Vec<Record> {
        let data = |address: &IpAddr| match address {
            IpAddr::V4(address) => RData::A(A(*address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
        };
        addresses.iter().map(|address| self.record(owner.clone(), data(address))).collect()
    }

    /// What `members` say together: SRV records of their ports with the addresses behind them, or addresses.
    pub(super) fn members(&self, members: &[Member<'_>], rtype: RecordType) -> Answer {
        if rtype == RecordType::SRV {
            return self.services(members).unwrap_or_else(|| self.nodata());
        }
        let all: BTreeSet<IpAddr> =
            members.iter().flat_map(|member| member.addresses.iter().copied()).collect();
        self.addresses(&all.into_iter().collect::<Vec<_>>(), rtype)
    }

    /// `None` without a port. As in CoreDNS all weigh the same: 100 by the number of addresses and ports, 1 at least.
    fn services(&self, members: &[Member<'_>]) -> Option<Answer> {
        let count: usize = members.iter().map(|member| member.addresses.len() * member.ports.len()).sum();
        let weight = u16::try_from(100 / count.max(1)).unwrap_or(1).max(1);
        let (mut answers, mut additionals) = (vec![], vec![]);
        for member in members {
            let Some(target) = self.below_domain(&member.path) else { continue };
            let numbers: BTreeSet<u16> = member.ports.iter().map(|port| port.number).collect();
            answers.extend(numbers.into_iter().map(|port| {
                let data = SRV::new(0, weight, port, target.clone());
                self.record(self.owner.clone(), RData::SRV(data))
            }));
            additionals.extend(self.address_records(&target, &member.addresses));
        }
        (!answers.is_empty()).then(|| self.found(answers, additionals))
    }

    /// A pointer to the name at `path` below the domain. Its owner is a reverse name.
    pub(super) fn ptr(&self, path: &str) -> Option<Record> {
        let target = join(path, &self.zone.settings().domain)?;
        Some(self.record(self.owner.clone(), RData::PTR(PTR(target))))
    }

    pub(super) fn version(&self) -> Record {
        Record::from_rdata(self.owner.clone(), VERSION_TTL, RData::TXT(TXT::new(vec![VERSION.to_owned()])))
    }

    pub(super) fn ns(&self) -> Record {
        self.record(self.owner.clone(), RData::NS(NS(self.ns_name())))
    }

    pub(super) fn ns_name(&self) -> Name {
        self.below_domain("ns.dns").unwrap_or_else(|| self.domain())
    }

    /// The start of authority of the zone that the owner lies in.
    pub(super) fn soa(&self) -> Record {
        let settings = self.zone.settings();
        let apex = self.domain();
        let hostmaster = join("hostmaster", &apex).unwrap_or_else(|| apex.clone());
        let [refresh, retry, expire] = SOA_TIMES.map(u32::cast_signed);
        let serial = self.zone.serial();
        let data = SOA::new(self.ns_name(), hostmaster, serial, refresh, retry, expire, settings.ttl);
        let owner = if settings.domain.zone_of(self.owner) { apex } else { self.owner.trim_to(2) };
        Record::from_rdata(owner, soa_ttl(settings.ttl), RData::SOA(data))
    }

    fn record(&self, owner: Name, data: RData) -> Record {
        Record::from_rdata(owner, self.zone.settings().ttl, data)
    }

    /// The cluster domain, as the question spelt it where it did.
    fn domain(&self) -> Name {
        let domain = &self.zone.settings().domain;
        if domain.zone_of(self.owner) { self.owner.trim_to(domain.iter().len()) } else { domain.clone() }
    }

    /// Whether any label can stand before `path` below the domain.
    pub(super) fn has_room_below(&self, path: &str) -> bool {
        64 + path.len() + 1 + self.zone.settings().domain.len() <= 255
    }

    fn below_domain(&self, path: &str) -> Option<Name> {
        join(path, &self.domain())
    }
}

/// `path` put before `domain`; `None` where the whole is too long for a name.
fn join(path: &str, domain: &Name) -> Option<Name> {
    Name::from_labels(path.split('.').map(str::as_bytes)).ok()?.append_domain(domain).ok()
}
