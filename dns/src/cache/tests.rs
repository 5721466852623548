//! The whole cache: against a naive one as time goes by, and the quick way against the general one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use netkeel_crds::cluster_network::Dns;
use netkeel_crds::cluster_network::dns::{Cache, Host, ServeStale, StaleMode};
use netkeel_telemetry::metrics::Registry;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{key, reply::Told};
use crate::handler::{Handler, Outcome};
use crate::live::{Base, Live};
use crate::loops::Avoid;
use crate::message::Transport;
use crate::metrics::Metrics;
use crate::plain::Question;
use crate::zone::{Settings, Zone};

fn live(dns: Dns) -> (Live, Zone, Metrics) {
    live_in(dns, &Registry::new("dns", "0"))
}

fn live_in(dns: Dns, registry: &Registry) -> (Live, Zone, Metrics) {
    let settings = Settings::new(Name::from_ascii("cluster.local.").unwrap());
    let metrics = Metrics::new(registry, ([127, 0, 0, 1], 53).into(), "cluster.local.");
    let base = Base { settings: settings.clone(), listen: vec![], of_node: vec![] };
    (Live::new(dns, &base, &metrics).unwrap(), Zone::new(settings, 7), metrics)
}

fn query(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
    message
}

/// The reply with so many addresses, or that there is no such name where there are none.
fn reply(name: &str, rtype: RecordType, ttl: u32, count: u8) -> Vec<u8> {
    let mut message = query(name, rtype);
    message.metadata.message_type = MessageType::Response;
    let owner = Name::from_ascii(name).unwrap();
    if count == 0 {
        message.metadata.response_code = ResponseCode::NXDomain;
        let soa = SOA::new(owner.clone(), owner.clone(), 1, 2, 3, 4, ttl);
        message.authorities = vec![Record::from_rdata(owner, ttl, RData::SOA(soa))];
    } else {
        let record = |last| Record::from_rdata(owner.clone(), ttl, RData::A(A::new(192, 0, 2, last)));
        message.answers = (1..=count).map(record).collect();
    }
    message.to_vec().unwrap()
}

fn key_of(name: &str) -> Vec<u8> {
    key::key(&Name::from_ascii(name).unwrap(), RecordType::A, 0)
}

/// A handler that has kept a few answers, its zone, and when that was.
static KNOWING: LazyLock<(Handler, Zone, Instant)> = LazyLock::new(|| {
    let ((live, zone, metrics), now) = (live(Dns::default()), Instant::now());
    for (name, count) in [
        ("www.example.", 1),
        ("none.example.", 0),
        ("many.example.", 60),
        ("1.2.0.192.in-addr.arpa.", 1),
        (".", 1),
    ] {
        for (rtype, flags) in
            [(RecordType::A, 0), (RecordType::A, 1), (RecordType::AAAA, 2), (RecordType::TXT, 3)]
        {
            let key = key::key(&Name::from_ascii(name).unwrap(), rtype, flags);
            live.forwarder.keep(&key, &reply(name, rtype, 1800, count), now);
        }
    }
    let live = Arc::new(ArcSwap::from_pointee(live));
    (Handler::new(Arc::new(ArcSwap::from_pointee(zone.clone())), live, metrics), zone, now)
});

