//! What 127.0.0.2 does to a server until it is told to stop, ten times as fast as all usual clients together ask, or as fast as it can.

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

/// Datagrams each [`TICK`]: ten times 1250 a second.
const DATAGRAMS: usize = 25;
const TICK: Duration = Duration::from_millis(2);

/// A question for an A record.
pub(crate) fn packet(id: u16, name: &str) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), RecordType::A));
    message.to_vec().expect("a packet")
}

fn flood(server: SocketAddr, stop: &AtomicBool, packet: impl Fn(u16) -> Vec<u8>) {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).expect("a socket");
    socket.connect(server).expect("the server");
    let mut number = 0_u16;
    while !stop.load(Relaxed) {
        for _ in 0..DATAGRAMS {
            number = number.wrapping_add(1);
            let _ = socket.send(&packet(number));
        }
        std::thread::sleep(TICK);
    }
}

/// Questions that have an answer.
pub(crate) fn datagrams(server: SocketAddr, stop: &AtomicBool) {
    flood(server, stop, |number| packet(number, "many.shop.svc.cluster.local."));
}

/// Names that point at themselves, too much, too little, nothing.
pub(crate) fn nonsense(server: SocketAddr, stop: &AtomicBool) {
    let good = packet(7, "web.shop.svc.cluster.local.");
    let looped = [&good[..12], &[0xc0, 12, 0, 1, 0, 1]].concat();
    let all = [looped, vec![0xff; 9000], good[..20].to_vec(), vec![], vec![0; 12]];
    flood(server, stop, |number| all[usize::from(number) % all.len()].clone());
}

/// Another name each time, at a resolver that says nothing to them.
pub(crate) fn random_names(server: SocketAddr, stop: &AtomicBool) {
    flood(server, stop, |number| packet(number, &format!("{number}.flood.example.")));
}

fn open(server: SocketAddr) -> Option<TcpStream> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let own = SockaddrStorage::from(SocketAddr::from(([127, 0, 0, 2], 0)));
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &own).ok()?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrStorage::from(server)).ok()?;
    Some(TcpStream::from(socket))
}

/// As many connections as there can be, with half a question on each.
pub(crate) fn connections(server: SocketAddr, stop: &AtomicBool) {
    let mut all = std::collections::VecDeque::new();
    while !stop.load(Relaxed) {
        if let Some(mut stream) = open(server) {
            let _ = stream.write_all(&[0, 30, 1]);
            all.push_back(stream);
        }
        if all.len() > 1500 {
            all.pop_front();
        }
        std::thread::sleep(TICK / 4);
    }
}

/// Connections that ask for 64 KiB again and again and read none of it.
pub(crate) fn long_replies(server: SocketAddr, stop: &AtomicBool) {
    let question = packet(7, "huge.shop.svc.cluster.local.");
    let length = u16::try_from(question.len()).expect("a short question").to_be_bytes();
    let questions = [&length[..], &question].concat().repeat(20);
    let mut all = vec![];
    while !stop.load(Relaxed) {
        if all.len() < 450
            && let Some(mut stream) = open(server)
        {
            stream.set_nonblocking(true).expect("a socket");
            match stream.write_all(&questions) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => {}
                _ => all.push(stream),
            }
        }
        std::thread::sleep(TICK / 2);
    }
}
