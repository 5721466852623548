//! What arrived at the servers of this process, by the client's address: the receiver's own word on who got through.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::json::Value;
use crate::numbers::overflowed;

static RECEIVED: Mutex<BTreeMap<IpAddr, Count>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy, Default)]
struct Count {
    connections: u64,
    datagrams: u64,
}

fn counts() -> MutexGuard<'static, BTreeMap<IpAddr, Count>> {
    RECEIVED.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn connection(client: IpAddr) {
    counts().entry(client.to_canonical()).or_default().connections += 1;
}

pub(super) fn datagram(client: IpAddr) {
    counts().entry(client.to_canonical()).or_default().datagrams += 1;
}

/// What arrived from one client, and how many datagrams of all clients found the socket's buffer full.
pub(super) fn json(client: &str) -> Value {
    let count = client.parse().ok().and_then(|client: IpAddr| counts().get(&client).copied());
    let count = count.unwrap_or_default();
    Value::Object(vec![
        ("connections", Value::Count(count.connections)),
        ("datagrams", Value::Count(count.datagrams)),
        ("overflowed", Value::Count(overflowed())),
    ])
}