proptest! {
    /// A map of what was put when, and for how long, gives the same, at all times.
    #[test]
    fn it_gives_what_a_naive_cache_gives(
        steps in vec((0..8_u8, any::<bool>(), 1..40_u32, any::<bool>(), 0..20_000_u64), 1..80),
    ) {
        let serve_stale = ServeStale { max_age_seconds: 0, ..ServeStale::default() };
        let told = Cache { min_ttl_seconds: 10, max_ttl_seconds: 30, negative_max_ttl_seconds: 20, serve_stale, ..Cache::default() };
        let (live, ..) = live(Dns { cache: told, ..Dns::default() });
        let (mut naive, mut now) = (HashMap::new(), Instant::now());
        for (name, puts, ttl, positive, passed) in steps {
            now += Duration::from_millis(passed);
            let text = format!("n{name}.example.");
            if puts {
                let packet = reply(&text, RecordType::A, ttl, u8::from(positive));
                live.forwarder.keep(&key_of(&text), &packet, now);
                naive.insert(name, (now, ttl.clamp(10, if positive { 30 } else { 20 })));
            }
            let given = live.known(&key_of(&text), now, Avoid::default);
            let expected = naive.get(&name).and_then(|(since, ttl): &(Instant, u32)| {
                let age = u32::try_from((now - *since).as_secs()).unwrap();
                (age < *ttl).then(|| (age, *ttl - age))
            });
            let seen = given.map(|given| {
                let Told::Aged(age) = given.told else { panic!("nothing is given after its end") };
                let message = Message::from_vec(&given.bytes(0)).unwrap();
                (age, message.answers.iter().chain(&message.authorities).next().unwrap().ttl)
            });
            prop_assert_eq!(seen, expected);
        }
    }

    /// Whatever is answered quickly is answered as the general way does.
    #[test]
    fn the_quick_way_answers_like_the_general_one(
        name in prop::sample::select(vec!["www.example.", "Www.eXample.", "none.example.", "many.example.", "other.example.", "1.2.0.192.in-addr.arpa.", "."]),
        rtype in prop::sample::select(vec![RecordType::A, RecordType::AAAA, RecordType::TXT]),
        edns in prop::option::of((0..4000_u16, any::<bool>())), desired: bool, unchecked: bool, authentic: bool,
        at in 0..200_usize, byte: u8, turn in 0..5_usize,
    ) {
        let (handler, zone, now) = &*KNOWING;
        let mut message = query(name, rtype);
        message.metadata.recursion_desired = desired;
        message.metadata.checking_disabled = unchecked;
        message.metadata.authentic_data = authentic;
        if let Some((size, dnssec)) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size).set_dnssec_ok(dnssec);
            message.set_edns(edns);
        }
        let mut damaged = message.to_vec().unwrap();
        let whole = damaged.clone();
        if let Some(place) = damaged.get_mut(at) {
            *place = byte;
        }
        for packet in [whole, damaged] {
            let (mut bytes, client) = (Vec::new(), SocketAddr::from(([10, 0, 0, 1], 4000)));
            let Some(answered) = handler.quick(zone, &handler.live(), (&packet, client), (turn, *now), &mut bytes) else {
                prop_assert!(bytes.is_empty());
                continue;
            };
            let Outcome::Reply(general) = handler.start(&packet, Transport::Udp, client) else {
                panic!("the general way does not know it")
            };
            let [mut quick, mut general] = [&bytes, &general].map(|bytes| Message::from_vec(bytes).unwrap());
            prop_assert_eq!(answered.code, quick.metadata.response_code);
            for message in [&mut quick, &mut general] {
                message.answers.sort_by_key(ToString::to_string);
            }
            prop_assert_eq!(quick, general);
        }
    }
}

#[test]
fn the_quick_way_is_taken_for_usual_questions_and_not_where_anything_else_has_a_say() {
    let answers = |dns: Dns| {
        let (live, ..) = live(dns);
        let now = Instant::now();
        live.forwarder.keep(&key_of("www.example."), &reply("www.example.", RecordType::A, 60, 1), now);
        let packet = query("WWW.example.", RecordType::A).to_vec().unwrap();
        let question = Question::read(&packet).unwrap();
        live.cached(&question, (0, now), Avoid::default, &mut Vec::new()).is_some()
    };
    assert!(answers(Dns::default()));
    let host = Host { ip: [10, 0, 0, 1].into(), names: vec!["www.example".to_owned()], ..hosts() };
    assert!(!answers(Dns { hosts: vec![host], ..Dns::default() }));
    let reverse = query("1.2.0.192.in-addr.ARPA.", RecordType::A).to_vec().unwrap();
    assert!(Question::read(&reverse).unwrap().is_reverse());
}

fn hosts() -> Host {
    serde_json::from_value(serde_json::json!({"ip": "10.0.0.1", "names": ["a.example"]})).unwrap()
}

#[test]
fn what_is_over_is_given_when_all_resolvers_rest_and_ends_at_last() {
    let (live, ..) = live(Dns::default()); // without resolvers, so that none can be asked
    let began = Instant::now();
    live.forwarder.keep(&key_of("a.example."), &reply("a.example.", RecordType::A, 60, 1), began);
    let told = |seconds| {
        let now = began + Duration::from_secs(seconds);
        live.known(&key_of("a.example."), now, Avoid::default).map(|given| given.told)
    };
    assert_eq!(told(59), Some(Told::Aged(59)));
    assert_eq!(told(60), Some(Told::Stale(30)));
    assert_eq!(told(60 + 86_399), Some(Told::Stale(30)));
    assert_eq!(told(60 + 86_400), None);
}

#[test]
fn what_is_over_is_given_where_no_more_questions_may_be_under_way() {
    let mut dns = Dns { upstreams: vec![SocketAddr::from(([192, 0, 2, 53], 53)).into()], ..Dns::default() };
    dns.cache.serve_stale.mode = StaleMode::Verify;
    dns.cache.min_ttl_seconds = 0;
    let (live, zone, metrics) = live(dns);
    live.forwarder.keep(&key_of("a.example."), &reply("a.example.", RecordType::A, 0, 1), Instant::now());
    let shared = Arc::new(ArcSwap::from_pointee(live));
    let handler = Handler::new(Arc::new(ArcSwap::from_pointee(zone)), shared, metrics);
    for (name, expected) in [("A.example.", ResponseCode::NoError), ("b.example.", ResponseCode::Refused)] {
        let packet = query(name, RecordType::A).to_vec().unwrap();
        let client = SocketAddr::from(([10, 0, 0, 1], 4000));
        let Outcome::Later(pending) = handler.start(&packet, Transport::Udp, client) else {
            panic!("{name} is not asked for")
        };
        let refused = Message::from_vec(&handler.refuse(&pending)).unwrap();
        assert_eq!(refused.metadata.response_code, expected, "{name}");
        assert_eq!(refused.metadata.id, 4711);
        let told: Vec<u32> = refused.answers.iter().map(|record| record.ttl).collect();
        assert_eq!(told, if expected == ResponseCode::NoError { vec![30] } else { vec![] });
    }
}

