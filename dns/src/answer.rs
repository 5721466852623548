//! What the zone answers to a name and a type: pure, no sockets, no clock.
//! Follows the Kubernetes DNS specification 1.1.0 and, where it is silent, what CoreDNS answers.
//! Owner names keep the case of the question, so that clients that randomise it recognise them.

mod pods;
mod record;

use std::net::IpAddr;

use hickory_proto::rr::{Name, Record, RecordType};

use crate::name::{Place, place};
use crate::zone::{Endpoint, Entry, Pointer, Port, Service, Zone};
use record::Maker;

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
    let make = Maker::new(zone, name);
    match place(name, &zone.settings().domain) {
        Place::Elsewhere => Answer::Forward,
        Place::Reverse(address) => reverse(zone, &make, address, rtype),
        _ if matches!(rtype, RecordType::AXFR | RecordType::IXFR) => Answer::Refused,
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
        None if zone.settings().is_own(address) => return make.nxdomain(),
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
        (Some(service), []) => whole(make, entry, service, path, rtype),
        (Some(service), [protocol]) if protocol.starts_with('_') => {
            let exists = |port: &Port| !port.name.is_empty() && port.protocol.label() == *protocol;
            if ports(entry, service).any(exists) { make.nodata() } else { make.nxdomain() }
        }
        (Some(_), [label]) => match entry.endpoints().get(label) {
            Some(endpoint) => one_endpoint(make, &endpoint, path, label, rtype),
            None => make.nxdomain(),
        },
        (Some(service), [name, protocol]) => named_port(make, entry, service, path, (name, protocol), rtype),
        _ => make.nxdomain(),
    }
}

fn ports<'a>(entry: &'a Entry, service: &'a Service) -> Box<dyn Iterator<Item = &'a Port> + 'a> {
    match service {
        Service::ClusterIp { ports, .. } => Box::new(ports.iter()),
        _ => Box::new(entry.endpoints().ports()),
    }
}

fn whole(make: &Maker<'_>, entry: &Entry, service: &Service, path: &str, rtype: RecordType) -> Answer {
    match (rtype, service) {
        (RecordType::SRV, _) => {
            services(make, entry, service, path, |_| true).unwrap_or_else(|| make.nodata())
        }
        (_, Service::ClusterIp { addresses, .. }) => make.addresses(addresses, rtype),
        _ => {
            let addresses: Vec<IpAddr> =
                entry.endpoints().iter().flat_map(|(_, endpoint)| endpoint.addresses).collect();
            make.addresses(&addresses, rtype)
        }
    }
}

fn one_endpoint(
    make: &Maker<'_>,
    endpoint: &Endpoint<'_>,
    path: &str,
    label: &str,
    rtype: RecordType,
) -> Answer {
    let addresses: Vec<IpAddr> = endpoint.addresses.iter().copied().collect();
    if rtype != RecordType::SRV {
        return make.addresses(&addresses, rtype);
    }
    let path = format!("{label}.{path}");
    make.services(
        endpoint.ports.iter().map(|port| (path.as_str(), *port)),
        [(path.as_str(), addresses.as_slice())],
    )
    .unwrap_or_else(|| make.nodata())
}

fn named_port(
    make: &Maker<'_>,
    entry: &Entry,
    service: &Service,
    path: &str,
    (name, protocol): (&str, &str),
    rtype: RecordType,
) -> Answer {
    let Some(name) = name.strip_prefix('_').filter(|name| !name.is_empty()) else { return make.nxdomain() };
    let wanted = |port: &Port| port.name.eq_ignore_ascii_case(name) && port.protocol.label() == protocol;
    match rtype {
        RecordType::SRV => services(make, entry, service, path, wanted).unwrap_or_else(|| make.nxdomain()),
        _ if ports(entry, service).any(wanted) => make.nodata(),
        _ => make.nxdomain(),
    }
}

/// The SRV records of the ports that `wanted` picks, with the addresses behind them.
fn services(
    make: &Maker<'_>,
    entry: &Entry,
    service: &Service,
    path: &str,
    wanted: impl Fn(&Port) -> bool,
) -> Option<Answer> {
    if let Service::ClusterIp { addresses, ports } = service {
        let found = ports.iter().filter(|port| wanted(port)).map(|port| (path, port));
        return make.services(found, [(path, addresses.as_slice())]);
    }
    let members: Vec<(String, Vec<IpAddr>, Vec<&Port>)> = entry
        .endpoints()
        .iter()
        .map(|(label, endpoint)| {
            let found = endpoint.ports.into_iter().filter(|port| wanted(port)).collect();
            (format!("{label}.{path}"), endpoint.addresses.into_iter().collect(), found)
        })
        .filter(|(_, _, found): &(_, _, Vec<&Port>)| !found.is_empty())
        .collect();
    let found =
        members.iter().flat_map(|(target, _, found)| found.iter().map(|port| (target.as_str(), *port)));
    make.services(found, members.iter().map(|(target, addresses, _)| (target.as_str(), addresses.as_slice())))
}

#[cfg(test)]
mod tests;
