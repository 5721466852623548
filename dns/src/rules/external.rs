//! Zones in which Services have their outside addresses: `SERVICE.NAMESPACE.ZONE`. A Service without one is not there.

use std::net::IpAddr;

use hickory_proto::rr::rdata::{CNAME, NS, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use netkeel_crds::cluster_network::dns::{ExternalSource, ExternalZone};

use super::record::{addresses, below, found, soa_of};
use super::text::{before, lies_in};
use crate::answer::Answer;
use crate::zone::{Port, Service, Zone};

#[derive(Debug)]
pub(super) struct Externals(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    zone: String,
    load_balancer: bool,
    external_ip: bool,
}

impl Externals {
    pub(super) fn new(zones: &[ExternalZone]) -> Self {
        let rule = |zone: &ExternalZone| Rule {
            zone: zone.zone.clone(),
            load_balancer: zone.sources.contains(&ExternalSource::LoadBalancer),
            external_ip: zone.sources.contains(&ExternalSource::ExternalIP),
        };
        let mut rules: Vec<Rule> = zones.iter().map(rule).collect();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.zone.len())); // the longest that a name lies in counts
        Self(rules)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The answer at `name`, which is `text`. The cluster's own names are in none of the zones.
    pub(super) fn answer(&self, zone: &Zone, name: &Name, text: &str, rtype: RecordType) -> Option<Answer> {
        let (rule, head) = self.0.iter().find_map(|rule| Some((rule, before(text, &rule.zone)?)))?;
        let domain = super::text::text(&zone.settings().domain);
        if lies_in(text, &domain) {
            return None;
        }
        if matches!(rtype, RecordType::AXFR | RecordType::IXFR) {
            return Some(Answer::Refused);
        }
        let labels: Vec<&str> = if head.is_empty() { vec![] } else { head.split('.').collect() };
        let apex = name.trim_to(rule.zone.split('.').count());
        Some(Asked { zone, rule, name, apex, rtype }.answer(&labels))
    }
}

/// A question for a name in one of the zones.
struct Asked<'a> {
    zone: &'a Zone,
    rule: &'a Rule,
    name: &'a Name,
    /// The zone, as the question spells it.
    apex: Name,
    rtype: RecordType,
}

/// What a Service has outside.
struct Outside {
    addresses: Vec<IpAddr>,
    host_names: Vec<Name>,
}

