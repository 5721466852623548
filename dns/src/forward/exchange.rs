//! One question to one resolver by datagram, and what counts as its reply.

use std::io::Result;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

use crate::cache::reply::same_question;
use crate::wire::{HEADER, question_end};

/// Room for a reply: more than is ever asked for, in bytes.
const ROOM: usize = 4096;

/// A socket that talks to one address alone, from a port of its own that the kernel picks by chance.
#[derive(Debug)]
pub(crate) struct Datagrams {
    socket: UdpSocket,
    peer: SocketAddr,
}

impl Datagrams {
    pub(crate) async fn to(peer: SocketAddr) -> Result<Self> {
        let any: SocketAddr = match peer {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        Self::connect(UdpSocket::bind(any).await?, peer).await
    }

    async fn connect(socket: UdpSocket, peer: SocketAddr) -> Result<Self> {
        socket.connect(peer).await?;
        Ok(Self { peer: socket.peer_addr()?, socket })
    }

    pub(crate) async fn send(&self, packet: &[u8]) -> Result<()> {
        self.socket.send(packet).await.map(drop)
    }

    /// Length of the next datagram of the peer. What came from others before the socket was connected is passed over.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let (length, from) = self.socket.recv_from(buffer).await?;
            if (from.ip(), from.port()) == (self.peer.ip(), self.peer.port()) {
                return Ok(length);
            }
        }
    }
}

/// The reply of the resolver at `address`. Whatever else comes there is passed over.
pub(super) async fn by_datagram(address: SocketAddr, query: &[u8]) -> Result<Vec<u8>> {
    let datagrams = Datagrams::to(address).await?;
    datagrams.send(query).await?;
    let mut buffer = [0; ROOM];
    loop {
        let length = datagrams.receive(&mut buffer).await?;
        if answers(&buffer[..length], query) {
            return Ok(buffer[..length].to_vec());
        }
    }
}

/// Whether `reply` is a reply to `query`: the same id and question. A resolver that could not read the
/// question may leave it out of its error.
pub(super) fn answers(reply: &[u8], query: &[u8]) -> bool {
    if reply.len() < HEADER || query.len() < HEADER || reply[..2] != query[..2] || reply[2] & 0x80 == 0 {
        return false;
    }
    let Some(end) = question_end(query) else { return false };
    match reply[4..6] {
        [0, 0] => reply[3] & 0x0f != 0,
        [0, 1] => reply.get(HEADER..end).is_some_and(|theirs| same_question(theirs, &query[HEADER..end])),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
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

    #[tokio::test]
    async fn what_others_sent_before_the_socket_was_connected_is_passed_over() {
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let [socket, resolver, other] =
            [UdpSocket::bind(any).await, UdpSocket::bind(any).await, UdpSocket::bind(any).await]
                .map(Result::unwrap);
        let address = socket.local_addr().unwrap();
        other.send_to(b"forged", address).await.unwrap();
        socket.readable().await.unwrap();
        let datagrams = Datagrams::connect(socket, resolver.local_addr().unwrap()).await.unwrap();
        resolver.send_to(b"true", address).await.unwrap();
        let mut buffer = [0; 16];
        let length = datagrams.receive(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"true");
    }
}
