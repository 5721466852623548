//! The DNS servers and the Service `kube-dns` in front of them, in `kube-system` as the rest of the world expects.

mod tls;

use std::net::IpAddr;

use kube::ResourceExt;
use netkeel_crds::{ClusterNetwork, cluster_network::dns::Placement};
use netkeel_index::convert::PREFER_SAME_NODE;
use serde_json::{Value, json};

use super::{labels, owners, part};
use crate::{
    observed::Observed,
    plan::{Part, PartName},
    settings::Settings,
};

/// The label by which the world finds cluster DNS.
const KUBE_DNS: (&str, &str) = ("k8s-app", "kube-dns");
/// The label that tells the `DaemonSet`'s pods from the Deployment's, which has all others.
const EVERY_NODE: (&str, &str) = ("netkeel.io/dns-placement", "every-node");
/// Where a server keeps what it knows.
const STATE: &str = "/state";
/// Namespace of all of them.
pub const NAMESPACE: &str = "kube-system";

/// The name of the Deployment.
#[must_use]
pub fn deployment_name() -> PartName {
    PartName {
        api_version: "apps/v1",
        kind: "Deployment",
        namespace: NAMESPACE.to_owned(),
        name: "netkeel-dns",
    }
}

/// The name of the `DaemonSet`, which there is in place of the Deployment with a server on every node.
#[must_use]
pub fn daemon_set_name() -> PartName {
    PartName { kind: "DaemonSet", ..deployment_name() }
}

/// The name of the Service.
#[must_use]
pub fn service_name() -> PartName {
    PartName { api_version: "v1", kind: "Service", namespace: NAMESPACE.to_owned(), name: "kube-dns" }
}

/// The name of the `NetworkPolicy` that keeps others from cutting the servers off.
#[must_use]
pub fn policy_name() -> PartName {
    PartName {
        api_version: "networking.k8s.io/v1",
        kind: "NetworkPolicy",
        namespace: NAMESPACE.to_owned(),
        name: "netkeel-dns",
    }
}

/// Allows the servers everything. What one policy allows no other takes away, so that one which selects all pods of the namespace leaves them alone.
#[must_use]
pub fn policy(network: &ClusterNetwork) -> Part {
    let metadata = json!({"labels": labels("dns"), "ownerReferences": owners(network)});
    let spec = json!({
        "podSelector": {"matchLabels": selector()},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{}],
        "egress": [{}],
    });
    part(policy_name(), metadata, &spec)
}

fn dns_labels() -> Value {
    let mut labels = labels("dns");
    labels[KUBE_DNS.0] = KUBE_DNS.1.into();
    labels
}

/// Only our own servers: another DNS in the cluster carries the label `k8s-app` too.
#[must_use]
pub fn selector() -> Value {
    json!({"app.kubernetes.io/name": "netkeel-dns", KUBE_DNS.0: KUBE_DNS.1})
}

/// The Service in front of the servers.
#[must_use]
pub fn service(network: &ClusterNetwork, address: IpAddr) -> Part {
    let mut labels = dns_labels();
    labels["kubernetes.io/cluster-service"] = "true".into();
    labels["kubernetes.io/name"] = "CoreDNS".into(); // the name by which `kubectl cluster-info` finds it
    // No owner: one that was handed over and taken back must outlive the network. The removal deletes it.
    let metadata = json!({
        "labels": labels,
        "annotations": {"prometheus.io/port": "9472", "prometheus.io/scrape": "true"},
    });
    let mut spec = json!({
        "clusterIP": address.to_string(),
        "ipFamilyPolicy": "PreferDualStack",
        "selector": selector(),
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            {"name": "metrics", "port": 9472, "protocol": "TCP", "targetPort": 9472},
        ],
    });
    if network.spec.dns.placement == Placement::EveryNode {
        spec["trafficDistribution"] = PREFER_SAME_NODE.into();
    }
    if network.spec.dns.tls.is_some() {
        tls::add_to_service(&mut spec);
    }
    part(service_name(), metadata, &spec)
}

