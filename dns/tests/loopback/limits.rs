//! What one client cannot take from the others. Each address of 127.0.0.0/8 is a client.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use netkeel_crds::cluster_network::dns::{Forwarding, StubDomain};
use netkeel_crds::cluster_network::{Dns, RateLimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{PATIENCE, Server, data, question, serve, serve_told, with_edns};
use crate::upstream::{Part, Upstream};

/// Without a datagram for so long, no other comes.
const SILENCE: Duration = Duration::from_millis(500);

async fn socket(client: u8, server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, client), 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket
}

async fn connect(client: u8, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 0, client), 0).into())?;
    socket.connect(server).await
}

/// Sends a question `count` times and gives what comes back, with the length of each.
async fn ask(socket: &UdpSocket, asked: &Message, count: usize) -> Vec<(Message, usize)> {
    let packet = asked.to_vec().unwrap();
    for _ in 0..count {
        socket.send(&packet).await.unwrap();
    }
    let (mut replies, mut buffer) = (vec![], [0; 2048]);
    while replies.len() < count {
        let Ok(length) = timeout(SILENCE, socket.recv(&mut buffer)).await else { break };
        let length = length.unwrap();
        replies.push((Message::from_vec(&buffer[..length]).unwrap(), length));
    }
    replies
}

/// Asks once on a connection.
async fn ask_stream(stream: &mut TcpStream, asked: &Message) -> io::Result<Message> {
    let packet = asked.to_vec().unwrap();
    let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, &packet[..]].concat()).await?;
    let mut reply = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut reply).await?;
    Ok(Message::from_vec(&reply).unwrap())
}

/// What a metric says.
fn metric(server: &Server, reason: &str) -> u64 {
    let line = format!("netkeel_dns_limited_total{{reason=\"{reason}\"}} ");
    let text = server.registry.encode();
    let value = text.lines().find_map(|have| have.strip_prefix(&line));
    value.unwrap_or_else(|| panic!("{line}is not in\n{text}")).parse().unwrap()
}

fn limited(queries_per_second: u32, burst: u32) -> Dns {
    Dns { rate_limit: RateLimit { queries_per_second, burst }, ..Dns::default() }
}

#[tokio::test]
async fn beyond_its_rate_a_client_is_sent_to_tcp_and_then_gets_nothing_and_others_have_their_own() {
    let server = serve_told(&[], limited(1, 20)).await;
    let asked = with_edns(question("many.shop.svc.cluster.local.", RecordType::A), 1232);
    let packet = asked.to_vec().unwrap();
    let (flood, good) = (socket(2, server.address).await, socket(3, server.address).await);
    let replies = ask(&flood, &asked, 100).await;
    let (answered, cut): (Vec<_>, Vec<_>) = replies.iter().partition(|(reply, _)| !reply.answers.is_empty());
    // A second or two may have gone by.
    assert!((20..25).contains(&answered.len()), "{}", answered.len());
    assert!((20..25).contains(&cut.len()), "{}", cut.len());
    for (reply, length) in &cut {
        assert!(reply.metadata.truncation && *length <= packet.len(), "no reply is longer than its question");
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    }
    assert_eq!(metric(&server, "rate"), cut.len() as u64);
    assert_eq!(metric(&server, "rate-dropped"), 100 - replies.len() as u64);
    assert_eq!(ask(&good, &asked, 10).await.len(), 10);
    // Who is sent to TCP is answered there.
    let mut stream = connect(2, server.address).await.unwrap();
    assert_eq!(ask_stream(&mut stream, &asked).await.unwrap().answers.len(), 200);
}

