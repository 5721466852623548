//! What the zone answers to a name and a type: pure, no sockets, no clock.
//! Follows the Kubernetes DNS specification 1.1.0 and, where it is silent, what CoreDNS answers.
//! Owner names keep the case of the question, so that clients that randomise it recognise them.

mod pods;
mod record;

use std::net::IpAddr;

use hickory_proto::rr::{Name, Record, RecordType};

use netkeel_crds::cluster_network::EmptyServices;

use crate::name::{Place, place};
use crate::zone::{Endpoint, Entry, Pointer, Port, Service, Zone};
use record::{Maker, Member};

/// How a question is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// These records.
    Records {
        /// Answer section.
        answers: Vec<Record>,
        /// Additional section.
        additionals: Vec<Record>,
    },
    /// The name stands for another one, which is to be resolved and added.
    Alias {
        /// The CNAME record.
        cname: Record,
        /// What it points at.
        target: Name,
    },
    /// The name exists and has no record of this type. Holds the SOA record.
    NoData(Record),
    /// There is no such name. Holds the SOA record.
    NxDomain(Record),
    /// Zone transfers are not served.
    Refused,
    /// The name exists, but its object cannot be read.
    Failure,
    /// Not a name of the cluster: ask elsewhere.
    Forward,
}

/// Answers the question for records of type `rtype` at `name`.
#[must_use]
pub fn answer(zone: &Zone, name: &Name, rtype: RecordType) -> Answer {
    answer_within(zone, name, rtype, usize::MAX)
}

/// The same for a reply that has room for less than `most` answers, which are 100 at least. Where there are more, it gives more than that, and
/// not all.
pub(crate) fn answer_within(zone: &Zone, name: &Name, rtype: RecordType, most: usize) -> Answer {
    let make = Maker::new(zone, name).within(most);
    match place(name, &zone.settings().domain) {
        _ if matches!(rtype, RecordType::AXFR | RecordType::IXFR) => Answer::Refused,
        Place::Elsewhere => Answer::Forward,
        Place::Reverse(address) => reverse(zone, &make, address, rtype),
        Place::ReverseNetwork(network) if zone.settings().is_own(network) => make.nodata(),
        Place::BelowReverse(network) if zone.settings().is_own(network) => make.nxdomain(),
        Place::ReverseNetwork(_) | Place::BelowReverse(_) => Answer::Forward,
        Place::Impossible => make.nxdomain(),
        Place::Inside(labels) => {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            inside(zone, &make, &labels, rtype)
        }
    }
}

/// The record that makes `name` another name for `target`.
pub(crate) fn alias(zone: &Zone, name: &Name, target: &Name) -> Record {
    Maker::new(zone, name).cname(target)
}

fn inside(zone: &Zone, make: &Maker<'_>, labels: &[&str], rtype: RecordType) -> Answer {
    match labels {
        [] => apex(zone, make, rtype),
        ["dns-version"] if rtype == RecordType::TXT => make.found(vec![make.version()], vec![]),
        ["dns-version" | "svc" | "pod" | "dns"] => make.nodata(),
        ["ns", "dns"] => make.addresses(zone.dns_addresses(), rtype),
        [namespace, "svc"] if zone.has_namespace(namespace) => make.nodata(),
        [namespace, "pod"] if pods::has_names(zone, namespace) => make.nodata(),
        [below @ .., service, namespace, "svc"] => match zone.service(&format!("{service}.{namespace}")) {
            Some(entry) if is_hidden(zone, entry) => make.nxdomain(),
            Some(entry) => at_service(make, entry, &format!("{service}.{namespace}.svc"), below, rtype),
            None => make.nxdomain(),
        },
        // As in CoreDNS, up to two labels before the name of a pod change nothing.
        [pod, namespace, "pod"] | [_, pod, namespace, "pod"] | [_, _, pod, namespace, "pod"] => {
            pods::answer(zone, make, pod, namespace, rtype)
        }
        _ => make.nxdomain(),
    }
}

/// Whether the Service has a cluster address, no ready endpoint, and therefore no name.
pub(crate) fn is_hidden(zone: &Zone, entry: &Entry) -> bool {
    zone.settings().empty_services == EmptyServices::NXDomain
        && matches!(entry.service(), Some(Service::ClusterIp { .. }))
        && entry.endpoints().is_empty()
}

fn apex(zone: &Zone, make: &Maker<'_>, rtype: RecordType) -> Answer {
    match rtype {
        RecordType::SOA => make.found(vec![make.soa()], vec![]),
        RecordType::NS => {
            make.found(vec![make.ns()], make.address_records(&make.ns_name(), zone.dns_addresses()))
        }
        _ => make.nodata(),
    }
}

