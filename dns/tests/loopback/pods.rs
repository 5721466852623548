//! What the server does for pods, since it knows which namespace an address is in: live, as the ClusterNetwork says.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Parser;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use netkeel_dns::args::Args;
use netkeel_dns::{Running, start};
use netkeel_telemetry::admin::Health;
use netkeel_telemetry::metrics::Registry;
use netkeel_testkit::api::FakeApi;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::{data, question, tcp, udp};
use crate::upstream::{Part, Upstream};

/// A server that follows a fake API server and its ClusterNetwork. It stops when this is dropped.
struct Server {
    api: FakeApi,
    running: Running,
    registry: Registry,
    _stop: DropGuard,
}

impl Server {
    /// Of a cluster with a few Services, and this test as a pod in the namespace `shop`.
    async fn start(dns: &Value) -> Self {
        let api = FakeApi::start().await.unwrap();
        for (namespace, name, address) in
            [("shop", "web", "10.96.0.7"), ("bank", "web", "10.96.0.8"), ("shop", "db", "None")]
        {
            api.put(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
                "spec": {"clusterIP": address}}));
        }
        api.put(pod("shop", "client", "127.0.0.1"));
        network(&api, dns);
        let arguments = ["netkeel-dns", "--listen", "127.0.0.1:0", "--cluster-network", "default"];
        let config = Args::try_parse_from(arguments).unwrap().config(vec![]);
        let stop = CancellationToken::new();
        let registry = Registry::new("dns", "0");
        let running =
            start(&config, &api.client().unwrap(), &registry, &Health::default(), &stop).await.unwrap();
        Self { api, running, registry, _stop: stop.drop_guard() }
    }

    fn address(&self) -> SocketAddr {
        self.running.addresses[0]
    }

    async fn ask(&self, name: &str, rtype: RecordType) -> Message {
        udp(self.address(), &question(name, rtype)).await
    }

    /// How many events of pods there were, once everything written before is known.
    async fn pod_events(&self) -> f64 {
        let name = format!("mark-{}.shop.svc.cluster.local.", rand::random::<u32>());
        let label = name.split('.').next().unwrap();
        self.api.put(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": label},
            "spec": {"clusterIP": "10.96.0.99"}}),
        );
        self.becomes(&name, ResponseCode::NoError, &["10.96.0.99"]).await;
        let text = self.registry.encode();
        let counts = text.lines().filter(|line| line.contains("object=\"pod\""));
        counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Waits until the answer for an address is `code` with `expected`.
    async fn becomes(&self, name: &str, code: ResponseCode, expected: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            let reply = self.ask(name, RecordType::A).await;
            if reply.metadata.response_code == code && data(&reply) == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{name}: {reply}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn network(api: &FakeApi, dns: &Value) {
    api.put(
        json!({"apiVersion": "netkeel.io/v1alpha1", "kind": "ClusterNetwork", "metadata": {"name": "default"},
        "spec": {"dns": dns}}),
    );
}

fn pod(namespace: &str, name: &str, address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}})
}