#[tokio::test]
async fn a_question_for_the_status_is_answered_beyond_the_rate_of_its_address() {
    let server = serve_told(&[], limited(1, 1)).await;
    let (flood, asked) =
        (socket(2, server.address).await, question("web.shop.svc.cluster.local.", RecordType::A));
    assert!(ask(&flood, &asked, 20).await.len() < 20);
    let agent = socket(2, server.address).await;
    for number in 0..20 {
        agent.send(&[0, number, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        let mut reply = [0; 16];
        let length = timeout(PATIENCE, agent.recv(&mut reply)).await.expect("a reply in time").unwrap();
        assert_eq!(reply[..length], [0, number, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}

#[tokio::test]
async fn beyond_its_rate_a_connection_waits_for_its_turn() {
    let server = serve_told(&[], limited(20, 2)).await;
    let asked = question("web.shop.svc.cluster.local.", RecordType::A);
    let (mut stream, began) = (connect(2, server.address).await.unwrap(), Instant::now());
    for _ in 0..10 {
        assert_eq!(data(&ask_stream(&mut stream, &asked).await.unwrap()), ["10.96.0.7"]);
    }
    assert!(began.elapsed() > Duration::from_millis(390), "{:?}", began.elapsed());
    // All but the first two, but for those that came late, as on a busy machine.
    assert!(metric(&server, "rate-waited") > 0);
    let mut other = connect(3, server.address).await.unwrap();
    let began = Instant::now();
    ask_stream(&mut other, &asked).await.unwrap();
    assert!(began.elapsed() < SILENCE);
}

#[tokio::test]
async fn a_client_with_too_many_questions_under_way_is_refused_and_others_are_asked_for() {
    let upstream = Upstream::start(Part::Silent).await;
    let mut dns = Dns::default();
    dns.forwarding.max_concurrent = 20;
    // What other resolvers may be asked makes no room at these.
    let others = vec!["127.0.0.1:9".parse().unwrap()];
    let forwarding = Forwarding { max_concurrent: 2000, ..dns.forwarding.clone() };
    dns.stub_domains = vec![StubDomain { zone: "corp.test".to_owned(), upstreams: others, forwarding }];
    let server = serve_told(&[upstream.address], dns).await;
    let (flood, good) = (socket(2, server.address).await, socket(3, server.address).await);
    for number in 0..30 {
        let asked = question(&format!("{number}.flood.example."), RecordType::A);
        flood.send(&asked.to_vec().unwrap()).await.unwrap();
    }
    let mut buffer = [0; 512];
    for _ in 0..20 {
        let length = timeout(PATIENCE, flood.recv(&mut buffer)).await.expect("a reply in time").unwrap();
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    }
    assert_eq!(metric(&server, "under-way"), 20);
    let before = upstream.asked();
    good.send(&question("good.example.", RecordType::A).to_vec().unwrap()).await.unwrap();
    let end = Instant::now() + Duration::from_millis(900); // before anything is asked a second time
    while upstream.asked() < 11 && Instant::now() < end {
        sleep(Duration::from_millis(5)).await;
    }
    assert!(upstream.asked() > before && upstream.asked() >= 11, "{}", upstream.asked());
    assert_eq!(metric(&server, "under-way"), 20, "the other client has room");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_flood_fills_the_queue_its_datagrams_are_lost_and_those_of_others_are_not() {
    let server = serve(&[]).await;
    let (address, asked) = (server.address, question("many.shop.svc.cluster.local.", RecordType::A));
    let stop = Arc::new(AtomicBool::new(false));
    let (packet, stopped) = (asked.to_vec().unwrap(), stop.clone());
    let flood = std::thread::spawn(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.2:0").unwrap();
        socket.connect(address).unwrap();
        while !stopped.load(Ordering::Relaxed) {
            let _ = socket.send(&packet);
        }
    });
    // The kernel divides them among the server's sockets, the flood has one of those.
    let mut others = vec![];
    for _ in 0..16 {
        others.push(socket(3, address).await);
    }
    let end = Instant::now() + PATIENCE;
    while metric(&server, "overload") == 0 {
        assert!(
            Instant::now() < end,
            "no overload is seen; {} datagrams had no room",
            metric(&server, "queue")
        );
        for other in &others {
            ask(other, &asked, 1).await;
        }
    }
    let mut answered = 0;
    for turn in 0..100 {
        answered += ask(&others[turn % others.len()], &asked, 1).await.len();
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    println!("{answered} of 100 are answered; {} are forgotten", metric(&server, "overload"));
    // The kernel may lose some while the server's thread has no processor; without all this it loses most.
    assert!(answered >= 90, "{answered} of 100");
    let (after, end) = (socket(2, address).await, Instant::now() + PATIENCE);
    while ask(&after, &asked, 1).await.is_empty() {
        assert!(Instant::now() < end, "a client that floods no more is held back");
    }
}

#[tokio::test]
async fn one_client_cannot_hold_all_connections() {
    let server = serve(&[]).await;
    let asked = question("web.shop.svc.cluster.local.", RecordType::A);
    let mut flood = vec![];
    for _ in 0..520 {
        flood.push(connect(2, server.address).await.unwrap());
    }
    let mut good = connect(3, server.address).await.unwrap();
    assert_eq!(data(&ask_stream(&mut good, &asked).await.unwrap()), ["10.96.0.7"]);
    // The oldest 20 gave way to the newest.
    for stream in &mut flood[..20] {
        let ended = timeout(PATIENCE, stream.read(&mut [0; 8])).await.expect("an end in time");
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    assert_eq!(metric(&server, "connections"), 20);
    for stream in &mut flood[20..] {
        assert_eq!(data(&ask_stream(stream, &asked).await.unwrap()), ["10.96.0.7"]);
    }
}

#[tokio::test]
async fn a_question_that_is_too_long_or_comes_too_slowly_ends_its_connection() {
    let server = serve(&[]).await;
    let mut long = connect(2, server.address).await.unwrap();
    long.write_all(&5000_u16.to_be_bytes()).await.unwrap();
    assert_eq!(timeout(SILENCE, long.read(&mut [0; 8])).await.expect("an end at once").unwrap(), 0);
    assert_eq!(metric(&server, "long"), 1);
    let (mut slow, began) = (connect(2, server.address).await.unwrap(), Instant::now());
    // A byte now and then does not help.
    let dripping = async {
        loop {
            if slow.write_all(&[1]).await.is_err() {
                break;
            }
            if let Ok(ended) = timeout(Duration::from_millis(200), slow.read(&mut [0; 8])).await {
                assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
                break;
            }
        }
    };
    timeout(PATIENCE, dripping).await.expect("an end in time");
    assert!(began.elapsed() > Duration::from_millis(1900) && began.elapsed() < Duration::from_secs(6));
    assert_eq!(metric(&server, "slow"), 1);
}
