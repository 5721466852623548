//! Records of the rules' answers.

use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::answer::Answer;
use crate::wire::SOA_TIMES;
use crate::zone::Zone;

/// The addresses of the family that `rtype` asks for, all of them for ANY; times to live in seconds.
pub(super) fn addresses(
    owner: &Name,
    rtype: RecordType,
    addresses: impl IntoIterator<Item = (IpAddr, u32)>,
) -> Vec<Record> {
    let record = |(address, ttl)| Record::from_rdata(owner.clone(), ttl, data(address));
    let mut records: Vec<Record> = addresses.into_iter().map(record).collect();
    records.retain(|record| rtype == RecordType::ANY || record.record_type() == rtype);
    records
}

pub(super) fn data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// These records, or that there are none, as the zone that `apex` names says it.
pub(super) fn found(zone: &Zone, apex: Name, ttl: u32, answers: Vec<Record>) -> Answer {
    if answers.is_empty() {
        return Answer::NoData(soa(zone, apex, ttl));
    }
    Answer::Records { answers, additionals: vec![] }
}

/// The start of authority of a zone that is made of rules. What there is not may be kept for `ttl` seconds (RFC 2308 section 5).
pub(super) fn soa(zone: &Zone, apex: Name, ttl: u32) -> Record {
    let server = below(&["ns", "dns"], &zone.settings().domain);
    soa_of(zone, apex, ttl, server)
}

/// The same with a server of its own.
pub(super) fn soa_of(zone: &Zone, apex: Name, ttl: u32, server: Name) -> Record {
    let [refresh, retry, expire] = SOA_TIMES.map(u32::cast_signed);
    let hostmaster = below(&["hostmaster"], &apex);
    let data = SOA::new(server, hostmaster, zone.serial(), refresh, retry, expire, ttl);
    Record::from_rdata(apex, ttl, RData::SOA(data))
}

/// The name of these labels below `domain`, or `domain` where that is too long for a name.
pub(super) fn below(labels: &[&str], domain: &Name) -> Name {
    let name = Name::from_labels(labels.iter().map(|label| label.as_bytes()));
    name.and_then(|name| name.append_domain(domain)).unwrap_or_else(|_| domain.clone())
}
