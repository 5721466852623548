//! A flow that policy forbids, tried again and again over TCP and UDP: every success is counted. Refusals and silence
//! are what it hopes for.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::Result;
use crate::flags::{Deadline, Flags};
use crate::json::Value;

pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let target = flags.target()?;
    let deadline = flags.deadline(5.0)?;
    let timeout = flags.millis("timeout", 200)?;
    let pause = flags.millis("pause", 5)?;
    let (tried, connected) = (AtomicU64::new(0), AtomicU64::new(0));
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).map_err(|error| format!("datagrams to {target}: {error}"))?;
    let (sent, answered) = thread::scope(|scope| {
        for _ in 0..flags.get("parallel", 4).unwrap_or(1) {
            scope.spawn(|| connect(target, timeout, pause, &deadline, [&tried, &connected]));
        }
        datagrams(&socket, target, pause, &deadline)
    });
    let (tried, connected) = (tried.into_inner(), connected.into_inner());
    Value::Object(vec![
        ("connects", Value::Count(tried)),
        ("connected", Value::Count(connected)),
        ("datagrams", Value::Count(sent)),
        ("answered", Value::Count(answered)),
    ])
    .print();
    Ok(connected == 0 && answered == 0)
}

fn connect(
    target: SocketAddr,
    timeout: Duration,
    pause: Duration,
    deadline: &Deadline,
    [tried, connected]: [&AtomicU64; 2],
) {
    while !deadline.over() {
        tried.fetch_add(1, Ordering::Relaxed);
        if TcpStream::connect_timeout(&target, timeout).is_ok() {
            connected.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(pause);
    }
}

/// Gives the number of datagrams sent and of those that were answered.
fn datagrams(socket: &UdpSocket, target: SocketAddr, pause: Duration, deadline: &Deadline) -> (u64, u64) {
    let (mut sent, mut answered) = (0, 0);
    drop(socket.set_nonblocking(true));
    while !deadline.over() {
        sent += u64::from(socket.send_to(b"let me in", target).is_ok());
        answered += u64::from(socket.recv_from(&mut [0; 512]).is_ok());
        thread::sleep(pause);
    }
    (sent, answered)
}