fn reverse(zone: &Zone, make: &Maker<'_>, address: IpAddr, rtype: RecordType) -> Answer {
    let targets: Vec<String> = match zone.pointers(address) {
        Some(set) => {
            let service_only = matches!(set.first(), Some(Pointer::Service(_)));
            set.iter()
                .filter(|pointer| !service_only || matches!(pointer, Pointer::Service(_)))
                .map(target)
                .collect()
        }
        None if zone.settings().is_own(address.into()) => return make.nxdomain(),
        None => return Answer::Forward,
    };
    match rtype {
        RecordType::PTR => make.found(targets.iter().filter_map(|target| make.ptr(target)).collect(), vec![]),
        _ => make.nodata(),
    }
}

fn target(pointer: &Pointer) -> String {
    match pointer {
        Pointer::Service(service) => format!("{service}.svc"),
        Pointer::Endpoint(service, label) => format!("{label}.{service}.svc"),
    }
}

/// Answers at the name of a Service (`path`, below the domain) or at labels below it.
fn at_service(make: &Maker<'_>, entry: &Entry, path: &str, below: &[&str], rtype: RecordType) -> Answer {
    match (entry.service(), below) {
        (Some(Service::Unreadable) | None, _) => Answer::Failure,
        (Some(Service::ExternalName(Some(target))), []) => make.alias(target),
        (Some(Service::ExternalName(_)), _) => make.nxdomain(),
        (Some(Service::Headless), _) if entry.endpoints().is_empty() => make.nxdomain(),
        (Some(Service::Headless), []) if matches!(rtype, RecordType::A | RecordType::AAAA) => {
            make.addresses(&entry.endpoints().all_addresses(), rtype)
        }
        (Some(service), []) => make.members(&members(make, entry, service, (path, None, rtype)), rtype),
        (Some(service), [protocol]) if protocol.starts_with('_') => {
            let exists = |port: &Port| !port.name.is_empty() && port.protocol.label() == *protocol;
            if ports(entry, service).any(exists) { make.nodata() } else { make.nxdomain() }
        }
        (Some(_), [label]) => match entry.endpoints().get(label) {
            Some(endpoint) => make.members(&[member(&endpoint, format!("{label}.{path}"), None)], rtype),
            None => make.nxdomain(),
        },
        (Some(service), [name, protocol]) => {
            match members(make, entry, service, (path, Some((*name, *protocol)), rtype)) {
                found if found.is_empty() => make.nxdomain(),
                found => make.members(&found, rtype),
            }
        }
        _ => make.nxdomain(),
    }
}

fn ports<'a>(entry: &'a Entry, service: &'a Service) -> Box<dyn Iterator<Item = &'a Port> + 'a> {
    match service {
        Service::ClusterIp { ports, .. } => Box::new(ports.iter()),
        _ => Box::new(entry.endpoints().ports()),
    }
}

/// What stands for a Service: itself, or its endpoints where it is headless. With the two labels of a port, those that have that port. For
/// SRV records no more than it takes to see that the reply has no room for all.
fn members<'a>(
    make: &Maker<'_>,
    entry: &'a Entry,
    service: &'a Service,
    (path, wanted, rtype): (&str, Option<(&str, &str)>, RecordType),
) -> Vec<Member<'a>> {
    let all: Vec<Member<'a>> = if let Service::ClusterIp { addresses, ports } = service {
        let ports = ports.iter().filter(|port| is_wanted(port, wanted)).collect();
        vec![Member { path: path.to_owned(), addresses: addresses.clone(), ports }]
    } else {
        let endpoints = entry.endpoints();
        let member = |(label, endpoint)| member(&endpoint, format!("{label}.{path}"), wanted);
        let most = if rtype == RecordType::SRV && make.has_room_below(path) { make.most } else { usize::MAX };
        match endpoints.beyond(most, |port| is_wanted(port, wanted)) {
            Some(some) => some.into_iter().map(member).collect(),
            None => endpoints.iter().map(member).collect(),
        }
    };
    all.into_iter().filter(|member| wanted.is_none() || !member.ports.is_empty()).collect()
}

fn member<'a>(endpoint: &Endpoint<'a>, path: String, wanted: Option<(&str, &str)>) -> Member<'a> {
    let ports = endpoint.ports.iter().copied().filter(|port| is_wanted(port, wanted)).collect();
    Member { path, addresses: endpoint.addresses.iter().copied().collect(), ports }
}

/// As in CoreDNS, the labels of a port need no underscore.
fn is_wanted(port: &Port, wanted: Option<(&str, &str)>) -> bool {
    let plain = |label| str::strip_prefix(label, '_').unwrap_or(label);
    wanted.is_none_or(|(name, protocol)| {
        !port.name.is_empty()
            && port.name.eq_ignore_ascii_case(plain(name))
            && plain(port.protocol.label()) == plain(protocol)
    })
}

#[cfg(test)]
mod tests;
