//! A resolver on loopback that answers as its part in a test demands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

/// How a resolver behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Part {
    /// Answers A with 192.0.2.1, and `missing.example.` with NXDOMAIN.
    Answer,
    /// Cuts every reply over UDP; over TCP there are 40 addresses.
    Cut,
    /// The same, without TCP.
    CutOnly,
    /// Says SERVFAIL.
    Fail,
    /// Says nothing.
    Silent,
    /// Sends replies to another question and with another id before the true one.
    Noisy,
}

/// A running resolver.
pub(crate) struct Upstream {
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Upstream {
    pub(crate) async fn start(part: Part) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut tasks = vec![tokio::spawn(datagrams(udp, part, asked.clone()))];
        if part == Part::Cut {
            tasks.push(tokio::spawn(connections(tcp)));
        }
        Self { address, asked, tasks }
    }

    /// How many questions came over UDP.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn datagrams(socket: UdpSocket, part: Part, asked: Arc<AtomicUsize>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        asked.fetch_add(1, Ordering::SeqCst);
        let query = Message::from_vec(&buffer[..length]).unwrap();
        for reply in replies(&query, part) {
            socket.send_to(&reply.to_vec().unwrap(), client).await.unwrap();
        }
    }
}

async fn connections(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await.unwrap();
        let reply = answer(&Message::from_vec(&query).unwrap(), 40).to_vec().unwrap();
        stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
        stream.write_all(&reply).await.unwrap();
    }
}

fn replies(query: &Message, part: Part) -> Vec<Message> {
    let good = answer(query, 1);
    match part {
        Part::Answer => vec![good],
        Part::Silent => vec![],
        Part::Fail => {
            let mut failure = answer(query, 0);
            failure.metadata.response_code = ResponseCode::ServFail;
            vec![failure]
        }
        Part::Cut | Part::CutOnly => {
            let mut cut = good;
            cut.metadata.truncation = true;
            vec![cut]
        }
        Part::Noisy => {
            let (mut other_id, mut other_name) = (answer(query, 9), answer(query, 9));
            other_id.metadata.id = query.metadata.id.wrapping_add(1);
            other_name.queries[0].set_name("evil.example.".parse().unwrap());
            vec![other_id, other_name, good]
        }
    }
}

fn answer(query: &Message, count: u8) -> Message {
    let mut reply = query.clone();
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.recursion_available = true;
    // as some resolvers do, the question comes back in lower case
    let name = query.queries[0].name().to_lowercase();
    reply.queries[0].set_name(name.clone());
    if name.to_ascii() == "missing.example." {
        reply.metadata.response_code = ResponseCode::NXDomain;
        return reply;
    }
    let record = |last| Record::from_rdata(name.clone(), 60, RData::A(A::new(192, 0, 2, last)));
    reply.answers = (1..=count).map(record).collect();
    reply
}
