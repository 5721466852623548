//! Resolvers over each protocol, good ones and others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use netkeel_crds::cluster_network::Dns;
use netkeel_crds::cluster_network::dns::{Cache, Forwarding, Policy, Protocol, StubDomain};

use crate::client::{Server, data, question, serve_as, udp};
use crate::resolver::{Resolver, Say, address, at_once, coded};

const ALL: [Protocol; 4] = [Protocol::UDP, Protocol::TCP, Protocol::TLS, Protocol::HTTPS];
const STREAMS: [Protocol; 3] = [Protocol::TCP, Protocol::TLS, Protocol::HTTPS];

fn no_cache() -> Cache {
    Cache { max_entries: 0, ..Cache::default() }
}

/// Sends everything outside the cluster to `resolvers`, and keeps nothing.
fn to(resolvers: &[&Resolver]) -> Dns {
    Dns {
        upstreams: resolvers.iter().map(|resolver| resolver.address.into()).collect(),
        forwarding: resolvers[0].forwarding.clone(),
        cache: no_cache(),
        ..Dns::default()
    }
}

async fn ask(server: &Server, name: &str) -> Message {
    udp(server.address, &question(name, RecordType::A)).await
}

async fn code(server: &Server, name: &str) -> ResponseCode {
    ask(server, name).await.metadata.response_code
}

/// The number in a name such as `n7.example.`.
fn number(query: &Message) -> u8 {
    let name = query.queries[0].name().to_ascii();
    name.trim_start_matches('n').split('.').next().unwrap().parse().unwrap_or(0)
}

#[tokio::test]
async fn each_protocol_carries_many_questions_at_a_time_on_few_connections() {
    for protocol in ALL {
        // those that come first are answered last
        let resolver = Resolver::start(protocol, |query| {
            let late = u64::from(60 - number(query));
            Say::Message(address(query, 60, number(query)), Duration::from_millis(late))
        })
        .await;
        let server = serve_as(to(&[&resolver])).await;
        let asks = (0..60).map(|number| {
            let server = &server;
            async move {
                let reply = ask(server, &format!("n{number}.example.")).await;
                assert_eq!(data(&reply), [format!("192.0.2.{number}")], "{protocol:?}");
            }
        });
        join_all(asks).await;
        ask(&server, "n1.example.").await;
        assert_eq!(resolver.asked(), 61);
        let expected = if protocol == Protocol::UDP { 0..=0 } else { 1..=4 };
        assert!(expected.contains(&resolver.connections()), "{protocol:?}: {}", resolver.connections());
    }
}

