//! The whole server against an API server that changes, holds nonsense, and goes away.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use clap::Parser;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use netkeel_dns::args::Args;
use netkeel_dns::{Running, start};
use netkeel_telemetry::admin::Health;
use netkeel_telemetry::metrics::Registry;
use netkeel_testkit::api::FakeApi;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::{data, question, udp};

/// A server that follows a fake API server. It stops when this is dropped.
struct Follower {
    running: Running,
    health: Health,
    _stop: DropGuard,
}

async fn follow(api: &FakeApi, listen: SocketAddr) -> Follower {
    let health = Health::default();
    let stop = CancellationToken::new();
    let running = start_with(api, listen, &health, &stop).await;
    Follower { running, health, _stop: stop.drop_guard() }
}

async fn start_with(api: &FakeApi, listen: SocketAddr, health: &Health, stop: &CancellationToken) -> Running {
    start_as(api, listen, &[], health, stop).await
}

/// With `more` on the command line.
async fn start_as(
    api: &FakeApi,
    listen: SocketAddr,
    more: &[&str],
    health: &Health,
    stop: &CancellationToken,
) -> Running {
    let listen = listen.to_string();
    let arguments = [&["netkeel-dns", "--listen", &listen], more].concat();
    let config = Args::try_parse_from(arguments).unwrap().config(vec![]);
    start(&config, &api.client().unwrap(), &Registry::new("dns", "0"), health, stop).await.unwrap()
}

pub(crate) fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) fn service(name: &str, address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name},
        "spec": {"clusterIP": address, "ports": [{"name": "http", "port": 80}]}})
}

fn nonsense(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name},
        "spec": {"clusterIP": "10.96.0.66", "ports": "all of them"}})
}

fn slice(ready: &[&str], gone: &[&str]) -> Value {
    let endpoint =
        |address: &&str, ready: bool| json!({"addresses": [address], "conditions": {"ready": ready}});
    let ready = ready.iter().map(|address| endpoint(address, true));
    let endpoints: Vec<Value> = ready.chain(gone.iter().map(|address| endpoint(address, false))).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "shop", "name": "db-1", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "sql", "port": 5432}]})
}

/// What the server says of the addresses of a Service in the namespace `shop`.
pub(crate) async fn lookup(server: SocketAddr, name: &str) -> (ResponseCode, Vec<String>) {
    let reply = udp(server, &question(&format!("{name}.shop.svc.cluster.local."), RecordType::A)).await;
    (reply.metadata.response_code, data(&reply))
}

pub(crate) fn found(addresses: &[&str]) -> (ResponseCode, Vec<String>) {
    (ResponseCode::NoError, addresses.iter().map(ToString::to_string).collect())
}

pub(crate) fn nothing(code: ResponseCode) -> (ResponseCode, Vec<String>) {
    (code, vec![])
}

