//! Kubernetes objects of the tests, as JSON values for `kubectl apply`.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::images::WORKLOAD as IMAGE;

/// TCP and UDP port on which a server of a workload answers with its own name.
pub const ECHO_PORT: u16 = 7000;
/// HTTP port of a server.
pub const HTTP_PORT: u16 = 8080;

/// Where a pod with kubectl has it.
pub const KUBECTL: &str = "/kubectl";

/// A pod that serves.
pub struct Pod<'a> {
    pub name: &'a str,
    pub node: &'a str,
    pub host_network: bool,
    /// What the workload program does: `serve` or `pause`.
    pub role: &'a str,
    /// A readiness probe, for as long as the pod lives.
    pub readiness: Option<Value>,
    /// kubectl on the node, to be had as [`KUBECTL`].
    pub kubectl: Option<PathBuf>,
}

impl<'a> Pod<'a> {
    /// A pod of the pod network that counts as ready when it has begun to serve.
    #[must_use]
    pub fn server(name: &'a str, node: &'a str) -> Self {
        Self { name, node, host_network: false, role: "serve", readiness: None, kubectl: None }
    }

    #[must_use]
    pub fn json(&self) -> Value {
        let mut spec = template();
        spec["nodeName"] = json!(self.node);
        spec["containers"][0]["args"] = json!([self.role]);
        if self.host_network {
            spec["hostNetwork"] = json!(true);
        }
        if self.role == "serve" {
            // Without it a pod counts as ready when its program has started, which may be before it listens.
            spec["containers"][0]["startupProbe"] = serves();
            spec["containers"][0]["startupProbe"]["failureThreshold"] = json!(60);
        }
        if let Some(readiness) = &self.readiness {
            spec["containers"][0]["readinessProbe"] = readiness.clone();
        }
        if let Some(path) = &self.kubectl {
            spec["volumes"] = json!([{"name": "kubectl", "hostPath": {"path": path, "type": "File"}}]);
            spec["containers"][0]["volumeMounts"] = json!([{"name": "kubectl", "mountPath": KUBECTL}]);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "labels": {"app": self.name}},
            "spec": spec,
        })
    }
}

/// A probe of whether a server serves.
fn serves() -> Value {
    json!({"tcpSocket": {"port": ECHO_PORT}, "periodSeconds": 1})
}

/// A Deployment of servers that are spread over the nodes and say when they serve.
#[must_use]
pub fn deployment(name: &str, replicas: usize) -> Value {
    let labels = json!({"app": name});
    let mut spec = template();
    spec["containers"][0]["readinessProbe"] = serves();
    spec["topologySpreadConstraints"] = json!([{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }]);
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    })
}

/// A Service for the pods labelled `app=<app>`: TCP `echo`, UDP `echo-udp` and TCP `http`.
#[must_use]
pub fn service(name: &str, app: &str, headless: bool) -> Value {
    let port =
        |name: &str, protocol: &str, port: u16| json!({"name": name, "protocol": protocol, "port": port});
    let ports =
        [port("echo", "TCP", ECHO_PORT), port("echo-udp", "UDP", ECHO_PORT), port("http", "TCP", HTTP_PORT)];
    let mut spec = json!({"selector": {"app": app}, "ports": ports});
    if headless {
        spec["clusterIP"] = json!("None");
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

#[must_use]
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn template() -> Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "main",
            "image": IMAGE,
            "imagePullPolicy": "Never",
            "args": ["serve"],
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        }],
        "tolerations": [{"operator": "Exists"}],
    })
}