#[tokio::test]
async fn a_connection_that_the_resolver_has_closed_is_opened_again() {
    for protocol in STREAMS {
        let resolver = Resolver::start(protocol, |query| at_once(address(query, 60, 1))).await;
        let server = serve_as(to(&[&resolver])).await;
        assert_eq!(code(&server, "a.example.").await, ResponseCode::NoError);
        let (address_of, forwarding) = (resolver.address, resolver.forwarding.clone());
        drop(resolver);
        let again = loop {
            // the old one's port is free once its task has ended
            if let Ok(socket) = tokio::net::TcpListener::bind(address_of).await {
                drop(socket);
                break Resolver::start_at(address_of, protocol, "dns.example", |query| {
                    at_once(address(query, 60, 2))
                })
                .await;
            }
            tokio::task::yield_now().await;
        };
        // over TLS it has another certificate now, of another authority
        let same = Dns {
            forwarding: Forwarding {
                ca_certificates: again.forwarding.ca_certificates.clone(),
                ..forwarding
            },
            ..to(&[&again])
        };
        server.change(same);
        assert_eq!(data(&ask(&server, "b.example.").await), ["192.0.2.2"], "{protocol:?}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_with_a_question_under_way_is_no_failure_of_the_resolver() {
    for protocol in [Protocol::TCP, Protocol::TLS] {
        let seen = AtomicUsize::new(0);
        let resolver = Resolver::start(protocol, move |query| match seen.fetch_add(1, Ordering::SeqCst) {
            1 => Say::Half,
            _ => at_once(address(query, 60, 1)),
        })
        .await;
        let server = serve_as(to(&[&resolver])).await;
        for name in ["a.example.", "b.example."] {
            assert_eq!(data(&ask(&server, name).await), ["192.0.2.1"], "{protocol:?} {name}");
        }
        assert_eq!((resolver.asked(), resolver.connections()), (3, 2), "{protocol:?}");
        assert!(!server.registry.encode().contains("netkeel_dns_upstream_failures_total{"), "{protocol:?}");
    }
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let mut left = vec![];
    for protocol in STREAMS {
        let resolver = Resolver::start(protocol, |query| at_once(address(query, 60, 1))).await;
        let server = serve_as(to(&[&resolver])).await;
        ask(&server, "a.example.").await;
        left.push(async move {
            let began = Instant::now();
            resolver.is_left().await;
            let idle = began.elapsed().as_secs_f64();
            assert!((9.0..22.0).contains(&idle), "{protocol:?}: {idle} s");
            assert_eq!(data(&ask(&server, "b.example.").await), ["192.0.2.1"]);
            assert_eq!(resolver.connections(), 2);
        });
    }
    join_all(left).await;
}

#[tokio::test]
async fn a_resolver_with_another_name_or_authority_is_not_believed() {
    for protocol in [Protocol::TLS, Protocol::HTTPS] {
        let answer = |query: &Message| at_once(address(query, 60, 1));
        let impostor =
            Resolver::start_at("127.0.0.1:0".parse().unwrap(), protocol, "other.example", answer).await;
        let server = serve_as(to(&[&impostor])).await;
        assert_eq!(code(&server, "a.example.").await, ResponseCode::ServFail, "{protocol:?}");
        let unknown = Resolver::start(protocol, answer).await;
        let mut dns = to(&[&unknown]);
        for authorities in [impostor.forwarding.ca_certificates.clone(), None] {
            dns.forwarding.ca_certificates = authorities;
            server.change(dns.clone());
            assert_eq!(code(&server, "a.example.").await, ResponseCode::ServFail, "{protocol:?}");
        }
        assert_eq!((impostor.asked(), unknown.asked()), (0, 0), "they were told nothing");
    }
}

#[tokio::test]
async fn half_a_reply_garbage_and_replies_to_other_questions_are_no_answers() {
    for protocol in ALL {
        let liar = |query: &Message| match number(query) {
            1 => Say::Half,
            2 => Say::Bytes(vec![7; 9]),
            3 => Say::Bytes(vec![7; 900]),
            4 => {
                let mut other = address(query, 60, 66);
                other.queries[0].set_name("evil.example.".parse().unwrap());
                at_once(other)
            }
            5 => {
                let mut other = address(query, 60, 66);
                other.metadata.id = query.metadata.id.wrapping_add(1);
                at_once(other)
            }
            6 => {
                // the record is longer than the message
                let mut bytes = address(query, 60, 66).to_vec().unwrap();
                bytes.truncate(bytes.len() - 2);
                Say::Bytes(bytes)
            }
            _ => at_once(address(query, 60, 1)),
        };
        let resolver = Resolver::start(protocol, liar).await;
        let server = serve_as(to(&[&resolver])).await;
        for number in 1..=6 {
            let reply = ask(&server, &format!("n{number}.example.")).await;
            assert_eq!(reply.metadata.response_code, ResponseCode::ServFail, "{protocol:?} {number}");
        }
        assert_eq!(data(&ask(&server, "n0.example.").await), ["192.0.2.1"], "{protocol:?} afterwards");
    }
}

#[tokio::test]
async fn a_resolver_that_comes_back_is_asked_again_within_a_second() {
    for protocol in [Protocol::UDP, Protocol::TLS] {
        let up = Arc::new(AtomicUsize::new(0));
        let state = up.clone();
        let first = Resolver::start(protocol, move |query| match state.load(Ordering::SeqCst) {
            0 => Say::Nothing,
            _ => at_once(address(query, 60, 1)),
        })
        .await;
        let second = Resolver::start(protocol, |query| at_once(address(query, 60, 2))).await;
        let mut dns = to(&[&first, &second]);
        dns.forwarding.policy = Policy::Sequential;
        // each has an authority of its own
        let authorities =
            [&first, &second].map(|one| one.forwarding.ca_certificates.clone().unwrap_or_default());
        dns.forwarding.ca_certificates = (protocol == Protocol::TLS).then(|| authorities.concat());
        let server = serve_as(dns).await;
        for _ in 0..2 {
            assert_eq!(data(&ask(&server, "a.example.").await), ["192.0.2.2"]);
        }
        let began = Instant::now();
        assert_eq!(data(&ask(&server, "a.example.").await), ["192.0.2.2"]);
        assert!(began.elapsed() < Duration::from_millis(250), "it rests: {:?}", began.elapsed());
        let counted = format!(
            "coredns_proxy_healthcheck_failures_total{{proxy_name=\"forward\",to=\"{}\"}}",
            first.address
        );
        while !server.registry.encode().contains(&counted) {
            assert!(began.elapsed() < Duration::from_secs(5), "no probe has failed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        up.store(1, Ordering::SeqCst);
        let began = Instant::now();
        while data(&ask(&server, "a.example.").await) != ["192.0.2.1"] {
            assert!(began.elapsed() < Duration::from_secs(1), "{protocol:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn resolvers_that_all_rest_are_asked_all_the_same() {
    let up = Arc::new(AtomicUsize::new(0));
    let state = up.clone();
    let resolver = Resolver::start(Protocol::UDP, move |query| {
        // probes are never answered, so that nothing but a question can find it well
        match (state.load(Ordering::SeqCst), query.queries[0].query_type()) {
            (1, RecordType::A) => at_once(address(query, 60, 1)),
            _ => Say::Nothing,
        }
    })
    .await;
    let server = serve_as(to(&[&resolver])).await;
    assert_eq!(code(&server, "a.example.").await, ResponseCode::ServFail);
    up.store(1, Ordering::SeqCst);
    assert_eq!(data(&ask(&server, "b.example.").await), ["192.0.2.1"]);
    assert!(server.registry.encode().contains("coredns_forward_healthcheck_broken_total 1"));
}

#[tokio::test]
async fn the_policy_and_the_codes_that_are_told_say_who_answers() {
    let resolver = |last| {
        Resolver::start(Protocol::UDP, move |query| match number(query) {
            9 if last == 1 => at_once(coded(query, ResponseCode::NXDomain)),
            8 if last == 1 => at_once(coded(query, ResponseCode::ServFail)),
            _ => at_once(address(query, 60, last)),
        })
    };
    let (first, second) = (resolver(1).await, resolver(2).await);
    let mut dns = to(&[&first, &second]);
    dns.forwarding.policy = Policy::Sequential;
    let server = serve_as(dns.clone()).await;
    for _ in 0..3 {
        assert_eq!(data(&ask(&server, "n1.example.").await), ["192.0.2.1"]);
    }
    assert_eq!(code(&server, "n9.example.").await, ResponseCode::NXDomain);
    assert_eq!(data(&ask(&server, "n8.example.").await), ["192.0.2.2"]);
    dns.forwarding.failover = vec![netkeel_crds::cluster_network::dns::ResponseCode::NXDomain];
    server.change(dns.clone());
    assert_eq!(data(&ask(&server, "n9.example.").await), ["192.0.2.2"]);
    assert_eq!(code(&server, "n8.example.").await, ResponseCode::ServFail);
    dns.forwarding.policy = Policy::RoundRobin;
    server.change(dns);
    let before = (first.asked(), second.asked());
    for _ in 0..10 {
        ask(&server, "n1.example.").await;
    }
    assert_eq!((first.asked() - before.0, second.asked() - before.1), (5, 5));
}

#[tokio::test]
async fn the_longest_stub_domain_has_its_own_resolvers() {
    let resolver = |last| Resolver::start(Protocol::UDP, move |query| at_once(address(query, 60, last)));
    let (all, corp, eu) = (resolver(1).await, resolver(2).await, resolver(3).await);
    let stub = |zone: &str, resolver: &Resolver| StubDomain {
        zone: zone.to_owned(),
        upstreams: vec![resolver.address.into()],
        forwarding: Forwarding::default(),
    };
    let stubs = vec![stub("corp.example", &corp), stub("eu.corp.example", &eu)];
    // the cache is on: each name has its own entry, whoever answered
    let server = serve_as(Dns { stub_domains: stubs, cache: Cache::default(), ..to(&[&all]) }).await;
    for (name, last) in [
        ("example.", 1),
        ("notcorp.example.", 1),
        ("corp.example.", 2),
        ("A.Corp.Example.", 2),
        ("eu.corp.example.", 3),
        ("x.y.EU.corp.example.", 3),
    ] {
        assert_eq!(data(&ask(&server, name).await), [format!("192.0.2.{last}")], "{name}");
    }
    server.change(Dns { cache: Cache::default(), ..to(&[&all]) });
    assert_eq!(
        data(&ask(&server, "corp.example.").await),
        ["192.0.2.1"],
        "the old zone's answers are not its own"
    );
    assert_eq!(all.asked(), 3);
    assert_eq!(data(&ask(&server, "example.").await), ["192.0.2.1"]);
    assert_eq!(all.asked(), 3, "what it said itself is still kept");
}

#[tokio::test]
async fn more_questions_than_are_allowed_are_refused_and_counted() {
    let resolver = Resolver::start(Protocol::UDP, |query| {
        Say::Message(address(query, 60, 1), Duration::from_millis(200))
    })
    .await;
    let mut dns = to(&[&resolver]);
    // One client may take as many as are free: two of three. What others may be asked is theirs.
    let forwarding = Forwarding { max_concurrent: 3, ..dns.forwarding.clone() };
    dns.stub_domains =
        vec![StubDomain { zone: "example".to_owned(), upstreams: dns.upstreams.clone(), forwarding }];
    let server = serve_as(dns).await;
    let asks = (0..5).map(|number| {
        let server = &server;
        async move { code(server, &format!("n{number}.example.")).await }
    });
    let codes = join_all(asks).await;
    let count = |wanted| codes.iter().filter(|code| **code == wanted).count();
    assert_eq!((count(ResponseCode::NoError), count(ResponseCode::Refused)), (2, 3));
    assert!(server.registry.encode().contains("coredns_forward_max_concurrent_rejects_total 3"));
}

#[tokio::test]
async fn questions_under_way_outlive_a_change() {
    for protocol in ALL {
        let slow = Resolver::start(protocol, |query| {
            Say::Message(address(query, 60, 1), Duration::from_millis(200))
        })
        .await;
        let other = Resolver::start(Protocol::UDP, |query| at_once(address(query, 60, 2))).await;
        let server = serve_as(to(&[&slow])).await;
        let asks = join_all((0..20).map(|number| {
            let server = &server;
            async move { data(&ask(server, &format!("n{number}.example.")).await) }
        }));
        let change = async {
            while slow.asked() < 20 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            server.change(to(&[&other]));
            data(&ask(&server, "later.example.").await)
        };
        let (before, after) = futures::join!(asks, change);
        assert!(before.iter().all(|data| data == &["192.0.2.1"]), "{protocol:?}: {before:?}");
        assert_eq!(after, ["192.0.2.2"]);
    }
}

#[tokio::test]
async fn a_resolver_that_does_not_know_edns_is_asked_without() {
    let resolver = Resolver::start(Protocol::UDP, |query| match query.edns {
        Some(_) => at_once(coded(query, ResponseCode::FormErr)),
        None => at_once(address(query, 60, 1)),
    })
    .await;
    let server = serve_as(to(&[&resolver])).await;
    assert_eq!(data(&ask(&server, "a.example.").await), ["192.0.2.1"]);
}
