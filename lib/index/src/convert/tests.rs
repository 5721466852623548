//! Objects as the API server sends them.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::*;

fn read_service(metadata: &Value, spec: &Value) -> Result<Service, Invalid> {
    service(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
}

fn read_slice(object: Value) -> Result<Option<Slice>, Invalid> {
    slice(&serde_json::from_value(object).unwrap(), "n1")
}

fn ip(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

#[test]
fn a_service_is_read_with_its_addresses_and_tcp_and_udp_ports() {
    let spec = json!({"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00::a"], "ports": [
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
        {"name": "sctp", "port": 99, "protocol": "SCTP"},
        {"name": "metrics", "port": 9153}]});
    let read = read_service(&json!({"namespace": "kube-system", "name": "kube-dns"}), &spec).unwrap();
    assert_eq!(read.reach, Reach::Cluster(vec![ip("10.96.0.10"), ip("fd00::a")]));
    let ports: Vec<_> = read.ports.iter().map(|p| (&*p.name, p.number, p.protocol)).collect();
    assert_eq!(ports, [("dns", 53, service::Protocol::Udp), ("metrics", 9153, service::Protocol::Tcp)]);
    assert!(read.proxied);
}

#[test]
fn headless_and_external_services_are_reached_by_name() {
    let metadata = json!({"namespace": "a", "name": "b"});
    let headless = read_service(&metadata, &json!({"clusterIP": "None", "clusterIPs": ["None"]})).unwrap();
    assert_eq!(headless.reach, Reach::Headless);
    let external =
        read_service(&metadata, &json!({"type": "ExternalName", "externalName": "example.org"})).unwrap();
    assert_eq!(external.reach, Reach::External("example.org".into()));
}

#[test]
fn labels_take_a_service_away_from_the_proxy() {
    for label in [SERVICE_PROXY_NAME, HEADLESS] {
        let metadata = json!({"namespace": "a", "name": "b", "labels": {label: ""}});
        assert!(!read_service(&metadata, &json!({"clusterIP": "10.96.0.1"})).unwrap().proxied, "{label}");
    }
}

#[test]
fn impossible_services_are_named_with_the_reason() {
    let metadata = json!({"namespace": "shop", "name": "cart"});
    let error = read_service(&metadata, &json!({"clusterIPs": ["10.96.0.999"]})).unwrap_err();
    let text = r#"Service shop/cart is ignored: spec.clusterIPs "10.96.0.999" is not an IP address"#;
    assert_eq!(error.to_string(), text);
    let error =
        read_service(&metadata, &json!({"clusterIP": "10.96.0.1", "ports": [{"port": 70000}]})).unwrap_err();
    assert_eq!(error.reason, "port 70000 is not between 1 and 65535");
}

#[test]
fn absent_conditions_mean_ready_and_serving() {
    let read = read_slice(
        json!({"metadata": {"namespace": "a", "name": "b-x", "labels": {SERVICE_NAME: "b"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 80, "protocol": "TCP"}, {"name": "any"}],
        "endpoints": [{"addresses": ["10.0.0.1", "10.0.0.9"]},
            {"addresses": ["010.000.000.002"], "conditions": {"ready": false, "serving": true, "terminating": true}}]}),
    );
    let read = read.unwrap().unwrap();
    assert_eq!(read.service, ObjectName::new("a", "b"));
    assert_eq!(read.ports.len(), 1, "a port without a number is no port of ours");
    let seen: Vec<_> =
        read.endpoints.iter().map(|e| (e.address, e.ready, e.serving, e.terminating)).collect();
    assert_eq!(seen, [(ip("10.0.0.1"), true, true, false), (ip("10.0.0.2"), false, true, true)]);
}

#[test]
fn an_endpoint_is_for_its_own_node_or_for_those_of_its_hints() {
    let read = read_slice(
        json!({"metadata": {"namespace": "a", "name": "b-x", "labels": {SERVICE_NAME: "b"}},
        "addressType": "IPv4", "ports": [], "endpoints": [
            {"addresses": ["10.0.0.1"], "nodeName": "n1"},
            {"addresses": ["10.0.0.2"], "nodeName": "n2"},
            {"addresses": ["10.0.0.3"]},
            {"addresses": ["10.0.0.4"], "nodeName": "n2", "hints": {"forNodes": [{"name": "n3"}, {"name": "n1"}]}},
            {"addresses": ["10.0.0.5"], "nodeName": "n1", "hints": {"forNodes": [{"name": "n2"}]}},
            {"addresses": ["10.0.0.6"], "nodeName": "n1", "hints": {"forZones": [{"name": "z"}]}}]}),
    );
    let read = read.unwrap().unwrap();
    let seen: Vec<_> = read.endpoints.iter().map(|e| e.place).collect();
    let expected = [
        Place::Here,
        Place::Elsewhere,
        Place::Elsewhere,
        Place::HintedHere,
        Place::HintedElsewhere,
        Place::Here,
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_service_says_that_it_prefers_the_clients_node() {
    let metadata = json!({"namespace": "a", "name": "b"});
    for (distribution, expected) in [
        (json!("PreferSameNode"), true),
        (json!("PreferSameZone"), false),
        (json!("PreferClose"), false),
        (Value::Null, false),
    ] {
        let spec = json!({"clusterIP": "10.96.0.1", "trafficDistribution": distribution});
        assert_eq!(read_service(&metadata, &spec).unwrap().prefers_own_node, expected, "{distribution}");
    }
}

#[test]
fn a_slice_of_ipv6_is_read() {
    let metadata = json!({"namespace": "a", "name": "x", "labels": {SERVICE_NAME: "b"}});
    let endpoints = json!([{"addresses": ["fd00::1"]}]);
    let read = read_slice(json!({"metadata": metadata, "addressType": "IPv6", "endpoints": endpoints}));
    assert_eq!(read.unwrap().unwrap().endpoints[0].address, ip("fd00::1"));
}

#[test]
fn slices_of_names_or_of_no_service_are_not_ours() {
    let labels = json!({SERVICE_NAME: "b"});
    for (labels, family) in [(&labels, "FQDN"), (&json!({}), "IPv4"), (&json!({}), "IPv6")] {
        let metadata = json!({"namespace": "a", "name": "x", "labels": labels});
        assert_eq!(
            read_slice(json!({"metadata": metadata, "addressType": family, "endpoints": []})),
            Ok(None)
        );
    }
}
