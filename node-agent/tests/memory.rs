//! What the agent holds of a large cluster, counted at the allocator. The budgets are the measured sizes and a little more:
//! docs/performance.md has what they add up to.

use std::{collections::HashMap, sync::Arc};

use netkeel_agent::{
    pods::{SeenPod, SeenPodReader},
    policy::{Programmer, knowledge::Knowledge, maps::Maps},
    services::ServiceTables,
};
use netkeel_client::Event;
use netkeel_dataplane_loader::{Table, TableError};
use netkeel_index::{SeenSlice, Services};
use netkeel_testkit::allocation::{Counting, in_use};
use serde_json::{Value, json};

#[global_allocator]
static COUNTING: Counting = Counting;

const PODS: usize = 20_000;
const SERVICES: usize = 200;
const ENDPOINTS: usize = 100;

/// A map that holds nothing: the kernel's are not the agent's memory.
struct Nowhere;

impl<K, V> Table<K, V> for Nowhere {
    fn dump(&self) -> Result<HashMap<K, V>, TableError> {
        Ok(HashMap::new())
    }

    fn get(&self, _: &K) -> Result<Option<V>, TableError> {
        Ok(None)
    }

    fn put(&mut self, _: &K, _: &V) -> Result<(), TableError> {
        Ok(())
    }

    fn remove(&mut self, _: &K) -> Result<(), TableError> {
        Ok(())
    }
}

fn maps() -> Maps {
    Maps {
        identities: Box::new(Nowhere),
        cidrs: Box::new(Nowhere),
        policies: Box::new(Nowhere),
        endpoints: Box::new(Nowhere),
        links: Box::new(Nowhere),
        epoch: Box::new(Nowhere),
    }
}

fn address(number: usize) -> String {
    format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255)
}

fn pod(number: usize, labels: &Value) -> Value {
    json!({
        "metadata": {"name": format!("pod-{number}"), "namespace": format!("team-{}", number % 50), "labels": labels,
            "uid": format!("00000000-0000-0000-0000-{number:012}"), "resourceVersion": "1"},
        "spec": {"nodeName": format!("node-{}", number / 500)},
        "status": {"phase": "Running", "podIP": address(number), "podIPs": [{"ip": address(number)}]},
    })
}

/// As those of a Deployment: a hundred pods have the same.
fn shared(number: usize) -> Value {
    json!({"app": format!("app-{}", number / 50 % 10), "pod-template-hash": format!("{:08x}", number % 500), "tier": "bench"})
}

/// As those of a `StatefulSet`: each pod has its own.
fn single(number: usize) -> Value {
    json!({"app": format!("app-{}", number / 50 % 10), "apps.kubernetes.io/pod-index": (number % 500).to_string(),
        "controller-revision-hash": format!("web-{:08x}", number % 500), "statefulset.kubernetes.io/pod-name": format!("pod-{number}")})
}

fn list(labels: fn(usize) -> Value) -> Vec<SeenPod> {
    let mut reader = SeenPodReader::new("own");
    let mut read = |number| reader.read(serde_json::from_value(pod(number, &labels(number))).expect("a pod"));
    (0..PODS).map(&mut read).collect()
}

/// What `made` keeps, and how many bytes of them belong to one of `count`.
fn each<T>(count: usize, work: impl FnOnce() -> T) -> (T, usize) {
    let before = in_use();
    let made = work();
    let kept = in_use().checked_sub(before).expect("what is made takes memory");
    (made, kept / count)
}

/// Bytes of a pod in a list that is under way, and in the index with all that is made of it.
fn sizes(labels: fn(usize) -> Value) -> (usize, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let programmer = Programmer::restore(maps(), Arc::default()).expect("empty maps");
    programmer.take_over(&[]).expect("nothing to write");
    let (objects, listed) = each(PODS, || list(labels));
    drop(objects);
    let (_knowledge, known) = each(PODS, || {
        let mut knowledge = Knowledge::restore("own", folder.path(), folder.path());
        knowledge.pod_event(Event::Reset { objects: list(labels), undecodable: vec![] });
        let outcome = knowledge.program(&programmer, true).expect("a folder to write to");
        assert_eq!(outcome.identities, PODS);
        knowledge
    });
    (listed, known)
}

fn services() -> (Services, ServiceTables<Nowhere, Nowhere>) {
    let (mut services, mut tables) =
        (Services::default(), ServiceTables::restore(Nowhere, Nowhere).expect("empty maps"));
    for number in 0..SERVICES {
        let name = format!("service-{number}");
        let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
        services.apply_service(
            &serde_json::from_value(json!({"metadata": {"name": name, "namespace": "team"},
            "spec": {"clusterIP": format!("10.96.0.{number}"), "ports": ports}}))
            .expect("a Service"),
        );
        let endpoints = (0..ENDPOINTS).map(|of| json!({"addresses": [address(number * ENDPOINTS + of)]}));
        let object = json!({"metadata": {"name": name, "namespace": "team", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints.collect::<Vec<_>>()});
        services.apply_slice(SeenSlice::read(&serde_json::from_value(object).expect("a slice"), "n1"));
    }
    let names: Vec<_> = services.iter().map(|service| service.name.clone()).collect();
    tables.update(names.into_iter().map(|name| (name.clone(), services.frontends(&name))));
    assert_eq!(tables.frontends(), SERVICES);
    (services, tables)
}

/// One test, since the count is of the whole process.
#[test]
fn a_pod_and_an_endpoint_of_a_large_cluster_take_no_more_than_their_budgets() {
    let (listed, known) = sizes(shared);
    let (listed_alone, known_alone) = sizes(single);
    let (_services, endpoint) = each(SERVICES * ENDPOINTS, services);
    let found = [listed, known, listed_alone, known_alone, endpoint];
    println!("bytes: {found:?}");
    for (what, found, budget) in [
        ("a pod with shared labels in a list", listed, 250),
        ("a pod with shared labels that is known", known, 500),
        ("a pod with labels of its own in a list", listed_alone, 500),
        ("a pod with labels of its own that is known", known_alone, 750),
        ("an endpoint", endpoint, 170),
    ] {
        assert!(found <= budget, "{what}: {found} bytes, {budget} are its budget");
    }
}
