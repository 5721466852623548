//! What the servers decide themselves, as `spec.dns` says it: access, other names, answers instead of any other, hosts, and the outside
//! addresses of Services. Made ready once, and asked for each question in this order: ACL, rewrites, overrides, hosts, external zones.
//! Pure: no sockets, no clock.

mod acl;
mod external;
mod hosts;
mod overrides;
mod record;
mod text;

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use netkeel_crds::cluster_network::Dns;
use netkeel_crds::cluster_network::dns::QueryType;
use netkeel_index::dns::{Mistake, Rewrites};

use crate::answer::Answer;
use crate::metrics::By;
use crate::zone::Zone;

use acl::Acl;
pub(crate) use acl::Verdict;
use external::Externals;
use hosts::Hosts;
use overrides::Overrides;
use text::{lies_in, of_packet, text};

/// The rules of a `spec.dns`.
#[derive(Debug)]
pub(crate) struct Rules {
    acl: Acl,
    rewrites: Rewrites,
    overrides: Overrides,
    hosts: Hosts,
    externals: Externals,
    /// Whether there is a rule other than of the ACL that has something to say of any name.
    answers: bool,
    /// Whether a name below the cluster domain may be decided by a rule.
    touch_cluster: bool,
}

/// What rules say of a name.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) by: By,
    /// The answer, or a code alone.
    pub(crate) answer: Result<Answer, ResponseCode>,
}

/// The name that is asked for in the place of another one.
#[derive(Debug, PartialEq)]
pub(crate) struct Rewritten {
    pub(crate) name: Name,
    /// Whether answers carry the name that was asked for.
    pub(crate) back: bool,
}

/// No name can be made of what a rewrite puts together.
#[derive(Debug, PartialEq)]
pub(crate) struct Impossible;

impl Rules {
    /// Makes the rules of `dns` ready.
    ///
    /// # Errors
    /// One of them says what no schema can refuse.
    pub(crate) fn new(dns: &Dns) -> Result<Self, Mistake> {
        let rewrites = Rewrites::read(dns)?;
        let (acl, overrides) = (Acl::new(&dns.acl), Overrides::new(&dns.overrides));
        let (hosts, externals) = (Hosts::new(&dns.hosts), Externals::new(&dns.external_zones));
        let domain = dns.cluster_domain.as_str();
        let touch_cluster = acl.may_deny_below(domain)
            || rewrites.may_match_below(domain)
            || overrides.may_match_below(domain)
            || hosts.have_below(domain);
        let answers = !(overrides.is_empty() && hosts.is_empty() && externals.is_empty());
        Ok(Self { acl, rewrites, overrides, hosts, externals, answers, touch_cluster })
    }

    /// What becomes of such a question of `client`.
    pub(crate) fn verdict(&self, client: IpAddr, name: &Name, rtype: RecordType) -> Verdict {
        if self.acl.is_empty() { Verdict::Allow } else { self.acl.verdict(client, &text(name), rtype) }
    }

    /// The name to ask for in the place of `name`, if a rewrite matches.
    pub(crate) fn rewrite(&self, name: &Name) -> Option<Result<Rewritten, Impossible>> {
        if self.rewrites.is_empty() {
            return None;
        }
        let rewritten = self.rewrites.rewrite(&text(name))?;
        let made = text::name(&rewritten.name).ok_or(Impossible);
        Some(made.map(|name| Rewritten { name, back: rewritten.back }))
    }

    /// The answer that takes the place of the zone's.
    pub(crate) fn answer(&self, zone: &Zone, name: &Name, rtype: RecordType) -> Option<Told> {
        if !self.answers {
            return None;
        }
        let text = text(name);
        let overridden = || self.overrides.answer(zone, name, &text, rtype);
        let host = || self.hosts.answer(zone, name, &text, rtype);
        let external = || self.externals.answer(zone, name, &text, rtype);
        overridden()
            .map(|answer| Told { by: By::Template, answer })
            .or_else(|| host().map(|answer| Told { by: By::Hosts, answer: Ok(answer) }))
            .or_else(|| external().map(|answer| Told { by: By::External, answer: Ok(answer) }))
    }

    /// Whether a rule decides this question, in a packet that was answered quickly: it is for an address below the cluster domain, and its
    /// name is of plain letters. Nearly always this is a look at a flag.
    pub(crate) fn touch(&self, packet: &[u8], client: IpAddr, rtype: RecordType) -> bool {
        if !self.touch_cluster {
            return false;
        }
        let Some(text) = of_packet(packet) else { return true };
        self.acl.verdict(client, &text, rtype) != Verdict::Allow
            || self.rewrites.rewrite(&text).is_some()
            || self.overrides.matches(&text, rtype)
            || self.hosts.know(&text)
    }
}

/// The type of record that the API calls so.
fn record_type(asked: QueryType) -> RecordType {
    match asked {
        QueryType::A => RecordType::A,
        QueryType::AAAA => RecordType::AAAA,
        QueryType::ANY => RecordType::ANY,
        QueryType::CAA => RecordType::CAA,
        QueryType::CNAME => RecordType::CNAME,
        QueryType::DNSKEY => RecordType::DNSKEY,
        QueryType::DS => RecordType::DS,
        QueryType::HTTPS => RecordType::HTTPS,
        QueryType::MX => RecordType::MX,
        QueryType::NAPTR => RecordType::NAPTR,
        QueryType::NS => RecordType::NS,
        QueryType::PTR => RecordType::PTR,
        QueryType::SOA => RecordType::SOA,
        QueryType::SRV => RecordType::SRV,
        QueryType::SVCB => RecordType::SVCB,
        QueryType::TXT => RecordType::TXT,
    }
}

/// Whether one of the two lies in the other, so that they have names in common.
fn overlap(zone: &str, domain: &str) -> bool {
    lies_in(zone, domain) || lies_in(domain, zone)
}

/// Whether a rule of these types is about addresses; no types are all.
fn of_addresses(types: &[RecordType]) -> bool {
    types.is_empty() || types.iter().any(|rtype| matches!(rtype, RecordType::A | RecordType::AAAA))
}

#[cfg(test)]
mod tests;