/// Waits until the server says `expected` of `name`; the API server needs a moment to tell it.
pub(crate) async fn becomes(server: SocketAddr, name: &str, expected: (ResponseCode, Vec<String>)) {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let now = lookup(server, name).await;
        if now == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{name}: {now:?}, not {expected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_ports_stay_unbound_until_everything_is_known() {
    let api = FakeApi::start().await.unwrap();
    api.put(service("web", "10.96.0.7"));
    api.set_down(true);
    let listen = TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
    let (health, stop) = (Health::default(), CancellationToken::new());
    let starting = start_with(&api, listen, &health, &stop);
    tokio::pin!(starting);
    assert!(tokio::time::timeout(Duration::from_millis(700), &mut starting).await.is_err());
    assert!(!health.is_ready());
    assert!(TcpListener::bind(listen).is_ok() && UdpSocket::bind(listen).is_ok(), "the port is taken");

    api.set_down(false);
    let running = starting.await;
    assert_eq!(running.addresses, [listen]);
    assert!(health.is_ready());
    assert_eq!(lookup(listen, "web").await, found(&["10.96.0.7"]));
    stop.cancel();
    running.end().await;
    assert!(TcpListener::bind(listen).is_ok());
}

#[tokio::test]
async fn changes_are_answered_when_they_happen() {
    let api = FakeApi::start().await.unwrap();
    let server = follow(&api, any_port()).await;
    let address = server.running.addresses[0];
    assert_eq!(lookup(address, "web").await, nothing(ResponseCode::NXDomain));
    api.put(service("web", "10.96.0.7"));
    becomes(address, "web", found(&["10.96.0.7"])).await;
    api.put(service("web", "10.96.0.8"));
    becomes(address, "web", found(&["10.96.0.8"])).await;

    api.put(slice(&["10.1.0.1", "10.1.0.2"], &["10.1.0.3"]));
    api.put(service("db", "None"));
    becomes(address, "db", found(&["10.1.0.1", "10.1.0.2"])).await;
    api.put(slice(&["10.1.0.1"], &["10.1.0.2"]));
    becomes(address, "db", found(&["10.1.0.1"])).await;
    api.put(slice(&[], &["10.1.0.1", "10.1.0.2"]));
    becomes(address, "db", nothing(ResponseCode::NXDomain)).await;

    api.delete("v1", "Service", Some("shop"), "web");
    becomes(address, "web", nothing(ResponseCode::NXDomain)).await;
}

#[tokio::test]
async fn an_object_that_cannot_be_read_hurts_only_itself() {
    let api = FakeApi::start().await.unwrap();
    api.put(service("web", "10.96.0.7"));
    api.put(nonsense("bad"));
    let server = follow(&api, any_port()).await;
    let address = server.running.addresses[0];
    assert_eq!(lookup(address, "web").await, found(&["10.96.0.7"]));
    assert_eq!(
        lookup(address, "bad").await,
        nothing(ResponseCode::ServFail),
        "it exists, so it is not absent"
    );

    api.put(nonsense("web"));
    api.put(service("bad", "10.96.0.9"));
    becomes(address, "bad", found(&["10.96.0.9"])).await;
    assert_eq!(lookup(address, "web").await, found(&["10.96.0.7"]), "what was known stays in force");
    api.compact();
    api.put(service("later", "10.96.0.10"));
    becomes(address, "later", found(&["10.96.0.10"])).await;
    assert_eq!(lookup(address, "web").await, found(&["10.96.0.7"]), "after a new list too");
    api.delete("v1", "Service", Some("shop"), "web");
    becomes(address, "web", nothing(ResponseCode::NXDomain)).await;
}

#[tokio::test]
async fn names_are_answered_while_the_api_server_is_gone_and_catch_up_afterwards() {
    let api = FakeApi::start().await.unwrap();
    api.put(service("web", "10.96.0.7"));
    api.put(service("old", "10.96.0.1"));
    let server = follow(&api, any_port()).await;
    let address = server.running.addresses[0];
    api.set_down(true);
    for _ in 0..5 {
        assert_eq!(lookup(address, "web").await, found(&["10.96.0.7"]));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(server.health.is_ready(), "an outage of the API server is no reason to stop asking here");
    api.delete("v1", "Service", Some("shop"), "old");
    api.put(service("new", "10.96.0.2"));
    api.compact();
    api.set_down(false);
    becomes(address, "new", found(&["10.96.0.2"])).await;
    becomes(address, "old", nothing(ResponseCode::NXDomain)).await;
    assert_eq!(lookup(address, "web").await, found(&["10.96.0.7"]));
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

#[tokio::test]
async fn a_namespace_without_services_is_there_as_long_as_its_object_is() {
    let api = FakeApi::start().await.unwrap();
    api.put(namespace("quiet"));
    let server = follow(&api, any_port()).await;
    let address = server.running.addresses[0];
    let ask = async |name: &str| udp(address, &question(name, RecordType::A)).await.metadata.response_code;
    assert_eq!(ask("quiet.svc.cluster.local.").await, ResponseCode::NoError);
    assert_eq!(ask("10-1-0-1.quiet.pod.cluster.local.").await, ResponseCode::NoError);
    assert_eq!(ask("later.svc.cluster.local.").await, ResponseCode::NXDomain);
    api.put(namespace("later"));
    api.delete("v1", "Namespace", None, "quiet");
    let deadline = Instant::now() + Duration::from_secs(40);
    while ask("later.svc.cluster.local.").await != ResponseCode::NoError
        || ask("quiet.svc.cluster.local.").await != ResponseCode::NXDomain
    {
        assert!(Instant::now() < deadline, "changes of namespaces are not followed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn network(dns: &Value) -> Value {
    json!({"apiVersion": "netkeel.io/v1alpha1", "kind": "ClusterNetwork", "metadata": {"name": "default"}, "spec": {"dns": dns}})
}

#[tokio::test]
async fn what_the_cluster_network_says_of_pods_empty_services_and_times_to_live_holds_at_once() {
    let api = FakeApi::start().await.unwrap();
    api.put(service("web", "10.96.0.7"));
    api.put(network(&json!({"podRecords": "Disabled", "emptyServices": "NXDomain", "ttlSeconds": 7})));
    let (health, stop) = (Health::default(), CancellationToken::new());
    let running = start_as(&api, any_port(), &["--cluster-network", "default"], &health, &stop).await;
    let _stop = stop.drop_guard();
    let address = running.addresses[0];
    let pod = async || {
        let reply = udp(address, &question("10-1-0-1.shop.pod.cluster.local.", RecordType::A)).await;
        let ttl = reply.answers.first().or(reply.authorities.first()).map(|record| record.ttl);
        (reply.metadata.response_code, data(&reply), ttl)
    };
    assert_eq!(pod().await, (ResponseCode::NXDomain, vec![], Some(7)));
    assert_eq!(lookup(address, "web").await, nothing(ResponseCode::NXDomain));
    api.put(network(&json!({"ttlSeconds": 9})));
    becomes(address, "web", found(&["10.96.0.7"])).await;
    assert_eq!(pod().await, (ResponseCode::NoError, vec!["10.1.0.1".to_owned()], Some(9)));
}