impl Asked<'_> {
    /// `labels` stand before the zone, leftmost first.
    fn answer(&self, labels: &[&str]) -> Answer {
        match labels {
            [] => self.apex(),
            ["dns"] => self.nodata(),
            ["ns", "dns"] => self.found(self.addresses(self.name, self.rtype, &self.of_server())),
            [namespace] if self.zone.has_namespace(namespace) => self.nodata(),
            [below @ .., service, namespace] => {
                let dotted = format!("{service}.{namespace}");
                match self.outside(&dotted) {
                    Some(outside) => self.at_service(&dotted, &outside, below),
                    None => self.nxdomain(),
                }
            }
            [_] => self.nxdomain(),
        }
    }

    fn apex(&self) -> Answer {
        let server = below(&["ns", "dns"], &self.apex);
        match self.rtype {
            RecordType::SOA => self.found(vec![self.soa()]),
            RecordType::NS => Answer::Records {
                answers: vec![self.record(self.apex.clone(), RData::NS(NS(server.clone())))],
                additionals: self.addresses(&server, RecordType::ANY, &self.of_server()),
            },
            _ => self.nodata(),
        }
    }

    /// Where the DNS servers are found from outside; where they are not, their address in the cluster.
    fn of_server(&self) -> Vec<IpAddr> {
        let outside = self.outside(&self.zone.settings().dns_service);
        let outside = outside.map(|outside| outside.addresses).filter(|addresses| !addresses.is_empty());
        outside.unwrap_or_else(|| self.zone.dns_addresses().to_vec())
    }

    fn outside(&self, dotted: &str) -> Option<Outside> {
        let external = self.zone.external(dotted)?;
        let mut outside = Outside { addresses: vec![], host_names: vec![] };
        if self.rule.load_balancer {
            outside.addresses.extend(&external.load_balancer);
            outside.host_names.extend(external.host_names.iter().cloned());
        }
        if self.rule.external_ip {
            outside.addresses.extend(&external.external_ips);
        }
        outside.addresses.sort_unstable();
        outside.addresses.dedup();
        (!outside.addresses.is_empty() || !outside.host_names.is_empty()).then_some(outside)
    }

    /// At the name of a Service (dotted), or at labels below it.
    fn at_service(&self, dotted: &str, outside: &Outside, below: &[&str]) -> Answer {
        let ports = match self.zone.service(dotted).and_then(|entry| entry.service()) {
            Some(Service::ClusterIp { ports, .. }) => ports.iter().collect(),
            _ => vec![],
        };
        let named = |name: Option<&str>, protocol: &str| -> Vec<&Port> {
            let wanted = |port: &&Port| {
                let name = name.is_none_or(|name| port.name.eq_ignore_ascii_case(name));
                !port.name.is_empty() && name && port.protocol.label() == protocol
            };
            ports.iter().copied().filter(wanted).collect()
        };
        match below {
            [] if self.rtype == RecordType::SRV => self.services(outside, &ports),
            [] => self.whole(outside),
            [protocol] if !named(None, protocol).is_empty() => self.nodata(),
            [port, protocol] => match port.strip_prefix('_').map(|port| named(Some(port), protocol)) {
                Some(ports) if !ports.is_empty() && self.rtype == RecordType::SRV => {
                    self.services(outside, &ports)
                }
                Some(ports) if !ports.is_empty() => self.nodata(),
                _ => self.nxdomain(),
            },
            _ => self.nxdomain(),
        }
    }

    /// The addresses, or the host name where there is none.
    fn whole(&self, outside: &Outside) -> Answer {
        match outside.host_names.first() {
            Some(target) if outside.addresses.is_empty() => {
                let cname = self.record(self.name.clone(), RData::CNAME(CNAME(target.clone())));
                Answer::Alias { cname, target: target.clone() }
            }
            _ => self.found(self.addresses(self.name, self.rtype, &outside.addresses)),
        }
    }

    fn services(&self, outside: &Outside, ports: &[&Port]) -> Answer {
        let own = self.name.trim_to(self.apex.iter().len() + 2);
        let targets =
            if outside.addresses.is_empty() { outside.host_names.clone() } else { vec![own.clone()] };
        let weight = u16::try_from(100 / (ports.len() * targets.len()).max(1)).unwrap_or(1).max(1);
        let of_port = |port: &&Port| {
            let number = port.number;
            targets
                .iter()
                .map(move |target| RData::SRV(SRV::new(0, weight, number, target.clone())))
                .collect::<Vec<_>>()
        };
        let answers: Vec<Record> =
            ports.iter().flat_map(of_port).map(|data| self.record(self.name.clone(), data)).collect();
        if answers.is_empty() {
            return self.nodata();
        }
        Answer::Records { answers, additionals: self.addresses(&own, RecordType::ANY, &outside.addresses) }
    }

    fn addresses(&self, owner: &Name, rtype: RecordType, all: &[IpAddr]) -> Vec<Record> {
        addresses(owner, rtype, all.iter().map(|address| (*address, self.ttl())))
    }

    fn found(&self, answers: Vec<Record>) -> Answer {
        if answers.is_empty() {
            self.nodata()
        } else {
            found(self.zone, self.apex.clone(), self.ttl(), answers)
        }
    }

    fn nodata(&self) -> Answer {
        Answer::NoData(self.soa())
    }

    fn nxdomain(&self) -> Answer {
        Answer::NxDomain(self.soa())
    }

    fn soa(&self) -> Record {
        soa_of(self.zone, self.apex.clone(), self.ttl(), below(&["ns", "dns"], &self.apex))
    }

    fn record(&self, owner: Name, data: RData) -> Record {
        Record::from_rdata(owner, self.ttl(), data)
    }

    fn ttl(&self) -> u32 {
        self.zone.settings().ttl
    }
}
