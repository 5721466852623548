//! What a Service and its slices mean for the data path: frontends, and the backends of each.

use std::collections::{BTreeMap, BTreeSet};

use super::{Backend, Frontend, Port, Reach, Service, Slice};

/// Every frontend of a Service with the backends that take its connections; a frontend without any refuses them.
pub type Frontends = BTreeMap<Frontend, BTreeSet<Backend>>;

/// The frontends of a Service. A Service that the data path ignores has none.
pub fn frontends<'a>(service: &Service, slices: &(impl Iterator<Item = &'a Slice> + Clone)) -> Frontends {
    let Reach::Cluster(addresses) = &service.reach else { return Frontends::new() };
    let mut frontends = Frontends::new();
    for port in service.ports.iter().filter(|_| service.proxied) {
        for &address in addresses {
            let frontend = Frontend::new(address, port.number, port.protocol);
            let backends = usable(port, address.is_v4(), slices.clone());
            frontends.entry(frontend).or_default().extend(backends);
        }
    }
    frontends
}

/// The backends of one port and one family over all slices: the ready ones, else those that terminate but still serve.
/// A slice has addresses of one family. An endpoint that is moved from slice to slice is in both for a moment and counts once.
fn usable<'a>(port: &Port, v4: bool, slices: impl Iterator<Item = &'a Slice>) -> BTreeSet<Backend> {
    let (mut ready, mut leaving) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices.filter(|slice| slice.proxied) {
        for slice_port in slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol) {
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.address.is_v4() == v4) {
                let backend = Backend::new(endpoint.address, slice_port.number);
                if endpoint.ready {
                    ready.insert(backend);
                } else if endpoint.serving && endpoint.terminating {
                    leaving.insert(backend);
                }
            }
        }
    }
    if ready.is_empty() { leaving } else { ready }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address::Address,
        name::ObjectName,
        service::{Endpoint, Protocol, SlicePort},
    };
    use std::net::Ipv4Addr;

    fn address(last: u8) -> Address {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn service(ports: &[(&str, u16, Protocol)]) -> Service {
        let ports =
            ports.iter().map(|&(name, number, protocol)| Port { name: name.into(), number, protocol });
        Service {
            name: ObjectName::new("shop", "cart"),
            reach: Reach::Cluster(vec![address(200)]),
            ports: ports.collect(),
            proxied: true,
        }
    }

    fn slice(name: &str, ports: &[(&str, u16, Protocol)], endpoints: &[Endpoint]) -> Slice {
        let ports =
            ports.iter().map(|&(name, number, protocol)| SlicePort { name: name.into(), number, protocol });
        Slice {
            name: ObjectName::new("shop", name),
            service: ObjectName::new("shop", "cart"),
            ports: ports.collect(),
            endpoints: endpoints.to_vec(),
            proxied: true,
        }
    }

    fn ready(last: u8) -> Endpoint {
        Endpoint { address: address(last), ready: true, serving: true, terminating: false, hostname: None }
    }

    fn leaving(last: u8) -> Endpoint {
        Endpoint { ready: false, terminating: true, ..ready(last) }
    }

    fn backends(found: &Frontends, port: u16, protocol: Protocol) -> Vec<(u8, u16)> {
        let frontend = Frontend::new(address(200), port, protocol);
        found[&frontend].iter().map(|b| (b.address.0[15], u16::from_be(b.port))).collect()
    }

    const TCP: Protocol = Protocol::Tcp;
    const UDP: Protocol = Protocol::Udp;

    #[test]
    fn one_number_for_two_protocols_is_two_frontends() {
        let ports = [("dns", 53, UDP), ("dns-tcp", 53, TCP)];
        let slices = [slice("a", &[("dns", 5353, UDP), ("dns-tcp", 5354, TCP)], &[ready(1)])];
        let found = frontends(&service(&ports), &slices.iter());
        assert_eq!(backends(&found, 53, UDP), [(1, 5353)]);
        assert_eq!(backends(&found, 53, TCP), [(1, 5354)]);
    }

    #[test]
    fn a_named_target_port_may_differ_from_slice_to_slice() {
        let slices =
            [slice("a", &[("web", 80, TCP)], &[ready(1)]), slice("b", &[("web", 8080, TCP)], &[ready(2)])];
        let found = frontends(&service(&[("web", 80, TCP)]), &slices.iter());
        assert_eq!(backends(&found, 80, TCP), [(1, 80), (2, 8080)]);
    }

    #[test]
    fn an_endpoint_in_two_slices_counts_once() {
        let slices = [
            slice("a", &[("", 80, TCP)], &[ready(1)]),
            slice("b", &[("", 80, TCP)], &[ready(1), leaving(1), ready(2)]),
        ];
        let found = frontends(&service(&[("", 80, TCP)]), &slices.iter());
        assert_eq!(backends(&found, 80, TCP), [(1, 80), (2, 80)]);
    }

    #[test]
    fn an_address_of_a_family_leads_to_endpoints_of_that_family() {
        let six = |last: u16| Address::from(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last));
        let at = |last| Endpoint { address: six(last), ..ready(1) };
        let dual =
            Service { reach: Reach::Cluster(vec![address(200), six(200)]), ..service(&[("", 80, TCP)]) };
        let slices = [
            slice("a", &[("", 80, TCP)], &[ready(1), ready(2)]),
            slice("a6", &[("", 81, TCP)], &[Endpoint { ready: false, terminating: true, ..at(1) }]),
        ];
        let found = frontends(&dual, &slices.iter());
        assert_eq!(backends(&found, 80, TCP), [(1, 80), (2, 80)]);
        let frontend = Frontend::new(six(200), 80, TCP);
        let behind: Vec<_> = found[&frontend].iter().copied().collect();
        assert_eq!(behind, [Backend::new(six(1), 81)], "none of its family is ready");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn terminating_endpoints_serve_only_when_none_is_ready() {
        let unready = Endpoint { serving: false, terminating: false, ..leaving(4) };
        let broken = Endpoint { serving: false, ..leaving(5) };
        let only_leaving = [slice("a", &[("", 80, TCP)], &[leaving(1), unready.clone(), broken])];
        let found = frontends(&service(&[("", 80, TCP)]), &only_leaving.iter());
        assert_eq!(backends(&found, 80, TCP), [(1, 80)]);

        let mixed = [slice("a", &[("", 80, TCP)], &[leaving(1), ready(2), unready])];
        let found = frontends(&service(&[("", 80, TCP)]), &mixed.iter());
        assert_eq!(backends(&found, 80, TCP), [(2, 80)]);
    }

    #[test]
    fn without_endpoints_the_frontend_stays_and_refuses() {
        let found = frontends(&service(&[("", 80, TCP)]), &[slice("a", &[], &[])].iter());
        assert!(backends(&found, 80, TCP).is_empty());
    }

    #[test]
    fn what_is_reached_by_name_alone_or_served_by_others_has_no_frontend() {
        let slices = [slice("a", &[("", 80, TCP)], &[ready(1)])];
        let cluster = service(&[("", 80, TCP)]);
        let headless = Service { reach: Reach::Headless, ..cluster.clone() };
        let external = Service { reach: Reach::External("example.org".into()), ..cluster.clone() };
        let foreign = Service { proxied: false, ..cluster.clone() };
        for ignored in [headless, external, foreign] {
            assert!(frontends(&ignored, &slices.iter()).is_empty(), "{ignored:?}");
        }
        let ignored_slice = [Slice { proxied: false, ..slices[0].clone() }];
        assert!(backends(&frontends(&cluster, &ignored_slice.iter()), 80, TCP).is_empty());
    }
}
