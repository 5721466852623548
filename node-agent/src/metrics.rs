//! The agent's figures.

use std::{collections::HashMap, sync::Once};

use netkeel_dataplane_loader::{Datapath, Error};
use netkeel_telemetry::metrics::{Counter, Family, Gauge, Histogram, Labels, Registry, SECONDS};

use crate::path::Proof;

const DNS_LOCAL: &str = "1 while DNS questions of the node go to a server on it, with placement EveryNode; 0 while they go to others";

/// The agent's figures. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    drops: Family<Labels, Counter>,
    map_bytes: Family<Labels, Gauge>,
    /// Service ports in the kernel.
    pub frontends: Gauge,
    /// Whether the node's own DNS server serves its clients.
    pub dns_local: Gauge,
    /// Writes to the maps of services.
    pub service_writes: Counter,
    /// Services that could not be written.
    pub services_failed: Gauge,
    /// From a batch of events to the last map write.
    pub programming: Histogram,
    /// Policies that are known.
    pub policies: Gauge,
    /// Parts of policies that are not implemented.
    pub policy_unsupported: Gauge,
    /// Pods that are closed in a direction because their policy is not known or does not fit.
    pub endpoints_closed: Gauge,
    /// Tables of policies in the kernel.
    pub policy_tables: Gauge,
    /// Entries of all these tables.
    pub policy_entries: Gauge,
    /// Addresses with an identity.
    pub identities: Gauge,
    /// Leaves of the CIDRs of policies.
    pub cidrs: Gauge,
    /// Writes to the maps of policy.
    pub policy_writes: Counter,
    /// From the first event of a batch to its last map write.
    pub policy_programming: Histogram,
    /// Failures to set up the node, by reason.
    pub failures: Family<Labels, Counter>,
    /// Objects that are ignored because they are impossible.
    pub invalid_objects: Gauge,
    /// Pods' addresses in use.
    pub addresses_used: Gauge,
    /// Pods' addresses there are.
    pub addresses_capacity: Gauge,
    /// Pods' addresses that were freed a moment ago.
    pub addresses_resting: Gauge,
    /// Pods that were sent away for want of an address.
    pub address_refusals: Counter,
    path_probes: Family<Labels, Counter>,
    /// Nodes that full-size packets do not reach.
    pub paths_too_large: Gauge,
}

impl Metrics {
    /// Registers all of them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let gauge = |what: &str, help: &str| registry.gauge(&format!("netkeel_agent_{what}"), help);
        Self {
            drops: registry.counters(
                "netkeel_agent_drops",
                "Packets and connections not let through, by reason",
                &["reason"],
            ),
            map_bytes: registry.gauges("netkeel_agent_map_bytes", "Kernel memory of each map", &["map"]),
            frontends: gauge("service_frontends", "Service ports in the kernel"),
            dns_local: gauge("dns_local", DNS_LOCAL),
            service_writes: registry
                .counter("netkeel_agent_service_map_writes", "Writes to the maps of services"),
            services_failed: gauge("services_failed", "Services that could not be written to the kernel"),
            programming: registry.histogram(
                "netkeel_agent_service_programming_seconds",
                "From a batch of events to the last map write",
                &SECONDS,
            ),
            policies: gauge("policies", "Policies that are known"),
            policy_unsupported: gauge(
                "policy_unsupported_parts",
                "Parts of policies that are not implemented and allow nothing",
            ),
            endpoints_closed: gauge(
                "policy_endpoints_closed",
                "Pods that are closed because their policy is not known or does not fit",
            ),
            policy_tables: gauge("policy_tables", "Tables of policies in the kernel"),
            policy_entries: gauge("policy_entries", "Entries of all tables of policies in the kernel"),
            identities: gauge("policy_identities", "Addresses with an identity in the kernel"),
            cidrs: gauge("policy_cidrs", "Leaves of the CIDRs of policies in the kernel"),
            policy_writes: registry
                .counter("netkeel_agent_policy_map_writes", "Writes to the maps of policy"),
            policy_programming: registry.histogram(
                "netkeel_agent_policy_programming_seconds",
                "From the first event of a batch to its last map write",
                &SECONDS,
            ),
            failures: registry.counters(
                "netkeel_agent_failures",
                "Failures to set up the node, by reason",
                &["reason"],
            ),
            invalid_objects: gauge("invalid_objects", "Objects that are ignored because they are impossible"),
            addresses_used: gauge("addresses_used", "Pod addresses in use"),
            addresses_capacity: gauge("addresses_capacity", "Pod addresses of the node's blocks"),
            addresses_resting: gauge(
                "addresses_resting",
                "Pod addresses freed less than 30 s ago, which nobody gets yet",
            ),
            address_refusals: registry.counter(
                "netkeel_agent_address_refusals",
                "Attempts to start a pod that found no free address on the node",
            ),
            path_probes: path_probes(registry),
            paths_too_large: gauge(
                "paths_too_large",
                "Nodes that packets as large as pods send them do not reach",
            ),
        }
    }

    /// Takes over what is known of the ways to other nodes.
    pub fn paths(&self, proof: &Proof) {
        for (result, count) in [("arrived", proof.arrived), ("lost", proof.lost), ("silent", proof.silent)] {
            let probes = self.path_probes.get_or_create(&vec![("result", result.to_owned())]);
            probes.inc_by(count.saturating_sub(probes.get()));
        }
        self.paths_too_large.set(i64::try_from(proof.too_large.len()).unwrap_or(i64::MAX));
    }

    /// Counts a failure.
    pub fn failed(&self, reason: &str) {
        self.failures.get_or_create(&vec![("reason", reason.to_owned())]).inc();
    }

    /// Takes over what the kernel counted since `seen`.
    pub fn read_kernel(&self, datapath: &Datapath, seen: &mut HashMap<&'static str, u64>) {
        for (reason, count) in told_once(datapath.counters()) {
            let before = seen.insert(reason.name(), count).unwrap_or(0);
            let labels = vec![("reason", reason.name().to_owned())];
            self.drops.get_or_create(&labels).inc_by(count.saturating_sub(before));
        }
        for (map, bytes) in told_once(datapath.map_bytes()) {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.map_bytes.get_or_create(&vec![("map", map.to_owned())]).set(bytes);
        }
    }
}

fn path_probes(registry: &Registry) -> Family<Labels, Counter> {
    registry.counters(
        "netkeel_agent_path_probes",
        "Full-size packets to other nodes by result: arrived, lost where smaller ones are answered, silent where nothing is",
        &["result"],
    )
}

/// What was read. The first failure is logged, the others would only repeat it every few seconds.
fn told_once<T: Default>(read: Result<T, Error>) -> T {
    static TOLD: Once = Once::new();
    read.unwrap_or_else(|error| {
        TOLD.call_once(|| {
            tracing::warn!(error = &error as &dyn std::error::Error, "the kernel's figures cannot be read");
        });
        T::default()
    })
}
