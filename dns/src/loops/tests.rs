//! Who answers which question, and what follows from the answers.

use netkeel_crds::cluster_network::Upstream;
use netkeel_crds::cluster_network::dns::StubDomain;

use netkeel_crds::cluster_network::{EmptyServices, PodRecords};

use super::*;
use crate::zone::Settings;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn target(text: &str) -> Target {
    Target { address: address(text), zone: String::new() }
}

#[test]
fn only_the_question_of_a_server_of_this_cluster_is_answered() {
    let loops = Loops::default();
    loops.identify("Uid-1");
    for (text, rtype, answered) in [
        ("netkeel-loop.uid-1.x1.", RecordType::HINFO, true),
        ("NetKeel-Loop.UID-1.x1.corp.example.", RecordType::HINFO, true),
        ("netkeel-loop.uid-1.x1.", RecordType::A, false),
        ("netkeel-loop.uid-2.x1.", RecordType::HINFO, false),
        ("other.uid-1.x1.", RecordType::HINFO, false),
        ("netkeel-loop.uid-1.", RecordType::HINFO, false),
        ("netkeel-loop.", RecordType::HINFO, false),
        (".", RecordType::HINFO, false),
    ] {
        let answer = loops.answer(&name(text), rtype);
        assert_eq!(answer.as_ref().map(is_marked), answered.then_some(true), "{text} {rtype}");
    }
}

#[test]
fn a_host_with_another_description_is_no_loop() {
    let info = HINFO::new("netkeel-dns".to_owned(), "Linux".to_owned());
    assert!(!is_marked(&Record::from_rdata(name("a."), 0, RData::HINFO(info))));
}

#[test]
fn servers_without_a_cluster_do_not_take_each_other_for_themselves() {
    let question = format!("netkeel-loop.{}.x1.", Loops::default().cluster.load());
    assert!(Loops::default().answer(&name(&question), RecordType::HINFO).is_none());
}

#[test]
fn a_resolver_that_says_nothing_stays_as_it_was() {
    let before = [address("10.0.0.1:53").ip(), address("10.0.0.9:53").ip()];
    let seen = [
        (target("10.0.0.1:53"), None),
        (target("10.0.0.2:53"), None),
        (target("10.0.0.3:53"), Some(true)),
        (target("10.0.0.4:53"), Some(false)),
        (target("10.0.0.5:53"), Some(true)),
        (target("10.0.0.5:53"), Some(false)),
    ];
    let out: Vec<SocketAddr> =
        judge(&before, &seen).into_iter().filter(|(_, out)| *out).map(|(to, _)| to).collect();
    assert_eq!(out, ["10.0.0.1:53", "10.0.0.3:53", "10.0.0.5:53"].map(address));
}

#[test]
fn resolvers_of_all_names_and_of_stub_domains_are_looked_at_but_not_encrypted_ones() {
    let settings = Settings {
        domain: name("cluster.local."),
        ttl: 5,
        dns_service: "kube-dns.kube-system".to_owned(),
        service_ranges: vec![],
        pod_ranges: vec![],
        endpoint_pod_names: false,
        empty_services: EmptyServices::Answer,
        pod_records: PodRecords::Insecure,
    };
    let base = Base { settings, listen: vec![], of_node: vec![address("10.0.0.1:53")] };
    let stub = |zone: &str, protocol: &str| -> StubDomain {
        serde_json::from_value(serde_json::json!({"zone": zone, "upstreams": ["10.0.0.2"],
            "forwarding": {"protocol": protocol}}))
        .unwrap()
    };
    let mut dns =
        Dns { stub_domains: vec![stub("corp.example", "UDP"), stub("tls.example", "TLS")], ..Dns::default() };
    let corp = Target { address: address("10.0.0.2:53"), zone: "corp.example.".to_owned() };
    assert_eq!(targets(&base, &dns), [target("10.0.0.1:53"), corp.clone()]);
    dns.upstreams = vec![Upstream::from(address("10.0.0.3:5353"))];
    assert_eq!(targets(&base, &dns), [target("10.0.0.3:5353"), corp.clone()]);
    dns.forwarding.protocol = Protocol::TLS;
    assert_eq!(targets(&base, &dns), [corp]);
}
