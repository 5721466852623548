//! Names of the cluster, and packets that are none.

use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::client::{PATIENCE, data, question, send_udp, serve, tcp, udp, with_edns};

#[tokio::test]
async fn cluster_names_are_answered_over_both_transports_in_the_case_of_the_question() {
    let server = serve(&[]).await;
    let asked = question("WeB.shop.SVC.cluster.local.", RecordType::A);
    for reply in
        [udp(server.address, &asked).await, tcp(server.address, std::slice::from_ref(&asked)).await.remove(0)]
    {
        assert_eq!(data(&reply), ["10.96.0.7"]);
        assert_eq!(reply.answers[0].name.to_ascii(), "WeB.shop.SVC.cluster.local.");
        assert!(reply.metadata.authoritative && reply.metadata.recursion_available && reply.edns.is_none());
    }
    let nodata = udp(server.address, &question("web.shop.svc.cluster.local.", RecordType::AAAA)).await;
    assert_eq!((nodata.metadata.response_code, nodata.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(nodata.authorities[0].record_type(), RecordType::SOA);
    let missing = udp(server.address, &question("ghost.shop.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
}

#[tokio::test]
async fn an_answer_too_large_for_a_datagram_is_cut_and_whole_over_tcp() {
    let server = serve(&[]).await;
    let plain = question("many.shop.svc.cluster.local.", RecordType::A);
    for (asked, limit) in
        [(plain.clone(), 512), (with_edns(plain.clone(), 4096), 1232), (with_edns(plain.clone(), 0), 512)]
    {
        let packet = send_udp(server.address, &asked.to_vec().unwrap(), PATIENCE).await.unwrap();
        let reply = Message::from_vec(&packet).unwrap();
        assert!(
            reply.metadata.truncation && packet.len() <= limit && packet.len() > limit - 40,
            "{}",
            packet.len()
        );
        assert_eq!(reply.edns.is_some(), asked.edns.is_some());
    }
    for asked in [plain.clone(), with_edns(plain, 512)] {
        let reply = tcp(server.address, std::slice::from_ref(&asked)).await.remove(0);
        assert_eq!((reply.answers.len(), reply.metadata.truncation), (200, false));
    }
}

#[tokio::test]
async fn one_connection_carries_many_questions() {
    let server = serve(&[]).await;
    let questions: Vec<_> =
        (0..100).map(|_| question("web.shop.svc.cluster.local.", RecordType::A)).collect();
    let replies = tcp(server.address, &questions).await;
    assert!(replies.iter().all(|reply| data(reply) == ["10.96.0.7"]));
}

#[tokio::test]
async fn pairs_of_questions_from_one_socket_are_all_answered() {
    let server = serve(&[]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.address).await.unwrap();
    let mut buffer = [0; 2048];
    for _ in 0..500 {
        for rtype in [RecordType::A, RecordType::AAAA] {
            socket.send(&question("web.shop.svc.cluster.local.", rtype).to_vec().unwrap()).await.unwrap();
        }
        for _ in 0..2 {
            tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut buffer))
                .await
                .expect("no lost reply")
                .unwrap();
        }
    }
}

#[tokio::test]
async fn aliases_within_the_cluster_are_followed_and_rings_end() {
    let server = serve(&[]).await;
    let reply = udp(server.address, &question("hop.shop.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(data(&reply), ["10.96.0.7", "web.shop.svc.cluster.local."]);
    let alone = udp(server.address, &question("hop.shop.svc.cluster.local.", RecordType::CNAME)).await;
    assert_eq!(data(&alone), ["web.shop.svc.cluster.local."]);
    let ring = udp(server.address, &question("ring.shop.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(ring.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn damaged_packets_get_an_error_or_nothing_and_the_server_goes_on() {
    let server = serve(&[]).await;
    let good = question("web.shop.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    let reply = send_udp(server.address, &good[..good.len() - 2], PATIENCE).await.unwrap();
    assert_eq!(Message::from_vec(&reply).unwrap().metadata.response_code, ResponseCode::FormErr);
    let silent = Duration::from_millis(100);
    assert_eq!(send_udp(server.address, &good[..5], silent).await, None);
    assert_eq!(send_udp(server.address, &[], silent).await, None);
    let reply = send_udp(server.address, &good, PATIENCE).await.unwrap();
    assert_eq!(send_udp(server.address, &reply, silent).await, None, "a reply is never answered");

    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&[0, 3, 1, 2, 3]).await.unwrap();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "nonsense ends a connection");
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(&[0, 30, 1]).await.unwrap();
    half.shutdown().await.unwrap();
    assert_eq!(half.read(&mut [0; 16]).await.unwrap(), 0);

    assert_eq!(
        data(&udp(server.address, &question("web.shop.svc.cluster.local.", RecordType::A)).await),
        ["10.96.0.7"]
    );
}

#[tokio::test]
async fn questions_are_counted_as_dashboards_expect() {
    let server = serve(&[]).await;
    udp(server.address, &question("web.shop.svc.cluster.local.", RecordType::A)).await;
    udp(server.address, &question("ghost.shop.svc.cluster.local.", RecordType::AAAA)).await;
    let text = server.registry.encode();
    let own = format!("server=\"dns://{}\",zone=\"cluster.local.\",view=\"\"", server.address);
    for line in [
        format!("coredns_dns_requests_total{{{own},proto=\"udp\",family=\"1\",type=\"A\"}} 1"),
        format!("coredns_dns_responses_total{{{own},rcode=\"NXDOMAIN\",plugin=\"kubernetes\"}} 1"),
        format!("coredns_dns_request_duration_seconds_count{{{own},type=\"AAAA\"}} 1"),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn zones_are_not_transferred_and_aliases_in_a_ring_have_no_answer() {
    let server = serve(&[]).await;
    for (name, rtype, code) in [
        ("cluster.local.", RecordType::AXFR, ResponseCode::Refused),
        ("cluster.local.", RecordType::IXFR, ResponseCode::Refused),
        ("ring.shop.svc.cluster.local.", RecordType::A, ResponseCode::ServFail),
    ] {
        let reply = tcp(server.address, &[question(name, rtype)]).await.remove(0);
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (code, 0), "{name} {rtype}");
        assert!(!reply.metadata.authoritative, "that is no answer of the zone's");
    }
}