#[tokio::test]
async fn the_search_list_of_a_pod_is_tried_in_one_answer() {
    let upstream = Upstream::start(Part::Answer).await;
    let upstreams = json!([upstream.address.to_string()]);
    let server = Server::start(&json!({"upstreams": upstreams, "searchPath": "ServerSide"})).await;
    let asked = "Www.example.com.shop.svc.cluster.local.";
    server.becomes(asked, ResponseCode::NoError, &["192.0.2.1", "Www.example.com."]).await;
    for reply in [
        server.ask(asked, RecordType::A).await,
        tcp(server.address(), &[question(asked, RecordType::A)]).await.remove(0),
    ] {
        assert_eq!(reply.answers[0].name.to_ascii(), asked, "the alias comes first, as it was asked for");
        assert_eq!(reply.answers[0].record_type(), RecordType::CNAME);
    }
    for (name, rtype, code, expected) in [
        ("web.shop.svc.cluster.local.", RecordType::A, ResponseCode::NoError, &["10.96.0.7"][..]),
        (
            "web.bank.shop.svc.cluster.local.",
            RecordType::A,
            ResponseCode::NoError,
            &["10.96.0.8", "web.bank.svc.cluster.local."],
        ),
        (
            "web.bank.shop.svc.cluster.local.",
            RecordType::AAAA,
            ResponseCode::NoError,
            &["web.bank.svc.cluster.local."],
        ),
        (
            "web.bank.svc.cluster.local.shop.svc.cluster.local.",
            RecordType::A,
            ResponseCode::NoError,
            &["10.96.0.8", "web.bank.svc.cluster.local."],
        ),
        ("missing.example.shop.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain, &[]),
        // A headless Service without endpoints has no name.
        ("a.db.shop.svc.cluster.local.", RecordType::A, ResponseCode::NoError, &["192.0.2.1", "a.db."]),
        // What others ask, and what a pod asks in the second place.
        ("www.example.com.bank.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain, &[]),
        ("www.example.com.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain, &[]),
    ] {
        let reply = server.ask(name, rtype).await;
        let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        assert_eq!((reply.metadata.response_code, data(&reply)), (code, expected), "{name}");
        if code == ResponseCode::NXDomain {
            let soa = &reply.authorities[0];
            assert_eq!(
                (soa.record_type(), soa.name.to_ascii().as_str()),
                (RecordType::SOA, "cluster.local.")
            );
        }
    }
    network(&server.api, &json!({"upstreams": upstreams}));
    server.becomes(asked, ResponseCode::NXDomain, &[]).await;
    network(&server.api, &json!({"upstreams": upstreams, "searchPath": "ServerSide"}));
    server.becomes(asked, ResponseCode::NoError, &["192.0.2.1", "Www.example.com."]).await;
    server.api.delete("v1", "Pod", Some("shop"), "client");
    server.becomes(asked, ResponseCode::NXDomain, &[]).await;
}

#[tokio::test]
async fn verified_names_of_pods_come_and_go_with_them() {
    let server = Server::start(&json!({"podRecords": "Verified"})).await;
    let [client, other] = ["127-0-0-1", "10-1-0-9"].map(|label| format!("{label}.shop.pod.cluster.local."));
    server.becomes(&client, ResponseCode::NoError, &["127.0.0.1"]).await;
    server.becomes(&other, ResponseCode::NXDomain, &[]).await;
    server.api.put(pod("shop", "other", "10.1.0.9"));
    server.becomes(&other, ResponseCode::NoError, &["10.1.0.9"]).await;
    server.api.delete("v1", "Pod", Some("shop"), "other");
    server.becomes(&other, ResponseCode::NXDomain, &[]).await;
    for (pod_records, expected) in [("Disabled", &[][..]), ("Insecure", &["10.1.0.9"]), ("Verified", &[])] {
        network(&server.api, &json!({"podRecords": pod_records}));
        let code = if expected.is_empty() { ResponseCode::NXDomain } else { ResponseCode::NoError };
        server.becomes(&other, code, expected).await;
    }
}

#[tokio::test]
async fn pods_are_followed_only_while_something_needs_them() {
    let server = Server::start(&json!({})).await;
    let name = "127-0-0-1.shop.pod.cluster.local.";
    assert!(server.pod_events().await.abs() < 0.5, "nothing needs them");
    network(&server.api, &json!({"podRecords": "Verified"}));
    server.becomes("10-1-0-9.shop.pod.cluster.local.", ResponseCode::NXDomain, &[]).await;
    server.becomes(name, ResponseCode::NoError, &["127.0.0.1"]).await;
    network(&server.api, &json!({"podRecords": "Disabled"}));
    server.becomes(name, ResponseCode::NXDomain, &[]).await;
    let before = server.pod_events().await;
    assert!(before > 0.5, "{before}");
    server.api.put(pod("shop", "other", "10.1.0.9"));
    let after = server.pod_events().await;
    assert!((after - before).abs() < 0.5, "{before} {after}");
    network(&server.api, &json!({"podRecords": "Disabled", "searchPath": "ServerSide"}));
    server
        .becomes(
            "web.bank.shop.svc.cluster.local.",
            ResponseCode::NoError,
            &["10.96.0.8", "web.bank.svc.cluster.local."],
        )
        .await;
    assert!(server.pod_events().await > before + 0.5);
}

#[tokio::test]
async fn a_pod_that_cannot_be_read_hurts_only_itself() {
    let server = Server::start(&json!({"podRecords": "Disabled"})).await;
    let name = "10-1-0-9.shop.pod.cluster.local.";
    // A pod of nonsense is named in the list, and no more is known of it.
    server.api.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "odd"}, "status": 7}));
    network(&server.api, &json!({"podRecords": "Verified"}));
    server.becomes(name, ResponseCode::NXDomain, &[]).await;
    server.becomes("127-0-0-1.shop.pod.cluster.local.", ResponseCode::NoError, &["127.0.0.1"]).await;
}

#[tokio::test]
async fn a_resolver_that_fails_is_no_absence_of_the_name() {
    let upstream = Upstream::start(Part::Fail).await;
    let dns = json!({"upstreams": [upstream.address.to_string()], "searchPath": "ServerSide"});
    let server = Server::start(&dns).await;
    server.becomes("www.example.com.shop.svc.cluster.local.", ResponseCode::ServFail, &[]).await;
}

#[tokio::test]
async fn endpoints_are_called_as_their_pods_are_where_the_network_says_so() {
    let server = Server::start(&json!({})).await;
    let endpoint = json!({"addresses": ["10.1.0.5"], "targetRef": {"kind": "Pod", "name": "db-7d4b-x2k"}});
    server.api.put(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "shop", "name": "db-1", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "endpoints": [endpoint], "ports": [{"name": "sql", "port": 5432}]}));
    let [dashed, named] =
        ["10-1-0-5", "db-7d4b-x2k"].map(|label| format!("{label}.db.shop.svc.cluster.local."));
    for (pod_names, there, absent) in
        [(false, &dashed, &named), (true, &named, &dashed), (false, &dashed, &named)]
    {
        network(&server.api, &json!({"endpointPodNames": pod_names}));
        server.becomes(there, ResponseCode::NoError, &["10.1.0.5"]).await;
        server.becomes(absent, ResponseCode::NXDomain, &[]).await;
        let reverse = server.ask("5.0.1.10.in-addr.arpa.", RecordType::PTR).await;
        assert_eq!(data(&reverse), std::slice::from_ref(there));
        let ports = server.ask("_sql._tcp.db.shop.svc.cluster.local.", RecordType::SRV).await;
        assert_eq!(data(&ports), [format!("0 100 5432 {there}")]);
    }
}
