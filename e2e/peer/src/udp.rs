//! Exchanges of datagrams: from one socket that is connected, or from one that names its target each time.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::Result;
use crate::flags::Flags;
use crate::tally::{Answer, Tally};

pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let exchange = Exchange {
        target: flags.target()?,
        connected: flags.get("connected", true)?,
        payload: (0..=255).cycle().take(flags.get("size", 64)?).collect(),
        timeout: flags.millis("timeout", 1000)?,
    };
    let mut tally = Tally::new();
    for _ in 0..flags.get("count", 1)? {
        let start = Instant::now();
        tally.add(exchange.once(), start.elapsed());
    }
    Ok(tally.print())
}

struct Exchange {
    target: SocketAddr,
    connected: bool,
    payload: Vec<u8>,
    timeout: Duration,
}

impl Exchange {
    fn once(&self) -> std::io::Result<Answer> {
        let any = if self.target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(self.timeout))?;
        let mut buffer = vec![0; 64 << 10];
        let length = if self.connected {
            socket.connect(self.target)?;
            socket.send(&self.payload)?;
            socket.recv(&mut buffer)?
        } else {
            socket.send_to(&self.payload, self.target)?;
            let (length, from) = socket.recv_from(&mut buffer)?;
            if from != self.target {
                return Err(std::io::Error::other(format!("answer from {from}")));
            }
            length
        };
        let answer = buffer.get(..length).unwrap_or_default();
        if !answer.ends_with(&self.payload) {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        Answer::parse(answer).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
    }
}
