//! One question that looks for a loop.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, Record, RecordType};
use tokio::time::timeout;

use crate::forward::Datagrams;

/// What the resolver at `address` answers of `name`; an error where it does not within `patience`.
pub(super) async fn ask(address: SocketAddr, name: &Name, patience: Duration) -> Result<Vec<Record>> {
    let mut query = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name.clone(), RecordType::HINFO));
    timeout(patience, exchange(address, &query)).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

async fn exchange(address: SocketAddr, query: &Message) -> Result<Vec<Record>> {
    let datagrams = Datagrams::to(address).await?;
    datagrams.send(&query.to_vec().map_err(Error::other)?).await?;
    let mut buffer = [0; 1500];
    loop {
        let length = datagrams.receive(&mut buffer).await?;
        let Ok(reply) = Message::from_vec(&buffer[..length]) else { continue };
        let metadata = &reply.metadata;
        if metadata.id == query.metadata.id && metadata.message_type == MessageType::Response {
            return Ok(reply.answers);
        }
    }
}
