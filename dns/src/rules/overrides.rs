//! Answers given instead of any other, for zones and types.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use netkeel_crds::cluster_network::dns::{self as crd, AnswerRecord, Override, RecordKind};

use super::record::{found, soa};
use super::text::{lies_in, zone_name};
use super::{of_addresses, overlap, record_type};
use crate::answer::Answer;
use crate::zone::Zone;

/// Longest piece of a text, in bytes (RFC 1035 section 3.3.14).
const PIECE: usize = 255;

/// Overrides in their order.
#[derive(Debug)]
pub(super) struct Overrides(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    zone: String,
    /// Labels of the zone.
    depth: usize,
    types: Vec<RecordType>,
    code: ResponseCode,
    data: Vec<RData>,
    /// In seconds.
    ttl: u32,
}

impl Overrides {
    pub(super) fn new(overrides: &[Override]) -> Self {
        let rule = |rule: &Override| Rule {
            zone: rule.zone.clone(),
            depth: if rule.zone == "." { 0 } else { rule.zone.split('.').count() },
            types: rule.types.iter().copied().map(record_type).collect(),
            code: code(rule.response_code),
            data: rule.records.iter().filter_map(data).collect(),
            ttl: rule.ttl_seconds,
        };
        Self(overrides.iter().map(rule).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, name: &str, rtype: RecordType) -> Option<&Rule> {
        self.0
            .iter()
            .find(|rule| (rule.types.is_empty() || rule.types.contains(&rtype)) && lies_in(name, &rule.zone))
    }

    pub(super) fn matches(&self, name: &str, rtype: RecordType) -> bool {
        self.find(name, rtype).is_some()
    }

    /// Whether the address of a name below `domain` may be overridden.
    pub(super) fn may_match_below(&self, domain: &str) -> bool {
        self.0.iter().any(|rule| overlap(&rule.zone, domain) && of_addresses(&rule.types))
    }

    /// The answer at `name`, which is `text`: of the first override that matches.
    pub(super) fn answer(
        &self,
        zone: &Zone,
        name: &Name,
        text: &str,
        rtype: RecordType,
    ) -> Option<Result<Answer, ResponseCode>> {
        let rule = self.find(text, rtype)?;
        Some(match rule.code {
            ResponseCode::NoError => Ok(rule.records(zone, name, rtype)),
            ResponseCode::NXDomain => Ok(Answer::NxDomain(soa(zone, name.trim_to(rule.depth), rule.ttl))),
            code => Err(code),
        })
    }
}

impl Rule {
    /// Records of the type that is asked for, or the name that this one stands for.
    fn records(&self, zone: &Zone, name: &Name, rtype: RecordType) -> Answer {
        let wanted = |data: &&RData| rtype == RecordType::ANY || data.record_type() == rtype;
        let record = |data: &RData| Record::from_rdata(name.clone(), self.ttl, data.clone());
        let records: Vec<Record> = self.data.iter().filter(wanted).map(record).collect();
        let alias = self.data.iter().find_map(|data| match data {
            RData::CNAME(CNAME(target)) => Some((record(data), target.clone())),
            _ => None,
        });
        match alias {
            Some((cname, target)) if records.is_empty() => Answer::Alias { cname, target },
            _ => found(zone, name.trim_to(self.depth), self.ttl, records),
        }
    }
}

/// The record's data; nothing of what the schema refuses.
fn data(record: &AnswerRecord) -> Option<RData> {
    let value = record.value.as_str();
    Some(match record.kind {
        RecordKind::A => RData::A(A(value.parse().ok()?)),
        RecordKind::AAAA => RData::AAAA(AAAA(value.parse().ok()?)),
        RecordKind::CNAME => RData::CNAME(CNAME(zone_name(value))),
        RecordKind::TXT => RData::TXT(TXT::from_bytes(value.as_bytes().chunks(PIECE).collect())),
    })
}

fn code(code: crd::ResponseCode) -> ResponseCode {
    match code {
        crd::ResponseCode::NoError => ResponseCode::NoError,
        crd::ResponseCode::FormErr => ResponseCode::FormErr,
        crd::ResponseCode::ServFail => ResponseCode::ServFail,
        crd::ResponseCode::NXDomain => ResponseCode::NXDomain,
        crd::ResponseCode::NotImp => ResponseCode::NotImp,
        crd::ResponseCode::Refused => ResponseCode::Refused,
    }
}
