//! Builds the records of one answer: the owner is the question's name as it was asked.

use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::Answer;
use crate::wire::SOA_TIMES;
use crate::zone::{Port, Zone};

/// Time to live of the version record, which changes with the program only; in seconds.
const VERSION_TTL: u32 = 28_800;
/// Version of the Kubernetes DNS specification that is followed.
const VERSION: &str = "1.1.0";

pub(super) struct Maker<'a> {
    zone: &'a Zone,
    owner: &'a Name,
}

impl<'a> Maker<'a> {
    pub(super) fn new(zone: &'a Zone, owner: &'a Name) -> Self {
        Self { zone, owner }
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

    /// SRV records for ports at paths below the domain, and the addresses of those paths; `None`
    /// without a port. All weigh the same.
    pub(super) fn services<'b>(
        &self,
        ports: impl Iterator<Item = (&'b str, &'b Port)>,
        members: impl IntoIterator<Item = (&'b str, &'b [IpAddr])>,
    ) -> Option<Answer> {
        let targets: Vec<(Name, u16)> =
            ports.filter_map(|(path, port)| Some((self.below_domain(path)?, port.number))).collect();
        let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(1).max(1);
        let answers: Vec<Record> = targets
            .into_iter()
            .map(|(target, port)| {
                self.record(self.owner.clone(), RData::SRV(SRV::new(0, weight, port, target)))
            })
            .collect();
        let addresses = |(path, addresses): (&str, &[IpAddr])| {
            self.below_domain(path).map(|owner| self.address_records(&owner, addresses))
        };
        let additionals = members.into_iter().filter_map(addresses).flatten().collect();
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
        self.record(owner, RData::SOA(data))
    }

    fn record(&self, owner: Name, data: RData) -> Record {
        Record::from_rdata(owner, self.zone.settings().ttl, data)
    }

    /// The cluster domain, as the question spelt it where it did.
    fn domain(&self) -> Name {
        let domain = &self.zone.settings().domain;
        if domain.zone_of(self.owner) { self.owner.trim_to(domain.iter().len()) } else { domain.clone() }
    }

    fn below_domain(&self, path: &str) -> Option<Name> {
        join(path, &self.domain())
    }
}

/// `path` put before `domain`; `None` where the whole is too long for a name.
fn join(path: &str, domain: &Name) -> Option<Name> {
    Name::from_labels(path.split('.').map(str::as_bytes)).ok()?.append_domain(domain).ok()
}
