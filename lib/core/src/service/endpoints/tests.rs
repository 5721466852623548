//! Services with slices in, backends out.

use super::*;
use crate::{
    address::Address,
    name::ObjectName,
    service::{Endpoint, Place, Protocol, SlicePort},
};
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const NONE: BTreeSet<Address> = BTreeSet::new();

fn address(last: u8) -> Address {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn service(ports: &[(&str, u16, Protocol)]) -> Service {
    let ports = ports.iter().map(|&(name, number, protocol)| Port { name: name.into(), number, protocol });
    Service {
        name: ObjectName::new("shop", "cart"),
        reach: Reach::Cluster(vec![address(200)]),
        ports: ports.collect(),
        proxied: true,
        prefers_own_node: false,
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
    Endpoint {
        address: address(last),
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        place: Place::Elsewhere,
    }
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
    let found = frontends(&service(&ports), &slices.iter(), &NONE);
    assert_eq!(backends(&found, 53, UDP), [(1, 5353)]);
    assert_eq!(backends(&found, 53, TCP), [(1, 5354)]);
}

#[test]
fn a_named_target_port_may_differ_from_slice_to_slice() {
    let slices =
        [slice("a", &[("web", 80, TCP)], &[ready(1)]), slice("b", &[("web", 8080, TCP)], &[ready(2)])];
    let found = frontends(&service(&[("web", 80, TCP)]), &slices.iter(), &NONE);
    assert_eq!(backends(&found, 80, TCP), [(1, 80), (2, 8080)]);
}

#[test]
fn an_endpoint_in_two_slices_counts_once() {
    let slices = [
        slice("a", &[("", 80, TCP)], &[ready(1)]),
        slice("b", &[("", 80, TCP)], &[ready(1), leaving(1), ready(2)]),
    ];
    let found = frontends(&service(&[("", 80, TCP)]), &slices.iter(), &NONE);
    assert_eq!(backends(&found, 80, TCP), [(1, 80), (2, 80)]);
}

#[test]
fn an_address_of_a_family_leads_to_endpoints_of_that_family() {
    let six = |last: u16| Address::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last));
    let at = |last| Endpoint { address: six(last), ..ready(1) };
    let dual = Service { reach: Reach::Cluster(vec![address(200), six(200)]), ..service(&[("", 80, TCP)]) };
    let slices = [
        slice("a", &[("", 80, TCP)], &[ready(1), ready(2)]),
        slice("a6", &[("", 81, TCP)], &[Endpoint { ready: false, terminating: true, ..at(1) }]),
    ];
    let found = frontends(&dual, &slices.iter(), &NONE);
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
    let found = frontends(&service(&[("", 80, TCP)]), &only_leaving.iter(), &NONE);
    assert_eq!(backends(&found, 80, TCP), [(1, 80)]);

    let mixed = [slice("a", &[("", 80, TCP)], &[leaving(1), ready(2), unready])];
    let found = frontends(&service(&[("", 80, TCP)]), &mixed.iter(), &NONE);
    assert_eq!(backends(&found, 80, TCP), [(2, 80)]);
}

#[test]
fn without_endpoints_the_frontend_stays_and_refuses() {
    let found = frontends(&service(&[("", 80, TCP)]), &[slice("a", &[], &[])].iter(), &NONE);
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
        assert!(frontends(&ignored, &slices.iter(), &NONE).is_empty(), "{ignored:?}");
    }
    let ignored_slice = [Slice { proxied: false, ..slices[0].clone() }];
    assert!(backends(&frontends(&cluster, &ignored_slice.iter(), &NONE), 80, TCP).is_empty());
}

fn own(last: u8) -> Endpoint {
    Endpoint { place: Place::Here, ..ready(last) }
}

fn hinted(endpoint: Endpoint) -> Endpoint {
    let place = if endpoint.place.is_here() { Place::HintedHere } else { Place::HintedElsewhere };
    Endpoint { place, ..endpoint }
}

/// Last bytes of the addresses that clients of this node are sent to.
fn sent(prefers_own_node: bool, endpoints: &[Endpoint], silent: &[u8]) -> Vec<u8> {
    let service = Service { prefers_own_node, ..service(&[("", 80, TCP)]) };
    let silent = silent.iter().map(|last| address(*last)).collect();
    let found = frontends(&service, &[slice("a", &[("", 80, TCP)], endpoints)].iter(), &silent);
    backends(&found, 80, TCP).into_iter().map(|(last, _)| last).collect()
}

