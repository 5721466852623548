//! What the zone holds of a large cluster, counted at the allocator, in a process of its own. The budgets are the measured sizes and a little
//! more: docs/dns.md says what they add up to.

use std::sync::Arc;

use arc_swap::ArcSwap;
use clap::Parser;
use futures::stream;
use netkeel_client::Event;
use netkeel_crds::cluster_network::{Dns, SearchPath};
use netkeel_dns::args::Args;
use netkeel_dns::live::Live;
use netkeel_dns::metrics::Metrics;
use netkeel_dns::watch::{Change, Follower, SeenPod, SeenService, SeenSlice};
use netkeel_dns::zone::Zone;
use netkeel_telemetry::metrics::Registry;
use netkeel_testkit::allocation::{Counting, in_use};
use serde_json::{Value, json};

#[global_allocator]
static COUNTING: Counting = Counting;

const SERVICES: usize = 2_000;
const SLICES: usize = 300;
const ENDPOINTS_PER_SLICE: usize = 100;
const PODS: usize = 30_000;

/// The lists of a cluster.
struct Lists {
    services: Vec<SeenService>,
    slices: Vec<SeenSlice>,
    pods: Vec<SeenPod>,
}

fn service(number: usize, headless: bool) -> SeenService {
    let address = format!("10.96.{}.{}", number >> 8, number & 255);
    let spec = json!({"clusterIP": if headless { "None" } else { &address }, "ports": [{"name": "http", "port": 80}]});
    let object = json!({"metadata": meta(number), "spec": spec});
    SeenService::read(&serde_json::from_value(object).expect("a Service"))
}

fn meta(number: usize) -> Value {
    json!({"name": format!("service-{number}"), "namespace": format!("team-{}", number % 50)})
}

/// With endpoints as those of a Deployment.
fn slice(number: usize, endpoints: usize) -> SeenSlice {
    let endpoint = |index: usize| {
        let of_all = number * ENDPOINTS_PER_SLICE + index;
        let address = format!("10.{}.{}.{}", of_all >> 16, of_all >> 8 & 255, of_all & 255);
        let pod = format!("service-{number}-7d4b9c5f6d-{index:05}");
        json!({"addresses": [address], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": pod}})
    };
    let mut meta = meta(number);
    meta["labels"] = json!({"kubernetes.io/service-name": meta["name"]});
    meta["name"] = format!("service-{number}-x7k2p").into();
    let endpoints: Vec<Value> = (0..endpoints).map(endpoint).collect();
    let ports = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
    let object = json!({"metadata": meta, "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
    SeenSlice::read(&serde_json::from_value(object).expect("a slice"))
}

fn pod(number: usize) -> SeenPod {
    let address = format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
    let meta = json!({"name": format!("pod-{number}"), "namespace": format!("team-{}", number % 50),
        "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web"}});
    let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]});
    SeenPod::read(&serde_json::from_value(json!({"metadata": meta, "status": status})).expect("a pod"))
}

/// So many Services, half of them headless where some have endpoints; the first of them have a full slice each, the others an empty one.
fn lists(full: usize) -> Lists {
    let endpoints = |number| if number < full { ENDPOINTS_PER_SLICE } else { 0 };
    Lists {
        pods: vec![],
        services: (0..SERVICES).map(|number| service(number, full > 0 && number % 2 == 0)).collect(),
        slices: (0..SERVICES).map(|number| slice(number, endpoints(number))).collect(),
    }
}

fn pods() -> Lists {
    Lists { services: vec![], slices: vec![], pods: (0..PODS).map(pod).collect() }
}

/// The zone that a follower makes of them.
fn zone(Lists { services, slices, pods }: Lists) -> Arc<ArcSwap<Zone>> {
    let metrics = Metrics::new(&Registry::new("dns", "0"), ([127, 0, 0, 1], 53).into(), "cluster.local.");
    let config = Args::try_parse_from(["netkeel-dns"]).expect("the defaults").config(vec![]);
    let zone = Zone::new(config.base.settings(&config.dns, vec![]), 1);
    let dns = Dns { search_path: SearchPath::ServerSide, ..config.dns };
    let live = Live::new(dns, &config.base, &metrics);
    let follower = Follower::new(zone, (config.base, live.expect("the defaults")), false, metrics);
    let published = follower.published();
    let services = Change::Service(Box::new(Event::Reset { objects: services, undecodable: vec![] }));
    let slices = Change::Slice(Box::new(Event::Reset { objects: slices, undecodable: vec![] }));
    let pods = Change::Pod(Box::new(Event::Reset { objects: pods, undecodable: vec![] }));
    futures::executor::block_on(follower.follow(stream::iter([services, slices, pods])));
    published
}

/// What `made` keeps, and how many bytes of them belong to one of `count`.
fn each<T>(count: usize, work: impl FnOnce() -> T) -> (T, usize) {
    let before = in_use();
    let made = work();
    let kept = in_use().checked_sub(before).expect("what is made takes memory");
    (made, kept / count)
}

/// Bytes of one of `count` in lists that are under way, and in the zone.
fn sizes(count: usize, lists: impl Fn() -> Lists) -> (usize, usize) {
    let (under_way, listed) = each(count, &lists);
    drop(under_way);
    let (_zone, known) = each(count, || zone(lists()));
    (listed, known)
}

/// Memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc(5)");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// One test, since the count is of the whole process.
#[test]
fn services_endpoints_and_pods_of_a_large_cluster_take_no_more_than_their_budgets() {
    let before = resident();
    let (all, kept) = each(1, || zone(Lists { pods: pods().pods, ..lists(SLICES) }));
    let resident = resident() - before;
    drop(all);
    let (service_listed, service) = sizes(SERVICES, || lists(0));
    let (listed, known) = sizes(SERVICES, || lists(SLICES));
    let of_endpoint =
        |all: usize, service: usize| (all - service) * SERVICES / (SLICES * ENDPOINTS_PER_SLICE);
    let (pod_listed, pod) = sizes(PODS, pods);
    let found = [
        ("a Service in a list", service_listed, 800),
        ("a Service that is known", service, 900),
        ("an endpoint in a list", of_endpoint(listed, service_listed), 65),
        ("an endpoint that is known", of_endpoint(known, service), 125),
        ("a pod in a list", pod_listed, 75),
        ("a pod that is known", pod, 85),
    ];
    println!("bytes: {found:?}; resident: {resident}, of which are kept: {kept}");
    for (what, found, budget) in found {
        assert!(found <= budget, "{what}: {found} bytes, {budget} are its budget");
    }
    assert!(
        resident <= kept + kept / 4,
        "{resident} bytes are resident, {kept} are kept: too much is lost between"
    );
}
