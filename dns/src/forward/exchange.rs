//! One question to one upstream resolver.

use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

const HEADER: usize = 12;
const TRUNCATED: u8 = 0x02;

/// The reply of the resolver at `address`, over TCP where it does not fit a datagram.
pub(super) async fn exchange(address: SocketAddr, query: &Message, limit: Duration) -> Result<Vec<u8>> {
    let query = query.to_vec().map_err(Error::other)?;
    let end = Instant::now() + limit;
    let reply = until(end, over_udp(address, &query)).await?;
    if reply[2] & TRUNCATED == 0 {
        return Ok(reply);
    }
    // a resolver that cuts and takes no TCP has still said something
    Ok(until(end, over_tcp(address, &query)).await.unwrap_or(reply))
}

async fn until<T>(end: Instant, work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout_at(end, work).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

async fn over_udp(address: SocketAddr, query: &[u8]) -> Result<Vec<u8>> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    socket.send(query).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if answers(&buffer[..length], query) {
            return Ok(buffer[..length].to_vec());
        }
    }
}

async fn over_tcp(address: SocketAddr, query: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let length = u16::try_from(query.len()).map_err(Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    if answers(&reply, query) { Ok(reply) } else { Err(ErrorKind::InvalidData.into()) }
}

/// Whether `reply` is a reply to `query`: the same id and question. A resolver that could not read the
/// question may leave it out.
fn answers(reply: &[u8], query: &[u8]) -> bool {
    if reply.len() < HEADER || reply[..2] != query[..2] || reply[2] & 0x80 == 0 {
        return false;
    }
    let end = question_end(query);
    match reply[4..6] {
        [0, 0] => reply[3] & 0x0f != 0,
        [0, 1] => {
            reply.get(HEADER..end).is_some_and(|theirs| theirs.eq_ignore_ascii_case(&query[HEADER..end]))
        }
        _ => false,
    }
}

/// Where the one question of a query of our own ends: its name is not compressed.
fn question_end(query: &[u8]) -> usize {
    let mut at = HEADER;
    while let Some(length) = query.get(at).filter(|length| **length != 0) {
        at += usize::from(*length) + 1;
    }
    (at + 5).min(query.len())
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    fn message(id: u16, kind: MessageType, name: Option<&str>) -> Message {
        let mut message = Message::new(id, kind, OpCode::Query);
        if let Some(name) = name {
            message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        }
        message
    }

    #[test]
    fn a_reply_must_carry_the_id_and_the_question() {
        use MessageType::{Query, Response};
        let query = message(7, Query, Some("a.example.")).to_vec().unwrap();
        let mut failed = message(7, Response, None);
        failed.metadata.response_code = ResponseCode::FormErr;
        let cases = [
            (message(7, Response, Some("A.Example.")), true),
            (message(8, Response, Some("a.example.")), false),
            (message(7, Query, Some("a.example.")), false),
            (message(7, Response, Some("b.example.")), false),
            (message(7, Response, Some("a.example.net.")), false),
            (message(7, Response, None), false),
            (failed, true),
        ];
        for (reply, expected) in cases {
            assert_eq!(answers(&reply.to_vec().unwrap(), &query), expected, "{reply:?}");
        }
        assert!(!answers(&query[..5], &query));
    }
}
