//! A server with a zone of its own, and questions to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use netkeel_crds::cluster_network::Dns;
use netkeel_dns::handler::Handler;
use netkeel_dns::live::{Base, Live};
use netkeel_dns::metrics::Metrics;
use netkeel_dns::server::Sockets;
use netkeel_dns::zone::{ObjectKey, Port, Protocol, Service, Settings, Slice, Zone};
use netkeel_telemetry::metrics::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than the server may ever take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A running server. It stops when this is dropped.
pub(crate) struct Server {
    pub address: SocketAddr,
    pub registry: Registry,
    base: Base,
    metrics: Metrics,
    live: Arc<ArcSwap<Live>>,
    stop: CancellationToken,
}

impl Server {
    /// Tells the server something else, as a change of the ClusterNetwork does.
    pub(crate) fn change(&self, dns: Dns) {
        let next = self.live.load().next(dns, &self.base, &self.metrics);
        self.live.store(Arc::new(next.unwrap()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// Starts a server of a small cluster that forwards to `upstreams`.
pub(crate) async fn serve(upstreams: &[SocketAddr]) -> Server {
    serve_told(upstreams, Dns::default()).await
}

/// The same, as `dns` says.
pub(crate) async fn serve_as(dns: Dns) -> Server {
    serve_told(&[], dns).await
}

pub(crate) async fn serve_told(upstreams: &[SocketAddr], dns: Dns) -> Server {
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (handler, server) = handler_at(sockets.address().unwrap(), upstreams, dns);
    tokio::spawn(sockets.serve(handler, server.stop.clone()));
    server
}

/// A handler of the same cluster.
pub(crate) fn handler(upstreams: &[SocketAddr]) -> (Handler, Metrics, Registry) {
    let (handler, server) = handler_at(([127, 0, 0, 1], 0).into(), upstreams, Dns::default());
    (handler, server.metrics.clone(), server.registry.clone())
}

fn handler_at(address: SocketAddr, upstreams: &[SocketAddr], dns: Dns) -> (Handler, Server) {
    let registry = Registry::new("dns", "0");
    let metrics = Metrics::new(&registry, address, "cluster.local.");
    let zone = zone();
    let base = Base { settings: zone.settings().clone(), listen: vec![], of_node: upstreams.to_vec() };
    let live = Arc::new(ArcSwap::from_pointee(Live::new(dns, &base, &metrics).unwrap()));
    let handler = Handler::new(Arc::new(ArcSwap::from_pointee(zone)), live.clone(), metrics.clone());
    let stop = CancellationToken::new();
    (handler, Server { address, registry, base, metrics, live, stop })
}

fn zone() -> Zone {
    let settings = Settings {
        service_ranges: vec!["10.96.0.0/16".parse().unwrap()],
        ..Settings::new(name("cluster.local."))
    };
    let mut zone = Zone::new(settings, 1);
    let web = Port { name: "web".to_owned(), protocol: Protocol::Tcp, number: 80 };
    let services = [
        ("web", Service::ClusterIp { addresses: vec![[10, 96, 0, 7].into()], ports: vec![web] }),
        ("many", Service::Headless),
        ("out", Service::ExternalName(Some(name("www.example.com.")))),
        ("hop", Service::ExternalName(Some(name("web.shop.svc.cluster.local.")))),
        ("ring", Service::ExternalName(Some(name("ring.shop.svc.cluster.local.")))),
    ];
    for (name, service) in services {
        zone.put_service(&ObjectKey::new("shop", name), service);
    }
    let endpoints = (0..200).map(|last| (None, vec![[10, 1, 0, last].into()])).collect();
    zone.put_slice(&ObjectKey::new("shop", "many-1"), "many", Slice { endpoints, ports: vec![] });
    zone
}

pub(crate) fn question(text: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), rtype));
    message
}

pub(crate) fn with_edns(mut message: Message, size: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    message.set_edns(edns);
    message
}

/// Sends `packet` and gives the reply, or `None` after a second without one.
pub(crate) async fn send_udp(server: SocketAddr, packet: &[u8], patience: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(packet).await.unwrap();
    let mut buffer = [0; 4096];
    let length = timeout(patience, socket.recv(&mut buffer)).await.ok()?.unwrap();
    Some(buffer[..length].to_vec())
}

pub(crate) async fn udp(server: SocketAddr, question: &Message) -> Message {
    let reply = send_udp(server, &question.to_vec().unwrap(), PATIENCE).await.expect("a reply in time");
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.id, question.metadata.id);
    assert_eq!(reply.queries, question.queries);
    reply
}

/// Asks all `questions` on one connection.
pub(crate) async fn tcp(server: SocketAddr, questions: &[Message]) -> Vec<Message> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    for question in questions {
        let packet = question.to_vec().unwrap();
        stream.write_u16(u16::try_from(packet.len()).unwrap()).await.unwrap();
        stream.write_all(&packet).await.unwrap();
    }
    let mut replies = vec![];
    for question in questions {
        let length = timeout(PATIENCE, stream.read_u16()).await.expect("a reply in time").unwrap();
        let mut reply = vec![0; usize::from(length)];
        stream.read_exact(&mut reply).await.unwrap();
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.metadata.id, question.metadata.id);
        replies.push(reply);
    }
    replies
}

/// The data of the answer section, in order.
pub(crate) fn data(reply: &Message) -> Vec<String> {
    let mut data: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
    data.sort();
    data
}