/// So many servers as `replicas` says.
#[must_use]
pub fn deployment(network: &ClusterNetwork, seen: &Observed, settings: &Settings) -> Part {
    let spec = json!({
        "replicas": network.spec.dns.replicas,
        "selector": {"matchLabels": {"app.kubernetes.io/name": "netkeel-dns"}},
        "strategy": rolling(),
        "template": {"metadata": {"labels": dns_labels()}, "spec": replica(network, seen, settings)},
    });
    part(deployment_name(), of_servers(network), &spec)
}

/// A server on each node that has an agent.
#[must_use]
pub fn daemon_set(network: &ClusterNetwork, seen: &Observed, settings: &Settings) -> Part {
    let mut labels = dns_labels();
    labels[EVERY_NODE.0] = EVERY_NODE.1.into();
    let spec = json!({
        "selector": {"matchLabels": {"app.kubernetes.io/name": "netkeel-dns", EVERY_NODE.0: EVERY_NODE.1}},
        "updateStrategy": rolling(),
        "template": {"metadata": {"labels": labels}, "spec": of_node(network, seen, settings)},
    });
    part(daemon_set_name(), of_servers(network), &spec)
}

fn of_servers(network: &ClusterNetwork) -> Value {
    json!({"labels": dns_labels(), "ownerReferences": owners(network)})
}

/// A new server answers before an old one goes, with one replica, and on each node, too.
fn rolling() -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}})
}

fn replica(network: &ClusterNetwork, seen: &Observed, settings: &Settings) -> Value {
    let mut pod = pod(network, seen, settings);
    pod["priorityClassName"] = "system-cluster-critical".into();
    pod["tolerations"] = json!([
        {"key": "CriticalAddonsOnly", "operator": "Exists"},
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"},
    ]);
    pod["topologySpreadConstraints"] = json!([{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "netkeel-dns"}},
    }]);
    pod
}

fn of_node(network: &ClusterNetwork, seen: &Observed, settings: &Settings) -> Value {
    let mut pod = pod(network, seen, settings);
    pod["priorityClassName"] = "system-node-critical".into();
    pod["tolerations"] = json!([{"operator": "Exists"}]);
    pod
}

/// What servers have in common, wherever they run.
fn pod(network: &ClusterNetwork, seen: &Observed, settings: &Settings) -> Value {
    let mut pod = json!({
        "serviceAccountName": "netkeel-dns",
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 15,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
        },
        "containers": [server(network, seen, settings)],
        // Lives as long as the pod: a container that starts again finds what the last one knew.
        "volumes": [{"name": "state", "emptyDir": {}}],
    });
    if let Some(told) = &network.spec.dns.tls {
        tls::add_to_pod(&mut pod, told);
    }
    pod
}

/// Whether pods have IPv6 addresses.
fn has_ipv6(network: &ClusterNetwork) -> bool {
    let mut cidrs = network.spec.pod_network.pools.iter().flat_map(|pool| &pool.cidrs);
    cidrs.any(|cidr| cidr.network().is_ipv6())
}

fn server(network: &ClusterNetwork, seen: &Observed, settings: &Settings) -> Value {
    let dns = &network.spec.dns;
    let mut command =
        vec!["/netkeel-dns".to_owned(), "--cluster-domain".to_owned(), dns.cluster_domain.clone()];
    let mut option = |name: &str, value: String| command.extend([name.to_owned(), value]);
    if has_ipv6(network) {
        // One socket for both families; a kernel without IPv6 has none.
        option("--listen", "[::]:53".to_owned());
        option("--admin", "[::]:9472".to_owned());
    }
    option("--cluster-network", network.name_any());
    option("--state", STATE.to_owned());
    for cidr in &seen.service_cidrs {
        option("--service-cidr", cidr.to_string());
    }
    if let Some(endpoint) = &seen.collector {
        option("--traces-endpoint", endpoint.clone());
        option("--traces-sampling-ratio", network.spec.observability.traces.sampling_ratios.dns.to_string());
    }
    json!({
        "name": "dns",
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": command,
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "NETKEEL_API_SERVERS", "value": settings.api_servers_text()},
        ],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
            {"name": "metrics", "containerPort": 9472, "protocol": "TCP"},
        ],
        "volumeMounts": [{"name": "state", "mountPath": STATE}],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "160Mi"}},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 9472}, "periodSeconds": 10, "failureThreshold": 6, "timeoutSeconds": 3},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9472}, "periodSeconds": 2, "failureThreshold": 2},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    })
}
