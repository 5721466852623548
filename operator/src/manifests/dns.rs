//! The cluster's DNS: a Deployment beside the Service `kube-dns` that everything looks for.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Release, metadata, probe};

/// Namespace of the cluster's DNS.
pub const NAMESPACE: &str = "kube-system";
/// Name of the Deployment, its container and its service account.
pub const NAME: &str = "netkeel-dns";
/// Name of the Service.
pub const SERVICE: &str = "kube-dns";
/// The label by which tools find the cluster's DNS.
const LABEL: (&str, &str) = ("k8s-app", "kube-dns");
/// Port of /metrics, /healthz and /readyz.
const ADMIN_PORT: u16 = 9472;

/// How DNS is to answer.
#[derive(Clone, Debug)]
pub struct Dns {
    /// Domain that the names of Services end in.
    pub cluster_domain: String,
    /// Number of pods.
    pub replicas: u32,
    /// Resolvers for names outside the cluster; none: those of the node.
    pub upstreams: Vec<SocketAddr>,
    /// Ranges of service addresses, whose reverse names stay in the cluster.
    pub service_cidrs: Vec<IpNet>,
    /// Address of the Service.
    pub cluster_ip: IpAddr,
    /// Collector of traces.
    pub traces_endpoint: Option<String>,
}

impl Dns {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("--cluster-domain={}", self.cluster_domain)];
        arguments.extend(self.upstreams.iter().map(|upstream| format!("--upstream={upstream}")));
        arguments.extend(self.service_cidrs.iter().map(|cidr| format!("--service-cidr={cidr}")));
        arguments.extend(self.traces_endpoint.iter().map(|endpoint| format!("--traces-endpoint={endpoint}")));
        arguments
    }
}

/// The Deployment.
#[must_use]
pub fn deployment(release: &Release, dns: &Dns) -> Value {
    let selector = json!({LABEL.0: LABEL.1});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(release, NAMESPACE, NAME, &[LABEL, ("app.kubernetes.io/name", "netkeel"), ("app.kubernetes.io/component", "dns")]),
        "spec": {
            "replicas": dns.replicas,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": selector}, "spec": pod(release, dns)},
        },
    })
}

fn pod(release: &Release, dns: &Dns) -> Value {
    json!({
        "serviceAccountName": NAME,
        "dnsPolicy": "Default",
        "priorityClassName": "system-cluster-critical",
        "tolerations": [
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
        ],
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {LABEL.0: LABEL.1}},
        }],
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
            // Port 53 without a capability; the sysctl belongs to the pod's own network namespace.
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
        },
        "containers": [{
            "name": NAME,
            "image": release.image,
            "imagePullPolicy": release.pull_policy,
            "command": ["/netkeel-dns"],
            "args": dns.arguments(),
            "ports": [
                {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
                {"name": "metrics", "containerPort": ADMIN_PORT, "protocol": "TCP"},
            ],
            "readinessProbe": probe("/readyz", ADMIN_PORT, 1, 2),
            "livenessProbe": probe("/healthz", ADMIN_PORT, 10, 6),
            "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
        }],
    })
}

/// The Service.
#[must_use]
pub fn service(release: &Release, dns: &Dns) -> Value {
    let labels = [LABEL, ("kubernetes.io/cluster-service", "true"), ("kubernetes.io/name", "KubeDNS")];
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(release, NAMESPACE, SERVICE, &labels),
        "spec": {
            "selector": {LABEL.0: LABEL.1},
            "clusterIP": dns.cluster_ip,
            "ports": [
                {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "targetPort": 53, "protocol": "TCP"},
                {"name": "metrics", "port": ADMIN_PORT, "targetPort": ADMIN_PORT, "protocol": "TCP"},
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::tests::release;
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};

    fn dns() -> Dns {
        Dns {
            cluster_domain: "cluster.local".into(),
            replicas: 2,
            upstreams: vec!["192.0.2.1:53".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            cluster_ip: "10.96.0.10".parse().unwrap(),
            traces_endpoint: None,
        }
    }

    #[test]
    fn the_service_selects_the_pods_of_the_deployment() {
        let deployment: Deployment = serde_json::from_value(deployment(&release(), &dns())).unwrap();
        let service: Service = serde_json::from_value(service(&release(), &dns())).unwrap();
        let labels = deployment.spec.unwrap().template.metadata.unwrap().labels.unwrap();
        let spec = service.spec.unwrap();
        assert!(spec.selector.unwrap().iter().all(|(key, value)| labels.get(key) == Some(value)));
        assert_eq!(spec.cluster_ip.as_deref(), Some("10.96.0.10"));
    }

    #[test]
    fn settings_become_arguments() {
        let want =
            ["--cluster-domain=cluster.local", "--upstream=192.0.2.1:53", "--service-cidr=10.96.0.0/16"];
        assert_eq!(dns().arguments(), want);
    }

    #[test]
    fn dns_runs_without_root_and_without_capabilities() {
        let deployment: Deployment = serde_json::from_value(deployment(&release(), &dns())).unwrap();
        let pod = deployment.spec.unwrap().template.spec.unwrap();
        assert_eq!(pod.security_context.unwrap().run_as_non_root, Some(true));
        let capabilities = pod.containers[0].security_context.clone().unwrap().capabilities.unwrap();
        assert_eq!((capabilities.add, capabilities.drop.unwrap()), (None, vec!["ALL".to_owned()]));
    }
}
