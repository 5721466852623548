//! A server that starts again where another one was: with what that one knew, and without the API server.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use netkeel_dns::args::Args;
use netkeel_dns::{Running, start};
use netkeel_telemetry::admin::Health;
use netkeel_telemetry::metrics::Registry;
use netkeel_testkit::api::FakeApi;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::{question, udp};
use crate::following::{any_port, becomes, found, lookup, nothing, service};

/// A server with a folder for what it knows, and what it says of itself.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) registry: Registry,
    health: Health,
    running: Running,
    stop: DropGuard,
}

impl Server {
    /// Starts one; waits until it answers.
    pub(crate) async fn start(api: &FakeApi, listen: SocketAddr, arguments: &[&str]) -> Self {
        let (registry, health, stop) =
            (Registry::new("dns", "0"), Health::default(), CancellationToken::new());
        let listen = listen.to_string();
        let all = [&["netkeel-dns", "--cluster-network", "default", "--listen", &listen], arguments].concat();
        let config = Args::try_parse_from(all).unwrap().config(vec![]);
        let running = start(&config, &api.client().unwrap(), &registry, &health, &stop).await.unwrap();
        let address = running.addresses[0];
        Self { address, registry, health, running, stop: stop.drop_guard() }
    }

    /// Waits until its metrics have this line.
    pub(crate) async fn tells(&self, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.registry.encode().contains(&format!("{line}\n")) {
            assert!(Instant::now() < deadline, "no {line} in {}", self.registry.encode());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) {
        drop(self.stop);
        self.running.end().await;
    }
}

fn network(ttl: u32) -> serde_json::Value {
    json!({"apiVersion": "netkeel.io/v1alpha1", "kind": "ClusterNetwork",
        "metadata": {"name": "default", "uid": "of-this-cluster"}, "spec": {"dns": {"ttlSeconds": ttl}}})
}

/// An API server with two Services, and a folder where a server has kept them.
async fn kept() -> (FakeApi, tempfile::TempDir) {
    let (api, folder) = (FakeApi::start().await.unwrap(), tempfile::tempdir().unwrap());
    api.put(network(42));
    api.put(service("web", "10.96.0.7"));
    api.put(service("old", "10.96.0.1"));
    let state = folder.path().to_str().unwrap();
    let first = Server::start(&api, any_port(), &["--state", state]).await;
    first.tells(r#"netkeel_dns_snapshot_loads_total{result="none"} 1"#).await;
    first.tells("netkeel_dns_serving_from_snapshot 0").await;
    first.tells(r#"netkeel_dns_snapshot_writes_total{result="ok"} 1"#).await;
    first.end().await;
    (api, folder)
}

#[tokio::test]
async fn a_restarted_server_answers_at_once_without_the_api_server_and_catches_up_with_it() {
    let (api, folder) = kept().await;
    api.set_down(true);
    let state = folder.path().to_str().unwrap();
    let arguments = ["--state", state];
    let start = Server::start(&api, any_port(), &arguments);
    let server = tokio::time::timeout(Duration::from_secs(5), start).await.expect("it waits for nobody");
    assert!(server.health.is_ready());
    server.tells("netkeel_dns_serving_from_snapshot 1").await;
    server.tells("netkeel_dns_services 2").await;
    assert_eq!(lookup(server.address, "web").await, found(&["10.96.0.7"]));
    let reply = udp(server.address, &question("web.shop.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(reply.answers[0].ttl, 42, "spec.dns is kept too");
    assert_eq!(lookup(server.address, "ghost").await, nothing(ResponseCode::NXDomain));

    api.delete("v1", "Service", Some("shop"), "old");
    api.put(service("new", "10.96.0.2"));
    api.put(network(43));
    api.set_down(false);
    becomes(server.address, "new", found(&["10.96.0.2"])).await;
    becomes(server.address, "old", nothing(ResponseCode::NXDomain)).await;
    server.tells("netkeel_dns_serving_from_snapshot 0").await;
    server.tells(r#"netkeel_dns_snapshot_writes_total{result="ok"} 1"#).await;
    server.end().await;

    api.set_down(true);
    let server = Server::start(&api, any_port(), &["--state", state]).await;
    assert_eq!(
        lookup(server.address, "new").await,
        found(&["10.96.0.2"]),
        "the full sync was kept in place of the old"
    );
    assert_eq!(lookup(server.address, "old").await, nothing(ResponseCode::NXDomain));
}

/// Starts a server on what is in `folder`, without an API server; it must not answer, and say `result`.
async fn waits(api: &FakeApi, folder: &Path, result: &str) {
    let listen = TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
    let (registry, health, stop) = (Registry::new("dns", "0"), Health::default(), CancellationToken::new());
    let (address, state) = (listen.to_string(), folder.to_str().unwrap());
    let arguments = ["netkeel-dns", "--cluster-network", "default", "--listen", &address, "--state", state];
    let (config, client) = (Args::try_parse_from(arguments).unwrap().config(vec![]), api.client().unwrap());
    let starting = start(&config, &client, &registry, &health, &stop);
    assert!(
        tokio::time::timeout(Duration::from_millis(400), starting).await.is_err(),
        "{result}: it answers"
    );
    assert!(!health.is_ready() && TcpListener::bind(listen).is_ok(), "{result}: the port is taken");
    let line = format!("netkeel_dns_snapshot_loads_total{{result=\"{result}\"}} 1\n");
    assert!(registry.encode().contains(&line), "{result}: {}", registry.encode());
}

#[tokio::test]
async fn a_damaged_snapshot_is_as_none() {
    let (api, folder) = kept().await;
    api.set_down(true);
    let path = folder.path().join("zone.snapshot");
    let good = fs::read(&path).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let foreign = String::from_utf8(good.clone()).unwrap().replacen(version, "0.0.0", 1);
    let other = String::from_utf8(good.clone()).unwrap().replace("10.96.0.7", "10.96.0.8");
    for (damaged, result) in [
        (good[..good.len() / 2].to_vec(), "truncated"),
        (other.into_bytes(), "corrupt"),
        (foreign.into_bytes(), "foreign"),
        (vec![0; 1000], "malformed"),
        (vec![], "malformed"),
    ] {
        fs::write(&path, damaged).unwrap();
        waits(&api, folder.path(), result).await;
    }
    fs::File::create(&path).unwrap().set_len(65 << 20).unwrap();
    waits(&api, folder.path(), "oversized").await;
}

#[tokio::test]
async fn silence_of_the_api_server_is_told_and_names_stay() {
    let api = FakeApi::start().await.unwrap();
    api.put(network(5));
    api.put(service("web", "10.96.0.7"));
    let server = Server::start(&api, any_port(), &[]).await;
    let age = |registry: &Registry| {
        let text = registry.encode();
        let line = text.lines().find(|line| line.starts_with("netkeel_dns_watch_age_seconds ")).unwrap();
        line.split_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    assert!(age(&server.registry) < 5.0);
    api.put(service("early", "10.96.0.1"));
    becomes(server.address, "early", found(&["10.96.0.1"])).await; // so the watch is open
    api.set_silent(true);
    api.put(service("new", "10.96.0.2"));
    let (frozen, before) = (Instant::now(), age(&server.registry));
    while age(&server.registry) < before + 1.0 {
        assert!(frozen.elapsed() < Duration::from_secs(5), "the age does not grow");
        assert_eq!(lookup(server.address, "web").await, found(&["10.96.0.7"]));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    api.set_silent(false);
    becomes(server.address, "new", found(&["10.96.0.2"])).await;
    assert!(frozen.elapsed() < Duration::from_secs(25), "found after {:?}", frozen.elapsed());
}