#[test]
fn a_service_that_prefers_its_own_node_is_served_there_while_somebody_there_is_ready_and_answers() {
    let unready = |last| Endpoint { ready: false, serving: false, ..own(last) };
    let own_leaving = |last| Endpoint { place: Place::Here, ..leaving(last) };
    for (what, endpoints, silent, expected) in [
        ("one here", vec![own(1), ready(2)], vec![], vec![1]),
        ("two here, as during an update", vec![own(1), own(2), ready(3)], vec![], vec![1, 2]),
        ("none here", vec![ready(2), ready(3)], vec![], vec![2, 3]),
        ("not ready here", vec![unready(1), ready(2)], vec![], vec![2]),
        ("terminating here", vec![own_leaving(1), ready(2)], vec![], vec![2]),
        ("terminating everywhere", vec![own_leaving(1), leaving(2)], vec![], vec![1, 2]),
        ("silent here", vec![own(1), ready(2), ready(3)], vec![1], vec![2, 3]),
        ("one of two silent here", vec![own(1), own(2), ready(3)], vec![1], vec![2]),
        ("silent and alone", vec![own(1)], vec![1], vec![1]),
        ("silent, and the others terminate", vec![own(1), leaving(2)], vec![1], vec![1]),
    ] {
        assert_eq!(sent(true, &endpoints, &silent), expected, "{what}");
    }
    assert_eq!(sent(false, &[own(1), ready(2)], &[]), [1, 2], "without the preference");
    assert_eq!(sent(false, &[own(1), ready(2)], &[1]), [2], "whoever is silent is the last choice");
}

#[test]
fn hints_for_nodes_count_as_kube_proxy_has_them_when_every_ready_endpoint_has_some() {
    for (what, endpoints, expected) in [
        ("all", vec![hinted(own(1)), hinted(ready(2))], vec![1]),
        ("all, and none for this node", vec![hinted(ready(1)), hinted(ready(2))], vec![1, 2]),
        ("not all", vec![hinted(own(1)), ready(2)], vec![1, 2]),
        ("all that are ready", vec![hinted(own(1)), hinted(ready(2)), leaving(3)], vec![1]),
    ] {
        assert_eq!(sent(false, &endpoints, &[]), expected, "{what}");
    }
}

#[test]
fn each_family_has_a_preference_of_its_own() {
    let six = |last: u16| Address::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last));
    let dual = Service {
        reach: Reach::Cluster(vec![address(200), six(200)]),
        prefers_own_node: true,
        ..service(&[("", 80, UDP)])
    };
    let slices = [
        slice("a", &[("", 80, UDP)], &[own(1), ready(2)]),
        slice(
            "a6",
            &[("", 80, UDP)],
            &[Endpoint { address: six(1), ..own(1) }, Endpoint { address: six(2), ..ready(2) }],
        ),
    ];
    let of_six = |silent: &[Address]| -> Vec<Backend> {
        let found = frontends(&dual, &slices.iter(), &silent.iter().copied().collect());
        assert_eq!(backends(&found, 80, UDP), [(1, 80)]);
        found[&Frontend::new(six(200), 80, UDP)].iter().copied().collect()
    };
    assert_eq!(of_six(&[]), [Backend::new(six(1), 80)]);
    assert_eq!(of_six(&[six(1)]), [Backend::new(six(2), 80)]);
    let here = preferred(&dual, &slices.iter(), UDP);
    assert_eq!(here, [Backend::new(address(1), 80), Backend::new(six(1), 80)].into());
    assert!(preferred(&dual, &slices.iter(), TCP).is_empty());
    let indifferent = Service { prefers_own_node: false, ..dual.clone() };
    assert!(preferred(&indifferent, &slices.iter(), UDP).is_empty());
}

prop_compose! {
    fn any_endpoint(last: u8)(
        ready in any::<bool>(), serving in any::<bool>(), terminating in any::<bool>(),
        place in prop::sample::select(vec![Place::Here, Place::Elsewhere, Place::HintedHere, Place::HintedElsewhere]),
    ) -> Endpoint {
        Endpoint { address: address(last), ready, serving: serving || ready, terminating, hostname: None, place }
    }
}

fn any_endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    (0_u8..6).prop_flat_map(|count| (1..=count).map(any_endpoint).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn the_preference_only_narrows_and_never_leaves_clients_without_somebody_who_could_answer(
        endpoints in any_endpoints(),
        silent in prop::collection::btree_set(1_u8..6, 0..6),
    ) {
        let silent: Vec<u8> = silent.into_iter().collect();
        let of = |last: &u8| &endpoints[usize::from(*last) - 1];
        let answers = |endpoint: &&Endpoint| endpoint.ready && !silent.contains(&endpoint.address.0[15]);
        let (all, chosen) = (sent(false, &endpoints, &[]), sent(true, &endpoints, &silent));
        prop_assert_eq!(chosen.is_empty(), all.is_empty());
        if endpoints.iter().any(|endpoint| answers(&endpoint)) {
            prop_assert!(chosen.iter().map(of).all(|endpoint| answers(&endpoint)), "all that are chosen answer");
            let here = endpoints.iter().any(|endpoint| answers(&endpoint) && endpoint.place.is_here());
            prop_assert!(chosen.iter().map(of).all(|endpoint| endpoint.place.is_here() == here || !here));
            let left_out = endpoints.iter().filter(answers).filter(|e| !chosen.contains(&e.address.0[15]));
            prop_assert!(left_out.into_iter().all(|endpoint| here && !endpoint.place.is_here()), "nobody else is left out");
        }
    }
}
