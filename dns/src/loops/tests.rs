//! Who answers which question, and what follows from the answers.

use std::time::Instant;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use netkeel_crds::cluster_network::Upstream;
use netkeel_crds::cluster_network::dns::{StaleMode, StubDomain};
use netkeel_telemetry::metrics::Registry;

use super::*;
use crate::handler::Handler;
use crate::zone::{Settings, Zone};

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

fn target_of(zone: &str, text: &str) -> Target {
    Target { address: address(text), zone: super::zone(Some(zone)) }
}

#[test]
fn a_resolver_that_says_nothing_stays_as_it_was() {
    let corp = target_of("corp.example", "10.0.0.1:53");
    let before = [target("10.0.0.1:53"), target("10.0.0.9:53")];
    let seen = [
        (target("10.0.0.1:53"), None),
        (target("10.0.0.1:5353"), None),
        (corp.clone(), None),
        (target("10.0.0.2:53"), None),
        (target("10.0.0.3:53"), Some(true)),
        (target("10.0.0.4:53"), Some(false)),
    ];
    let out = judge(&before, &seen);
    assert_eq!(out, ["10.0.0.1:53", "10.0.0.3:53"].map(target));
    assert_eq!(judge(std::slice::from_ref(&corp), &seen), [corp, target("10.0.0.3:53")]);
}

#[test]
fn a_loop_in_one_zone_leaves_the_resolver_to_the_others() {
    let loops = Loops::default();
    loops.out.store(Arc::new(vec![target_of("corp.example", "10.0.0.1:53")]));
    let avoid = loops.avoid(&[[10, 96, 0, 10].into()]);
    let corp = super::zone(Some("corp.example"));
    assert!(avoid.has(&corp, address("10.0.0.1:53")));
    assert!(!avoid.has(&corp, address("10.0.0.1:5353")), "another port is another resolver");
    assert!(!avoid.has("", address("10.0.0.1:53")), "another zone is another way");
    assert!(avoid.has("", address("10.96.0.10:5353")), "what is the cluster's own is so everywhere");
}

#[test]
fn resolvers_of_all_names_and_of_stub_domains_are_looked_at_but_not_encrypted_ones() {
    let settings = Settings::new(name("cluster.local."));
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

/// An answer of `name` that is kept and over, so that it is given and fetched anew at once.
fn over(name: &str, resolver: SocketAddr) -> (Live, Handler, Zone) {
    use hickory_proto::rr::rdata::A;
    let mut dns = Dns { upstreams: vec![resolver.into()], ..Dns::default() };
    dns.cache.serve_stale.mode = StaleMode::Immediate;
    let base =
        Base { settings: Settings::new(self::name("cluster.local.")), listen: vec![], of_node: vec![] };
    let metrics = Metrics::new(&Registry::new("dns", "0"), address("127.0.0.1:53"), "cluster.local.");
    let live = Live::new(dns.clone(), &base, &metrics).unwrap();
    let mut reply = Message::response(1, OpCode::Query);
    reply.add_query(Query::query(self::name(name), RecordType::A));
    reply.add_answer(Record::from_rdata(self::name(name), 60, RData::A(A::new(192, 0, 2, 1))));
    let key = crate::cache::key::key(&self::name(name), RecordType::A, 0);
    live.forwarder.keep(&key, &reply.to_vec().unwrap(), Instant::now());
    let zone = Zone::new(base.settings.clone(), 1);
    let shared = |live| Arc::new(ArcSwap::from_pointee(live));
    let handler = Handler::new(
        Arc::new(ArcSwap::from_pointee(zone.clone())),
        shared(Live::new(dns, &base, &metrics).unwrap()),
        metrics,
    );
    (live, handler, zone)
}

#[tokio::test]
async fn what_is_kept_is_not_fetched_anew_from_who_leads_back() {
    let resolver = tokio::net::UdpSocket::bind(address("127.0.0.1:0")).await.unwrap();
    let at = resolver.local_addr().unwrap();
    let out = Loops::default();
    out.out.store(Arc::new(vec![Target { address: at, zone: String::new() }]));
    for (asked, loops) in [("left-out.example.", out), ("asked.example.", Loops::default())] {
        let (live, handler, zone) = over(asked, at);
        let mut query = Message::new(7, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(name(asked), RecordType::A));
        let (packet, later) = (query.to_vec().unwrap(), Instant::now() + Duration::from_mins(2));
        let handler = handler.heeding(loops);
        let given = handler.quick(&zone, &live, (&packet, at), (0, later), &mut Vec::new());
        assert!(given.is_some_and(|given| given.cached), "{asked}");
    }
    let mut buffer = [0; 512];
    let length = resolver.recv(&mut buffer).await.unwrap();
    let question = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(question.queries[0].name().to_ascii(), "asked.example.", "the first that is fetched");
}
