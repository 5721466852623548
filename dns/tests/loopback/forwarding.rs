//! Names of others, asked at resolvers that are good, cut, slow, dead or hostile.

use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::net::UdpSocket;

use crate::client::{data, question, serve, tcp, udp, with_edns};
use crate::upstream::{Part, Upstream};

#[tokio::test]
async fn other_names_are_asked_upstream_and_the_reply_is_relayed() {
    let upstream = Upstream::start(Part::Answer).await;
    let server = serve(&[upstream.address]).await;
    let asked = question("WWW.Example.com.", RecordType::A);
    for reply in
        [udp(server.address, &asked).await, tcp(server.address, std::slice::from_ref(&asked)).await.remove(0)]
    {
        assert_eq!(data(&reply), ["192.0.2.1"]);
        assert!(!reply.metadata.authoritative);
    }
    let missing = udp(server.address, &question("missing.example.", RecordType::A)).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    let outside = udp(server.address, &question("1.2.0.192.in-addr.arpa.", RecordType::PTR)).await;
    assert_eq!(outside.metadata.response_code, ResponseCode::NoError);
    let asked_before = upstream.asked();
    let inside = udp(server.address, &question("99.0.96.10.in-addr.arpa.", RecordType::PTR)).await;
    assert_eq!((inside.metadata.response_code, upstream.asked()), (ResponseCode::NXDomain, asked_before));
}

#[tokio::test]
async fn a_name_outside_behind_a_service_comes_with_its_addresses() {
    let upstream = Upstream::start(Part::Answer).await;
    let server = serve(&[upstream.address]).await;
    let reply = udp(server.address, &question("out.shop.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(data(&reply), ["192.0.2.1", "www.example.com."]);
    assert!(reply.metadata.authoritative, "the alias is the cluster's own");
    let dead = serve(&[]).await;
    let reply = udp(dead.address, &question("out.shop.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(
        reply.metadata.response_code,
        ResponseCode::ServFail,
        "half an answer would read as no address"
    );
    assert!(!reply.metadata.authoritative);
}

#[tokio::test]
async fn a_reply_that_was_cut_is_fetched_over_tcp_and_fitted_to_the_client() {
    let upstream = Upstream::start(Part::Cut).await;
    let server = serve(&[upstream.address]).await;
    let plain = question("big.example.", RecordType::A);
    let small = udp(server.address, &plain).await;
    assert!(small.metadata.truncation && small.answers.len() > 20, "{}", small.answers.len());
    let large = udp(server.address, &with_edns(plain.clone(), 1232)).await;
    assert_eq!((large.answers.len(), large.metadata.truncation), (40, false));
    assert_eq!(tcp(server.address, &[plain]).await[0].answers.len(), 40);

    let stubborn = Upstream::start(Part::CutOnly).await;
    let server = serve(&[stubborn.address]).await;
    let reply = udp(server.address, &question("big.example.", RecordType::A)).await;
    assert_eq!((reply.answers.len(), reply.metadata.truncation), (1, true));
}

#[tokio::test]
async fn replies_to_other_questions_are_not_taken() {
    let upstream = Upstream::start(Part::Noisy).await;
    let server = serve(&[upstream.address]).await;
    assert_eq!(data(&udp(server.address, &question("a.example.", RecordType::A)).await), ["192.0.2.1"]);
}

#[tokio::test]
async fn dead_resolvers_end_in_servfail_in_bounded_time() {
    let silent = Upstream::start(Part::Silent).await;
    let closed = Upstream::start(Part::Silent).await.address; // dropped at once: nobody listens there
    for (upstreams, seconds) in [(vec![silent.address], 4.5), (vec![closed], 1.0), (vec![], 1.0)] {
        let server = serve(&upstreams).await;
        let started = Instant::now();
        let reply = udp(server.address, &question("a.example.", RecordType::A)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        assert!(started.elapsed().as_secs_f64() < seconds, "{upstreams:?}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_good_resolver_answers_for_one_that_is_dead_or_refuses() {
    let good = Upstream::start(Part::Answer).await;
    for part in [Part::Silent, Part::Fail] {
        let bad = Upstream::start(part).await;
        let server = serve(&[bad.address, good.address]).await;
        for number in 0..8 {
            let asked = question(&format!("a{number}.example."), RecordType::A);
            assert_eq!(data(&udp(server.address, &asked).await), ["192.0.2.1"]);
        }
        assert!(part == Part::Fail || bad.asked() <= 3, "a silent resolver was asked {} times", bad.asked());
    }
    let bad = Upstream::start(Part::Fail).await;
    let server = serve(&[bad.address]).await;
    let reply = udp(server.address, &question("a.example.", RecordType::A)).await;
    assert_eq!((reply.metadata.response_code, bad.asked()), (ResponseCode::ServFail, 1));
}

#[tokio::test]
async fn cluster_names_do_not_wait_for_silent_resolvers() {
    let silent = Upstream::start(Part::Silent).await;
    let server = serve(&[silent.address]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.address).await.unwrap();
    let packet = question("a.example.", RecordType::A).to_vec().unwrap();
    let (mut refused, mut buffer) = (0, [0; 512]);
    let mut count = || {
        while socket.try_recv(&mut buffer).is_ok() {
            refused +=
                usize::from(buffer[3] & 0x0f == u8::try_from(u16::from(ResponseCode::Refused)).unwrap());
        }
        refused
    };
    for burst in 0..55 {
        for _ in 0..20 {
            socket.send(&packet).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(1 + burst % 2)).await;
        count();
    }
    let started = Instant::now();
    let own = question("web.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(data(&udp(server.address, &own).await), ["10.96.0.7"]);
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    while count() < 600 {
        tokio::time::timeout(Duration::from_secs(5), socket.readable()).await.expect("a reply").unwrap();
    }
    assert_eq!(count(), 600, "one client may have 500 of 1000 under way");
}
