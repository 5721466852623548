//! Upstream resolvers that lead back to the server, through another resolver, and those that only seem to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use netkeel_testkit::api::FakeApi;
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use crate::client::{data, question, udp};
use crate::following::any_port;
use crate::lasting::Server;
use crate::upstream::{Part, Upstream};

/// UID of the ClusterNetwork of the server that is looked at.
const OURS: &str = "of-this-cluster";

/// A resolver that knows nothing and asks another one.
struct Relay {
    address: SocketAddr,
    to: Arc<ArcSwap<SocketAddr>>,
    passed: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    async fn start(to: SocketAddr) -> Self {
        let socket = Arc::new(UdpSocket::bind(any_port()).await.unwrap());
        let (address, to) = (socket.local_addr().unwrap(), Arc::new(ArcSwap::from_pointee(to)));
        let passed = Arc::new(AtomicUsize::new(0));
        let (count, next) = (passed.clone(), to.clone());
        let task = tokio::spawn(async move {
            let mut buffer = [0; 1500];
            loop {
                let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (packet, next, socket) = (buffer[..length].to_vec(), **next.load(), socket.clone());
                tokio::spawn(async move {
                    let ask = UdpSocket::bind(any_port()).await.unwrap();
                    ask.send_to(&packet, next).await.unwrap();
                    let mut reply = [0; 1500];
                    let length = ask.recv(&mut reply).await.unwrap();
                    socket.send_to(&reply[..length], client).await.unwrap();
                });
            }
        });
        Self { address, to, passed, task: task.abort_handle() }
    }

    fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}

/// The ClusterNetwork of a cluster with this UID.
fn network(uid: &str, dns: &serde_json::Value) -> serde_json::Value {
    json!({"apiVersion": "netkeel.io/v1alpha1", "kind": "ClusterNetwork", "metadata": {"name": "default", "uid": uid},
        "spec": {"dns": dns}})
}

async fn cluster(uid: &str, upstream: SocketAddr) -> FakeApi {
    let api = FakeApi::start().await.unwrap();
    api.put(network(uid, &json!({"upstreams": [upstream.to_string()]})));
    api
}

async fn resolves(server: SocketAddr) -> (ResponseCode, Vec<String>) {
    let reply = udp(server, &question("www.example.", RecordType::A)).await;
    (reply.metadata.response_code, data(&reply))
}

/// Starts a server whose only upstream is `relay`, and makes that ask `next`, or the server itself.
async fn behind(relay: &Relay, next: Option<SocketAddr>) -> (Server, FakeApi) {
    let server = UdpSocket::bind(any_port()).await.unwrap().local_addr().unwrap(); // free again at once
    relay.to.store(Arc::new(next.unwrap_or(server)));
    let api = cluster(OURS, relay.address).await;
    (Server::start(&api, server, &[]).await, api)
}

fn verdict(relay: &Relay, leads_back: u8) -> String {
    format!("netkeel_dns_upstream_loops{{to=\"{}\"}} {leads_back}", relay.address)
}

#[tokio::test]
async fn an_upstream_that_leads_back_is_left_out_until_it_does_not_any_more() {
    let relay = Relay::start(any_port()).await;
    let (server, api) = behind(&relay, None).await;
    server.tells(&verdict(&relay, 1)).await;
    let before = relay.passed();
    assert_eq!(resolves(server.address).await, (ResponseCode::ServFail, vec![]));
    assert_eq!(relay.passed(), before, "nobody is asked");

    let good = Upstream::start(Part::Answer).await;
    relay.to.store(Arc::new(good.address));
    let changed = json!({"upstreams": [relay.address.to_string()], "ttlSeconds": 7});
    api.put(network(OURS, &changed));
    server.tells(&verdict(&relay, 0)).await;
    assert_eq!(resolves(server.address).await, (ResponseCode::NoError, vec!["192.0.2.1".to_owned()]));
}

#[tokio::test]
async fn another_server_of_the_cluster_at_the_end_of_the_way_is_a_loop_and_one_of_another_cluster_is_none() {
    for (uid, leads_back) in [(OURS, 1), ("of-another", 0)] {
        let end = Upstream::start(Part::Answer).await;
        let there = Server::start(&cluster(uid, end.address).await, any_port(), &[]).await;
        let relay = Relay::start(any_port()).await;
        let (server, _api) = behind(&relay, Some(there.address)).await;
        server.tells(&verdict(&relay, leads_back)).await;
        let expected = if leads_back == 1 { ResponseCode::ServFail } else { ResponseCode::NoError };
        assert_eq!(resolves(server.address).await.0, expected, "{uid}");
    }
}
