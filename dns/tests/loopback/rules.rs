//! What servers decide themselves, as `spec.dns` of a ClusterNetwork says it, while it changes.

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

use crate::client::{data, question, send_udp, udp};
use crate::upstream::{Part, Upstream};

/// A change takes effect within this.
const LIVE: Duration = Duration::from_secs(1);

/// A cluster with one server, which asks `upstream` for other names. It stops when this is dropped.
struct Cluster {
    api: FakeApi,
    upstream: Upstream,
    server: SocketAddr,
    _running: Running,
    registry: Registry,
    _stop: DropGuard,
}

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"clusterIP": "10.96.0.7", "type": "LoadBalancer", "ports": [{"name": "http", "port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}}})
}

impl Cluster {
    async fn start(dns: Value) -> Self {
        let (api, upstream) = (FakeApi::start().await.unwrap(), Upstream::start(Part::Answer).await);
        api.put(service());
        let (registry, stop) = (Registry::new("dns", "0"), CancellationToken::new());
        api.put(network(&upstream, dns));
        let arguments = ["netkeel-dns", "--listen", "127.0.0.1:0", "--cluster-network", "default"];
        let config = Args::try_parse_from(arguments).unwrap().config(vec![]);
        let client = api.client().unwrap();
        let running = start(&config, &client, &registry, &Health::default(), &stop).await.unwrap();
        Self {
            server: running.addresses[0],
            _running: running,
            api,
            upstream,
            registry,
            _stop: stop.drop_guard(),
        }
    }

    fn set(&self, dns: Value) {
        self.api.put(network(&self.upstream, dns));
    }

    async fn ask(&self, name: &str, rtype: RecordType) -> Message {
        udp(self.server, &question(name, rtype)).await
    }

    /// Waits until the question is answered so, which must be soon.
    async fn becomes(&self, name: &str, rtype: RecordType, expected: (ResponseCode, &[&str])) {
        let deadline = Instant::now() + LIVE;
        loop {
            let reply = self.ask(name, rtype).await;
            let (code, found) = (reply.metadata.response_code, data(&reply));
            if code == expected.0 && found == expected.1 {
                return;
            }
            assert!(Instant::now() < deadline, "{rtype} {name}: {code} {found:?}, not {expected:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the metric `netkeel_dns_config_rejected` says so.
    async fn rejected(&self, expected: bool) {
        let (deadline, line) =
            (Instant::now() + LIVE, format!("netkeel_dns_config_rejected {}\n", u8::from(expected)));
        while !self.registry.encode().contains(&line) {
            assert!(Instant::now() < deadline, "not {line}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn network(upstream: &Upstream, mut dns: Value) -> Value {
    dns["upstreams"] = json!([upstream.address.to_string()]);
    json!({"apiVersion": "netkeel.io/v1alpha1", "kind": "ClusterNetwork", "metadata": {"name": "default"}, "spec": {"dns": dns}})
}

const NOTHING: (ResponseCode, &[&str]) = (ResponseCode::NoError, &[]);
const OWN: (ResponseCode, &[&str]) = (ResponseCode::NoError, &["10.96.0.7"]);
const OUTSIDE: (ResponseCode, &[&str]) = (ResponseCode::NoError, &["192.0.2.1"]);
const REFUSED: (ResponseCode, &[&str]) = (ResponseCode::Refused, &[]);

#[tokio::test]
async fn every_option_takes_effect_while_the_server_runs() {
    use RecordType::{A, AAAA};
    let cluster = Cluster::start(json!({})).await;
    let web = "web.shop.svc.cluster.local.";
    cluster.becomes("printer.corp.example.", A, OUTSIDE).await;
    cluster.becomes(web, A, OWN).await;

    cluster.set(json!({"hosts": [{"ip": "192.0.2.77", "names": ["printer.corp.example"]}]}));
    cluster.becomes("printer.corp.example.", A, (ResponseCode::NoError, &["192.0.2.77"])).await;
    cluster.becomes("printer.corp.example.", AAAA, NOTHING).await;

    cluster.set(json!({"overrides": [{"zone": "corp.example", "responseCode": "NXDomain"}]}));
    cluster.becomes("printer.corp.example.", A, (ResponseCode::NXDomain, &[])).await;
    cluster.set(json!({"overrides": [{"zone": "cluster.local", "responseCode": "Refused", "types": ["A"]}]}));
    cluster.becomes(web, A, REFUSED).await;

    cluster.set(json!({"externalZones": [{"zone": "example.org"}]}));
    cluster.becomes("web.shop.example.org.", A, (ResponseCode::NoError, &["198.51.100.7"])).await;
    let mut moved = service();
    moved["status"]["loadBalancer"]["ingress"] = json!([{"ip": "198.51.100.8"}]);
    cluster.api.put(moved);
    cluster.becomes("web.shop.example.org.", A, (ResponseCode::NoError, &["198.51.100.8"])).await;

    cluster.set(json!({"acl": [{"action": "Block", "networks": ["127.0.0.0/8"], "zones": ["shop.svc.cluster.local"]}]}));
    cluster.becomes(web, A, REFUSED).await;
    cluster.set(json!({"acl": [{"action": "Filter", "networks": ["127.0.0.0/8"]}]}));
    cluster.becomes(web, A, NOTHING).await;
    cluster.becomes("www.example.com.", A, NOTHING).await;
    cluster.set(json!({"acl": [{"action": "Drop", "zones": ["example.com"]}]}));
    cluster.becomes(web, A, OWN).await;
    let dropped = question("www.example.com.", A).to_vec().unwrap();
    assert_eq!(send_udp(cluster.server, &dropped, Duration::from_millis(300)).await, None);
    let metrics = cluster.registry.encode();
    for action in ["Block", "Filter", "Drop"] {
        let line = format!("netkeel_dns_acl_denials_total{{action=\"{action}\"}}");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    // asked before the change is there, the name that is dropped would have no answer
    cluster.set(json!({"hosts": [{"ip": "192.0.2.78", "names": ["printer.corp.example"]}]}));
    cluster.becomes("printer.corp.example.", A, (ResponseCode::NoError, &["192.0.2.78"])).await;
    cluster.becomes("www.example.com.", A, OUTSIDE).await;
}

/// The owners of a reply's answers.
fn owners(reply: &Message) -> Vec<String> {
    reply.answers.iter().map(|record| record.name.to_ascii()).collect()
}

#[tokio::test]
async fn answers_carry_the_name_that_was_asked_for_in_its_case() {
    let rewrites = json!([
        {"match": {"type": "Exact", "value": "shop.example"}, "to": "web.shop.svc.cluster.local"},
        {"match": {"type": "Suffix", "value": ".old.example"}, "to": ".new.example"},
        {"match": {"type": "Suffix", "value": ".gone.example"}, "to": ".example"},
        {"match": {"type": "Regex", "value": r"^([a-z]+)\.plain\.example$"}, "to": "{1}.new.example", "answerRewrite": false},
    ]);
    let cluster = Cluster::start(json!({"rewrites": rewrites})).await;
    for (name, expected, owner) in [
        ("Shop.Example.", OWN, "Shop.Example."),
        ("WWW.Old.Example.", OUTSIDE, "WWW.Old.Example."),
        ("WWW.plain.example.", OUTSIDE, "www.new.example."),
    ] {
        let reply = cluster.ask(name, RecordType::A).await;
        assert_eq!(
            (reply.metadata.response_code, data(&reply).as_slice()),
            (expected.0, &expected.1.iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
            "{name}"
        );
        assert_eq!(owners(&reply), [owner]);
        assert_eq!(reply.queries[0].name().to_ascii(), name, "the question is the client's");
    }
    cluster.becomes("missing.gone.example.", RecordType::A, (ResponseCode::NXDomain, &[])).await;
}

#[tokio::test]
async fn who_may_not_ask_for_a_name_is_not_led_to_it_by_an_alias() {
    let cluster = Cluster::start(json!({"acl": [{"action": "Block", "zones": ["secret.example"]}]})).await;
    let alias = |name: &str, target: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name},
            "spec": {"type": "ExternalName", "externalName": target}})
    };
    cluster.api.put(alias("door", "db.secret.example"));
    cluster.api.put(alias("open", "www.example.com"));
    let outside: (_, &[&str]) = (ResponseCode::NoError, &["192.0.2.1", "www.example.com."]);
    cluster.becomes("open.shop.svc.cluster.local.", RecordType::A, outside).await;
    cluster.becomes("door.shop.svc.cluster.local.", RecordType::A, REFUSED).await;
}

#[tokio::test]
async fn a_spec_that_cannot_be_used_leaves_the_last_good_one_in_force_and_is_told() {
    let good = json!({"hosts": [{"ip": "192.0.2.77", "names": ["printer.example"]}]});
    let host: (_, &[&str]) = (ResponseCode::NoError, &["192.0.2.77"]);
    let bad = json!({"hosts": [{"ip": "192.0.2.78", "names": ["printer.example"]}], "acl": [{"action": "Block", "zones": ["secret.example"]}],
        "rewrites": [{"match": {"type": "Regex", "value": "("}, "to": "a.example"}, {"match": {"type": "Exact", "value": "b.example"}, "to": "printer.example"}]});
    let cluster = Cluster::start(good.clone()).await;
    cluster.rejected(false).await;
    cluster.set(bad.clone());
    cluster.rejected(true).await;
    cluster.becomes("printer.example.", RecordType::A, host).await;
    cluster.becomes("a.secret.example.", RecordType::A, OUTSIDE).await;
    cluster.set(good);
    cluster.rejected(false).await;
    cluster.becomes("printer.example.", RecordType::A, host).await;

    let anew = Cluster::start(bad).await;
    anew.rejected(true).await;
    for name in ["printer.example.", "b.example."] {
        anew.becomes(name, RecordType::A, (ResponseCode::NoError, &["192.0.2.78"])).await;
    }
    anew.becomes("a.secret.example.", RecordType::A, REFUSED).await;
}

#[tokio::test]
async fn authorities_that_cannot_be_read_leave_the_last_good_spec_in_force_as_a_whole() {
    let authorities = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let bad = json!({"hosts": [{"ip": "192.0.2.78", "names": ["printer.example"]}],
        "forwarding": {"protocol": "TLS", "tlsServerName": "dns.example", "caCertificates": authorities}});
    let cluster = Cluster::start(json!({})).await;
    cluster.set(bad.clone());
    cluster.rejected(true).await;
    cluster.becomes("printer.example.", RecordType::A, OUTSIDE).await;
    cluster.set(json!({}));
    cluster.rejected(false).await;

    let anew = Cluster::start(bad).await;
    anew.rejected(true).await;
    anew.becomes("printer.example.", RecordType::A, (ResponseCode::NoError, &["192.0.2.78"])).await;
    anew.becomes("www.example.", RecordType::A, (ResponseCode::ServFail, &[])).await;
    assert_eq!(anew.upstream.asked(), 0, "names for TLS are not asked in the clear");
}
