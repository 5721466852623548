//! `dns-footprint-large`: resident memory of netkeel-dns in a cluster with 150,000 endpoints, in slices of a hundred, and 8,200 Services,
//! every other one headless. The endpoints are objects that no pod stands behind. The cluster is good for nothing else afterwards.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::Workload;
use serde_json::{Value, json};

use super::api::Api;
use super::bed::Bed;
use super::dns_qps;
use super::figure::{Figure, Unit};
use super::large::many;
use crate::setup;

const SERVICES: usize = 8_200;
const SLICES: usize = 1_500;
const ENDPOINTS_PER_SLICE: usize = 100;
const NAMESPACES: usize = 50;
const READY: Duration = Duration::from_mins(2);

pub(super) fn run(bed: &Bed) -> Result<Vec<Figure>> {
    setup::require(&[("/usr/bin/dnsperf", "dnsperf")])?;
    let api = Api::start(bed)?;
    for index in 0..NAMESPACES {
        Workload::new(&bed.cluster, &namespace(index))?;
    }
    many(SERVICES, |index| {
        api.create(&format!("/api/v1/namespaces/{}/services", namespace(index)), &service(index)).map(drop)
    })?;
    bed.progress.say(format!("there are {SERVICES} Services"));
    many(SLICES, |index| {
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", namespace(index));
        api.create(&path, &slice(index)).map(drop)
    })?;
    bed.progress.say(format!("there are {} endpoints", SLICES * ENDPOINTS_PER_SLICE));
    let question = bed.cluster.folder().join("bench-dns-question");
    let endpoint = address(SLICES - 1, ENDPOINTS_PER_SLICE - 1).replace('.', "-");
    let name = format!("{endpoint}.{}.{}.svc.cluster.local", name(SLICES - 1), namespace(SLICES - 1));
    fs::write(&question, format!("{name} A\n"))?;
    let server = dns_qps::ours(bed)?;
    wait_until("netkeel-dns", READY, || {
        let said = server.ask(bed, &question, &["-n", "1"])?;
        ensure!(said.contains("NOERROR 1 (100.00%)"), "the last endpoint is not known");
        Ok(())
    })?;
    bed.settle()?;
    Ok(vec![Figure::new("dns-footprint-large", server.resident(bed)?, Unit::Mebibytes)])
}

fn namespace(index: usize) -> String {
    format!("bench-dns-large-{}", index % NAMESPACES)
}

fn name(index: usize) -> String {
    format!("service-{index}")
}

/// Without a selector, so that nobody else writes slices, and left alone by the agents, whose load is none of this figure's.
fn service(index: usize) -> Value {
    let ports = json!([{"name": "http", "port": 80}]);
    let spec = if index.is_multiple_of(2) {
        json!({"clusterIP": "None", "ports": ports})
    } else {
        json!({"ports": ports})
    };
    let labels = json!({"service.kubernetes.io/service-proxy-name": "none"});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name(index), "labels": labels}, "spec": spec})
}

fn address(slice: usize, endpoint: usize) -> String {
    let of_all = slice * ENDPOINTS_PER_SLICE + endpoint;
    format!("10.{}.{}.{}", 200 + (of_all >> 16), of_all >> 8 & 255, of_all & 255)
}

/// Its endpoints are called as those of a Deployment.
fn slice(index: usize) -> Value {
    let service = name(index);
    let endpoint = |endpoint: usize| {
        let pod = format!("{service}-7d4b9c5f6d-{endpoint:05}");
        let target = json!({"kind": "Pod", "name": pod, "namespace": namespace(index)});
        json!({"addresses": [address(index, endpoint)], "conditions": {"ready": true}, "targetRef": target})
    };
    let endpoints: Vec<Value> = (0..ENDPOINTS_PER_SLICE).map(endpoint).collect();
    let labels = json!({"kubernetes.io/service-name": service});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{service}-x7k2p"), "labels": labels},
        "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_endpoint_has_an_address_of_its_own() {
        let all = (0..SLICES)
            .flat_map(|slice| (0..ENDPOINTS_PER_SLICE).map(move |endpoint| address(slice, endpoint)));
        let all: BTreeSet<String> = all.collect();
        assert_eq!(all.len(), 150_000);
        assert!(all.iter().all(|address| address.parse::<std::net::Ipv4Addr>().is_ok()));
        assert_eq!(slice(0)["endpoints"].as_array().map(Vec::len), Some(ENDPOINTS_PER_SLICE));
        assert_eq!(
            (0..SERVICES).filter(|index| service(*index)["spec"]["clusterIP"] == "None").count(),
            SERVICES / 2
        );
    }
}
