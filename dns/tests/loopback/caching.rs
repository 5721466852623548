//! Answers that are kept: by whom they are given, for how long, and what happens when the resolvers are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use netkeel_crds::cluster_network::Dns;
use netkeel_crds::cluster_network::dns::{Cache, Protocol, ServeStale, StaleMode};
use tokio::net::UdpSocket;

use crate::client::{Server, data, question, serve_as, tcp, udp, with_edns};
use crate::resolver::{Resolver, Say, address, at_once, coded, missing};

fn to(resolver: &Resolver, cache: Cache) -> Dns {
    let forwarding = resolver.forwarding.clone();
    Dns { upstreams: vec![resolver.address.into()], forwarding, cache, ..Dns::default() }
}

/// Keeps answers for a second at most, so that a test sees them end.
fn short() -> Cache {
    Cache { max_ttl_seconds: 1, min_ttl_seconds: 0, prefetch: false, ..Cache::default() }
}

async fn ask(server: &Server, name: &str, rtype: RecordType) -> Message {
    udp(server.address, &question(name, rtype)).await
}

/// The value of a series whose name and labels begin so.
fn metric(server: &Server, name: &str) -> u64 {
    let text = server.registry.encode();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn an_answer_is_had_once_and_given_in_the_form_of_each_client() {
    let resolver = Resolver::start(Protocol::UDP, |query| at_once(address(query, 60, 1))).await;
    let server = serve_as(to(&resolver, Cache::default())).await;
    let plain = question("www.Example.com.", RecordType::A);
    udp(server.address, &plain).await;
    for (asked, edns) in [
        (question("WWW.example.COM.", RecordType::A), false),
        (with_edns(question("www.example.com.", RecordType::A), 1232), true),
    ] {
        for reply in [
            udp(server.address, &asked).await,
            tcp(server.address, std::slice::from_ref(&asked)).await.remove(0),
        ] {
            assert_eq!(data(&reply), ["192.0.2.1"]);
            assert_eq!((reply.queries, reply.edns.is_some()), (asked.queries.clone(), edns));
            assert!(!reply.metadata.authoritative && reply.metadata.recursion_available);
            assert!(reply.metadata.recursion_desired && (59..=60).contains(&reply.answers[0].ttl));
        }
    }
    assert_eq!(resolver.asked(), 1);
    // signatures, and data that is not checked, are other answers
    let mut signed = plain.clone();
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true).set_max_payload(1232);
    signed.set_edns(edns);
    let mut unchecked = plain.clone();
    unchecked.metadata.checking_disabled = true;
    for (number, asked) in [signed, unchecked].iter().enumerate() {
        for _ in 0..2 {
            let reply = udp(server.address, asked).await;
            assert_eq!(reply.metadata.checking_disabled, asked.metadata.checking_disabled);
            assert_eq!(reply.edns.map(|edns| edns.flags().dnssec_ok), asked.edns.as_ref().map(|_| true));
            assert_eq!(resolver.asked(), 2 + number);
        }
    }
    ask(&server, "www.example.com.", RecordType::AAAA).await;
    assert_eq!(resolver.asked(), 4, "another type is another question");
    assert_eq!(metric(&server, "coredns_cache_hits_total"), 6);
    assert_eq!(metric(&server, "coredns_cache_misses_total"), 4);
    assert_eq!(metric(&server, "coredns_cache_requests_total"), 10);
    assert_eq!(metric(&server, "coredns_cache_entries"), 4);
}

