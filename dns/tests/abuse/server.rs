//! The server under attack: this program, started again for one test alone. It tells its address, and its metrics on request, line by line.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record};
use netkeel_crds::cluster_network::{Dns, RateLimit};
use netkeel_dns::handler::Handler;
use netkeel_dns::live::{Base, Live};
use netkeel_dns::metrics::Metrics;
use netkeel_dns::server::Sockets;
use netkeel_dns::zone::{ObjectKey, Service, Settings, Slice, Zone};
use netkeel_telemetry::metrics::Registry;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// Questions a second that each client of a server may ask, with a limit and without.
pub(crate) const LIMITED: u32 = 400;
pub(crate) const UNLIMITED: u32 = 0;
/// Says that the test is to be the server until its standard input ends, and with which limit.
const ROLE: &str = "NETKEEL_DNS_ABUSE_SERVER";

/// A running server.
pub(crate) struct Child {
    pub(crate) address: SocketAddr,
    process: std::process::Child,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl Child {
    /// One that answers each client so many questions a second.
    pub(crate) fn start(limit: u32) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args(["--exact", "server::a_server_answers_in_this_process", "--nocapture"]);
        command.env(ROLE, limit.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the server");
        let requests = process.stdin.take().expect("its input");
        let mut replies = BufReader::new(process.stdout.take().expect("its output"));
        let address = said(&mut replies, "address ").parse().expect("an address");
        Self { address, process, requests, replies }
    }

    /// How often something was limited for this reason.
    pub(crate) fn limited(&mut self, reason: &str) -> u64 {
        writeln!(self.requests, "{reason}").expect("a request");
        said(&mut self.replies, "limited ").parse().expect("a number")
    }

    /// The most resident memory it has had, in KiB.
    pub(crate) fn most_resident(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Ends it by the end of its input.
    pub(crate) fn stop(self) {
        let Self { mut process, requests, .. } = self;
        drop(requests);
        assert!(process.wait().expect("its end").success());
    }
}

/// What the server says behind `what`; the test harness says things, too.
fn said(replies: &mut BufReader<ChildStdout>, what: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(replies.read_line(&mut line).expect("its output") > 0, "the server has ended");
        if let Some((_, said)) = line.trim_end().split_once(what) {
            return said.to_owned();
        }
    }
}

#[test]
fn a_server_answers_in_this_process() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let limit = std::env::var(ROLE).ok().map(|limit| limit.parse().expect("a limit"));
    let (address, registry) = runtime.block_on(serve(limit.unwrap_or(UNLIMITED)));
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.send_to(&crate::attack::packet(7, "www.good.example."), address).expect("a question");
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).expect("a reply");
    assert_eq!(Message::from_vec(&buffer[..length]).expect("a reply").answers.len(), 1);
    if limit.is_some() {
        println!("address {address}");
        tell(&registry);
    }
    runtime.shutdown_background();
}

async fn serve(queries_per_second: u32) -> (SocketAddr, Registry) {
    let resolver = UdpSocket::bind("127.0.0.1:0").await.expect("a resolver");
    let upstream = resolver.local_addr().expect("its address");
    tokio::spawn(resolve(resolver));
    let sockets = Sockets::bind("127.0.0.1:0".parse().expect("an address")).await.expect("sockets");
    let (address, registry) = (sockets.address().expect("its address"), Registry::new("dns", "0"));
    let metrics = Metrics::new(&registry, address, "cluster.local.");
    let zone = zone();
    let base = Base { settings: zone.settings().clone(), listen: vec![], of_node: vec![upstream] };
    let rate_limit = RateLimit { queries_per_second, burst: 0 };
    let mut dns = Dns { rate_limit, ..Dns::default() };
    dns.forwarding.max_concurrent = 200;
    let live = ArcSwap::from_pointee(Live::new(dns, &base, &metrics).expect("the options"));
    let handler = Handler::new(Arc::new(ArcSwap::from_pointee(zone)), Arc::new(live), metrics);
    tokio::spawn(sockets.serve(handler, CancellationToken::new()));
    (address, registry)
}

/// Tells what was limited for each reason that is asked for, to the end of the standard input.
fn tell(registry: &Registry) {
    for reason in std::io::stdin().lines() {
        let wanted = format!("netkeel_dns_limited_total{{reason=\"{}\"}} ", reason.expect("a line"));
        let text = registry.encode();
        println!("limited {}", text.lines().find_map(|line| line.strip_prefix(&wanted)).unwrap_or("0"));
    }
}

/// A resolver that says nothing to names below `flood.example`.
async fn resolve(socket: UdpSocket) {
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(mut message) = Message::from_vec(&buffer[..length]) else { continue };
        let name = message.queries[0].name().clone();
        if name.to_ascii().ends_with("flood.example.") {
            continue;
        }
        message.metadata.message_type = MessageType::Response;
        message.answers = vec![Record::from_rdata(name, 0, RData::A(A::new(192, 0, 2, 1)))];
        let _ = socket.send_to(&message.to_vec().expect("a reply"), client).await;
    }
}

fn zone() -> Zone {
    let settings = Settings::new(Name::from_ascii("cluster.local.").expect("a name"));
    let mut zone = Zone::new(settings, 1);
    let web = Service::ClusterIp { addresses: vec![[10, 96, 0, 7].into()], ports: vec![] };
    zone.put_service(&ObjectKey::new("shop", "web"), web);
    for (name, count) in [("many", 200_u32), ("huge", 4000)] {
        zone.put_service(&ObjectKey::new("shop", name), Service::Headless);
        let endpoints =
            (0..count).map(|index| (None, vec![std::net::Ipv4Addr::from(0x0a01_0000 + index).into()]));
        let slice = Slice { endpoints: endpoints.collect(), ports: vec![] };
        zone.put_slice(&ObjectKey::new("shop", &format!("{name}-1")), name, slice);
    }
    zone
}