#[tokio::test]
async fn an_answer_that_could_not_be_fetched_anew_is_fetched_the_next_time() {
    let mut dns = Dns { upstreams: vec![SocketAddr::from(([127, 0, 0, 1], 9)).into()], ..Dns::default() };
    dns.forwarding.max_concurrent = 1;
    let registry = Registry::new("dns", "0");
    let (live, ..) = live_in(dns, &registry);
    let now = Instant::now();
    for name in ["a.example.", "b.example."] {
        live.forwarder.keep(&key_of(name), &reply(name, RecordType::A, 60, 1), now);
    }
    let ask = |name| {
        for _ in 0..2 {
            let later = now + Duration::from_secs(59);
            assert!(live.known(&key_of(name), later, Avoid::default).is_some());
        }
    };
    let fetched = || {
        let text = registry.encode();
        let told = text.lines().find(|told| told.starts_with("coredns_cache_prefetch_total{")).unwrap();
        told.rsplit_once(' ').unwrap().1.to_owned()
    };
    ask("a.example.");
    ask("b.example."); // the one question that may be under way is the other one's
    assert_eq!(fetched(), "1");
    // nobody listens there, so that question ends
    for _ in 0..2000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        ask("b.example.");
        if fetched() == "2" {
            return;
        }
    }
    panic!("it is not tried again");
}

/// What the metrics say of the cache under a name.
fn counted(registry: &Registry, name: &str) -> i64 {
    let text = registry.encode();
    let lines = text.lines().filter(|line| line.starts_with(&format!("coredns_cache_{name}{{")));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<i64>().ok()).sum()
}

#[test]
fn what_the_quick_way_finds_and_cannot_give_is_counted_once() {
    let registry = Registry::new("dns", "0");
    let mut dns = Dns::default();
    (dns.cache.serve_stale.mode, dns.cache.min_ttl_seconds) = (StaleMode::Immediate, 0);
    let (live, zone, metrics) = live_in(dns, &registry);
    let now = Instant::now();
    live.forwarder.keep(&key_of("many.example."), &reply("many.example.", RecordType::A, 0, 60), now);
    let handler = Handler::new(
        Arc::new(ArcSwap::from_pointee(zone.clone())),
        Arc::new(ArcSwap::from_pointee(live)),
        metrics,
    );
    let packet = query("many.example.", RecordType::A).to_vec().unwrap();
    let client = SocketAddr::from(([10, 0, 0, 1], 4000));
    let quick = handler.quick(&zone, &handler.live(), (&packet, client), (0, now), &mut Vec::new());
    assert!(quick.is_none(), "60 addresses do not fit");
    assert!(matches!(handler.start(&packet, Transport::Udp, client), Outcome::Reply(_)));
    let all = ["requests_total", "hits_total", "misses_total", "served_stale_total"];
    assert_eq!(all.map(|name| counted(&registry, name)), [1, 1, 0, 1]);
}

#[test]
fn the_number_of_answers_stays_true_when_the_cache_is_changed_with_questions_under_way() {
    let registry = Registry::new("dns", "0");
    let (before, _, metrics) = live_in(Dns::default(), &registry);
    let base = Base {
        settings: Settings::new(Name::from_ascii("cluster.local.").unwrap()),
        listen: vec![],
        of_node: vec![],
    };
    let keep = |live: &Live, name: &str, count| {
        live.forwarder.keep(&key_of(name), &reply(name, RecordType::A, 60, count), Instant::now());
    };
    keep(&before, "a.example.", 1);
    keep(&before, "none.example.", 0);
    let mut dns = Dns::default();
    dns.cache.max_entries = 5000;
    let after = before.next(dns.clone(), &base, &metrics).unwrap();
    assert_eq!(counted(&registry, "entries"), 2);
    keep(&before, "late.example.", 1);
    assert_eq!(counted(&registry, "entries"), 2, "nobody is given that one any more");
    keep(&after, "b.example.", 1);
    assert_eq!(counted(&registry, "entries"), 3);
    dns.cache.max_entries = 0;
    let _none = after.next(dns, &base, &metrics).unwrap();
    keep(&after, "later.example.", 1);
    assert_eq!(counted(&registry, "entries"), 0);
}