#[tokio::test]
async fn an_answer_ends_and_its_time_counts_down() {
    let resolver = Resolver::start(Protocol::UDP, |query| at_once(address(query, 2, 1))).await;
    let server = serve_as(to(&resolver, Cache { max_ttl_seconds: 2, ..short() })).await;
    let (began, mut seen) = (Instant::now(), vec![]);
    while resolver.asked() < 2 {
        assert!(began.elapsed() < Duration::from_secs(4));
        let reply = ask(&server, "a.example.", RecordType::A).await;
        seen.push((reply.answers[0].ttl, began.elapsed()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(seen.iter().any(|(ttl, _)| *ttl == 1), "{seen:?}");
    assert!(began.elapsed() >= Duration::from_secs(2), "{seen:?}");
}

#[tokio::test]
async fn that_there_is_nothing_is_kept_as_long_as_the_zone_says() {
    let resolver =
        Resolver::start(Protocol::UDP, |query| match query.queries[0].name().to_ascii().as_str() {
            "long.example." => at_once(missing(query, 60)),
            "failed.example." => at_once(coded(query, ResponseCode::ServFail)),
            _ => at_once(coded(query, ResponseCode::NXDomain)),
        })
        .await;
    let server = serve_as(to(&resolver, Cache::default())).await;
    for (name, code, asked) in [
        ("long.example.", ResponseCode::NXDomain, 1),
        ("failed.example.", ResponseCode::ServFail, 1),
        ("nobody.example.", ResponseCode::NXDomain, 2),
    ] {
        let before = resolver.asked();
        for _ in 0..2 {
            let reply = ask(&server, name, RecordType::A).await;
            assert_eq!(reply.metadata.response_code, code, "{name}");
            assert!(name != "long.example." || (59..=60).contains(&reply.authorities[0].ttl));
        }
        assert_eq!(resolver.asked() - before, asked, "{name}");
    }
}

#[tokio::test]
async fn without_entries_nothing_is_kept() {
    let resolver = Resolver::start(Protocol::UDP, |query| at_once(address(query, 60, 1))).await;
    let server = serve_as(to(&resolver, Cache { max_entries: 0, ..Cache::default() })).await;
    for asked in 1..=3 {
        assert_eq!(ask(&server, "a.example.", RecordType::A).await.answers[0].ttl, 60);
        assert_eq!(resolver.asked(), asked);
    }
}

/// Many addresses: more than fit a datagram to a client without EDNS.
fn large(query: &Message) -> Message {
    let mut reply = address(query, 60, 0);
    let name = query.queries[0].name().clone();
    let record = |last| Record::from_rdata(name.clone(), 60, RData::A(A::new(192, 0, 2, last)));
    reply.answers = (1..=60).map(record).collect();
    reply
}

#[tokio::test]
async fn an_answer_is_cut_for_the_client_that_takes_no_more_and_for_nobody_else() {
    let resolver = Resolver::start(Protocol::UDP, |query| at_once(large(query))).await;
    let server = serve_as(to(&resolver, Cache::default())).await;
    let plain = question("big.example.", RecordType::A);
    for _ in 0..2 {
        let small = udp(server.address, &plain).await;
        assert!(small.metadata.truncation && (20..60).contains(&small.answers.len()));
        let whole = udp(server.address, &with_edns(plain.clone(), 1232)).await;
        assert_eq!((whole.answers.len(), whole.metadata.truncation), (60, false));
        let whole = tcp(server.address, std::slice::from_ref(&plain)).await.remove(0);
        assert_eq!((whole.answers.len(), whole.metadata.truncation), (60, false));
    }
    assert_eq!(resolver.asked(), 1);
}

#[tokio::test]
async fn an_answer_that_the_resolver_cut_is_not_kept() {
    let resolver = Resolver::start(Protocol::UDP, |query| {
        let mut reply = address(query, 60, 1);
        reply.metadata.truncation = true;
        // there is no other over a connection, either: nobody speaks TCP there
        at_once(reply)
    })
    .await;
    let server = serve_as(to(&resolver, Cache::default())).await;
    for _ in 0..2 {
        let before = resolver.asked();
        assert!(ask(&server, "a.example.", RecordType::A).await.metadata.truncation);
        assert!(resolver.asked() > before);
    }
}

#[tokio::test]
async fn equal_questions_at_a_time_are_one_to_the_resolver() {
    let resolver = Resolver::start(Protocol::UDP, |query| {
        Say::Message(address(query, 60, 1), Duration::from_millis(150))
    })
    .await;
    for cache in [Cache::default(), Cache { max_entries: 0, ..Cache::default() }] {
        let server = serve_as(to(&resolver, cache)).await;
        let before = resolver.asked();
        let replies = join_all((0..50).map(|_| ask(&server, "a.example.", RecordType::A))).await;
        assert!(replies.iter().all(|reply| data(reply) == ["192.0.2.1"]));
        assert_eq!(resolver.asked() - before, 1);
    }
}

#[tokio::test]
async fn a_name_outside_behind_a_service_is_kept_as_well() {
    let resolver = Resolver::start(Protocol::UDP, |query| at_once(address(query, 60, 1))).await;
    let server = serve_as(to(&resolver, Cache::default())).await;
    for _ in 0..2 {
        let reply = ask(&server, "out.shop.svc.cluster.local.", RecordType::A).await;
        assert_eq!(data(&reply), ["192.0.2.1", "www.example.com."]);
    }
    assert_eq!(data(&ask(&server, "www.example.com.", RecordType::A).await), ["192.0.2.1"]);
    assert_eq!(resolver.asked(), 1);
}

#[tokio::test]
async fn an_answer_that_is_asked_for_often_is_fetched_before_it_ends() {
    let resolver = Resolver::start(Protocol::UDP, |query| at_once(address(query, 2, 1))).await;
    let server = serve_as(to(&resolver, Cache { prefetch: true, max_ttl_seconds: 2, ..short() })).await;
    let began = Instant::now();
    while resolver.asked() < 4 {
        assert!(began.elapsed() < Duration::from_secs(10));
        ask(&server, "a.example.", RecordType::A).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        metric(&server, "coredns_cache_misses_total"),
        1,
        "nobody waited for the resolver but the first"
    );
    assert!(metric(&server, "coredns_cache_prefetch_total") >= 3);
    ask(&server, "once.example.", RecordType::A).await;
    let before = resolver.asked();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(resolver.asked(), before, "what nobody asks for is not fetched");
}

/// A resolver that says nothing any more once its state is set to 1, and SERVFAIL with 2.
async fn failing() -> (Resolver, Arc<AtomicUsize>) {
    let state: Arc<AtomicUsize> = Arc::default();
    let told = state.clone();
    let resolver = Resolver::start(Protocol::UDP, move |query| match told.load(Ordering::SeqCst) {
        0 => at_once(address(query, 60, 1)),
        1 => Say::Nothing,
        2 => at_once(coded(query, ResponseCode::ServFail)),
        _ => at_once(address(query, 60, 2)),
    })
    .await;
    (resolver, state)
}

#[tokio::test]
async fn an_answer_that_is_over_is_given_while_the_resolvers_fail() {
    for broken in [1, 2] {
        let (resolver, state) = failing().await;
        let server = serve_as(to(&resolver, short())).await;
        ask(&server, "a.example.", RecordType::A).await;
        state.store(broken, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let began = Instant::now();
        let reply = ask(&server, "a.example.", RecordType::A).await;
        assert_eq!((data(&reply), reply.answers[0].ttl), (vec!["192.0.2.1".to_owned()], 30));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let (began, asked) = (Instant::now(), resolver.asked());
        assert_eq!(data(&ask(&server, "a.example.", RecordType::A).await), ["192.0.2.1"]);
        assert!(began.elapsed() < Duration::from_millis(200), "nobody waits for them each time");
        // one that says nothing is probed meanwhile
        assert!(broken == 1 || resolver.asked() == asked, "they are not asked each time");
        assert_eq!(metric(&server, "coredns_cache_served_stale_total"), 2);
        let missing = ask(&server, "b.example.", RecordType::A).await;
        assert_eq!(missing.metadata.response_code, ResponseCode::ServFail, "what never was is not given");
    }
}

#[tokio::test]
async fn an_answer_that_is_over_is_not_given_while_the_resolvers_answer() {
    let (resolver, state) = failing().await;
    let server = serve_as(to(&resolver, short())).await;
    ask(&server, "a.example.", RecordType::A).await;
    state.store(3, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(data(&ask(&server, "a.example.", RecordType::A).await), ["192.0.2.2"]);
    assert_eq!(metric(&server, "coredns_cache_served_stale_total"), 0);
}

#[tokio::test]
async fn an_answer_that_is_over_can_be_given_at_once_and_the_next_is_new() {
    let (resolver, state) = failing().await;
    let serve_stale =
        ServeStale { mode: StaleMode::Immediate, response_ttl_seconds: 7, ..ServeStale::default() };
    let server = serve_as(to(&resolver, Cache { serve_stale, ..short() })).await;
    ask(&server, "a.example.", RecordType::A).await;
    state.store(3, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let reply = ask(&server, "a.example.", RecordType::A).await;
    assert_eq!((data(&reply), reply.answers[0].ttl), (vec!["192.0.2.1".to_owned()], 7));
    let began = Instant::now();
    while data(&ask(&server, "a.example.", RecordType::A).await) != ["192.0.2.2"] {
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    assert_eq!(resolver.asked(), 2);
}

#[tokio::test]
async fn an_answer_that_is_over_for_too_long_is_not_given() {
    let (resolver, state) = failing().await;
    let serve_stale = ServeStale { max_age_seconds: 0, ..ServeStale::default() };
    let server = serve_as(to(&resolver, Cache { serve_stale, ..short() })).await;
    ask(&server, "a.example.", RecordType::A).await;
    state.store(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let reply = ask(&server, "a.example.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn what_is_kept_outlives_a_change_and_a_smaller_cache_keeps_less() {
    let resolver = Resolver::start(Protocol::UDP, |query| at_once(address(query, 600, 1))).await;
    let server = serve_as(to(&resolver, Cache::default())).await;
    for number in 0..100 {
        ask(&server, &format!("n{number}.example."), RecordType::A).await;
    }
    let mut dns = to(&resolver, Cache::default());
    dns.forwarding.timeout_milliseconds = 777;
    dns.ttl_seconds = 9;
    server.change(dns);
    for entries in [10_000, 20_000] {
        server.change(to(&resolver, Cache { max_entries: entries, ..Cache::default() }));
        for number in 0..100 {
            ask(&server, &format!("n{number}.example."), RecordType::A).await;
        }
        assert_eq!((resolver.asked(), metric(&server, "coredns_cache_entries")), (100, 100));
    }
    server.change(to(&resolver, Cache { max_entries: 10, ..Cache::default() }));
    assert_eq!(metric(&server, "coredns_cache_entries"), 10);
    assert_eq!(metric(&server, "coredns_cache_evictions_total"), 90);
    server.change(to(&resolver, Cache { max_entries: 0, ..Cache::default() }));
    assert_eq!(metric(&server, "coredns_cache_entries"), 0);
}

#[tokio::test]
async fn a_flood_of_random_names_neither_fills_the_memory_nor_drops_the_names_in_use() {
    let resolver = Resolver::start(Protocol::UDP, |query| at_once(address(query, 600, 1))).await;
    let cache = Cache { max_entries: 200, ..Cache::default() };
    let server = serve_as(to(&resolver, cache)).await;
    for _ in 0..2 {
        ask(&server, "used.example.", RecordType::A).await;
    }
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.address).await.unwrap();
    let mut buffer = [0; 512];
    for number in 0..2000 {
        let packet = question(&format!("random{number}.example."), RecordType::A).to_vec().unwrap();
        socket.send(&packet).await.unwrap();
        socket.recv(&mut buffer).await.unwrap();
    }
    assert_eq!((resolver.asked(), metric(&server, "coredns_cache_entries")), (2001, 200));
    ask(&server, "used.example.", RecordType::A).await;
    assert_eq!(resolver.asked(), 2001, "it is still there");
}
