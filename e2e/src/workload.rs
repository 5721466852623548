//! Workloads of the tests: namespaces with pods and Services, and clients that run in those pods or on nodes.
//! Everything goes through kubectl, as a user would do it.
#![expect(clippy::missing_errors_doc, reason = "every error is a failed kubectl or a wait that ran out")]

pub mod client;
pub mod install;
pub mod manifest;
pub mod prober;
pub mod sandbox;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{Cluster, wait_until};
pub use client::{Answer, Client};
pub use install::shared;
pub use manifest::Pod;
pub use manifest::{ECHO_PORT, HTTP_PORT};
pub use prober::Prober;

/// A pod that needs longer than this to become ready never will: fifty at once, on a machine with three clusters and half of its usual speed, took
/// more than a minute.
const READY: Duration = Duration::from_mins(2);

/// Pods of [`Workload::peers`]: a pair on each node, and one of two nodes both ways.
pub const PAIRS: [(&str, &str); 4] =
    [("first-0", "second-0"), ("first-1", "second-1"), ("first-0", "first-1"), ("first-1", "first-0")];

/// One namespace of a test.
pub struct Workload<'a> {
    cluster: &'a Cluster,
    namespace: String,
}

/// The first of these addresses, which blanks are between, that is of a family.
#[must_use]
pub fn of_family(addresses: &str, ipv6: bool) -> Option<String> {
    addresses.split_whitespace().find(|ip| ip.contains(':') == ipv6).map(str::to_owned)
}

impl<'a> Workload<'a> {
    /// A fresh namespace; one of an earlier run is deleted first.
    pub fn new(cluster: &'a Cluster, namespace: &str) -> Result<Self> {
        let workload = Self { cluster, namespace: namespace.into() };
        workload.delete_namespace()?;
        cluster.apply(&manifest::namespace(namespace).to_string())?;
        wait_until("the default service account", READY, || {
            workload.kubectl(&["get", "serviceaccount", "default"])
        })?;
        Ok(workload)
    }

    #[must_use]
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn delete_namespace(&self) -> Result<()> {
        self.cluster
            .kubectl(&["delete", "namespace", &self.namespace, "--ignore-not-found", "--timeout=90s"])
            .map(drop)
    }

    /// The same for the end of a test, which does not wait until the namespace is gone: that takes ten seconds and more.
    pub fn end(&self) -> Result<()> {
        let delete = ["delete", "namespace", &self.namespace, "--ignore-not-found", "--wait=false"];
        self.cluster.kubectl(&delete).map(drop)
    }

    /// kubectl in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[&["-n", &self.namespace], arguments].concat())
    }

    /// Applies objects in one call; those that name no namespace get this one.
    pub fn apply(&self, objects: Vec<Value>) -> Result<()> {
        let objects: Vec<Value> = objects
            .into_iter()
            .map(|mut object| {
                object["metadata"]["namespace"] = json!(self.namespace);
                object
            })
            .collect();
        self.cluster
            .apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())
            .map(drop)
    }

    /// A pod that serves, on a node.
    pub fn pod(&self, name: &str, node: &str) -> Result<()> {
        self.apply(vec![Pod::server(name, node).json()])
    }

    /// Two pods that serve on each of two nodes: `first-0` and `second-0` on the first.
    pub fn peers(&self) -> Result<()> {
        let on = |(index, node): (usize, String)| {
            ["first", "second"].map(|name| Pod::server(&format!("{name}-{index}"), &node).json())
        };
        self.apply(node_names(self.cluster).into_iter().enumerate().take(2).flat_map(on).collect())
    }

    /// A `NetworkPolicy`.
    pub fn policy(&self, name: &str, spec: &Value) -> Result<()> {
        self.apply(vec![json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec,
        })])
    }

    /// A policy that lets only these peers in to the pod of this name.
    pub fn let_in(&self, policy: &str, pod: &str, from: &[Value]) -> Result<()> {
        let selector = json!({"matchLabels": {"app": pod}});
        self.policy(policy, &json!({"podSelector": selector, "ingress": [{"from": from}]}))
    }

    /// A pod on the host's network that does nothing: a place for clients that takes no port of the node.
    pub fn host_client(&self, name: &str, node: &str) -> Result<()> {
        self.apply(vec![Pod { host_network: true, role: "pause", ..Pod::server(name, node) }.json()])
    }

    /// A pod that serves on the host's network.
    pub fn host_pod(&self, name: &str, node: &str) -> Result<()> {
        self.apply(vec![Pod { host_network: true, ..Pod::server(name, node) }.json()])
    }

    /// A pod that serves and has kubectl.
    pub fn kubectl_pod(&self, name: &str, node: &str) -> Result<()> {
        let command = self.cluster.kubectl_command()?;
        let kubectl = command.get_args().map(PathBuf::from).find(|argument| argument.ends_with("kubectl"));
        let kubectl = Some(kubectl.context("the command runs kubectl")?);
        self.apply(vec![Pod { kubectl, ..Pod::server(name, node) }.json()])
    }

    /// Servers under a Deployment.
    pub fn deployment(&self, name: &str, replicas: usize) -> Result<()> {
        self.apply(vec![manifest::deployment(name, replicas)])
    }

    /// A Service for the Deployment of the same name; returns its address.
    pub fn service(&self, name: &str) -> Result<String> {
        self.service_for(name, name)
    }

    /// A Service for the pods labelled `app=<app>`; returns its address.
    pub fn service_for(&self, name: &str, app: &str) -> Result<String> {
        self.apply(vec![manifest::service(name, app, false)])?;
        self.kubectl(&["get", "service", name, "-o", "jsonpath={.spec.clusterIP}"])
    }

    pub fn headless_for(&self, name: &str, app: &str) -> Result<()> {
        self.apply(vec![manifest::service(name, app, true)])
    }

    /// Deletes Deployment and Service of this name.
    pub fn remove_service(&self, name: &str) -> Result<()> {
        self.delete("service", name)?;
        self.delete("deployment", name)
    }

    pub fn delete(&self, kind: &str, name: &str) -> Result<()> {
        self.kubectl(&["delete", kind, name, "--ignore-not-found", "--timeout=60s"]).map(drop)
    }

    pub fn delete_all(&self, kind: &str, names: &[String]) -> Result<()> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.kubectl(&[&["delete", kind, "--timeout=120s"], names.as_slice()].concat()).map(drop)
    }

    pub fn scale(&self, deployment: &str, replicas: usize) -> Result<()> {
        self.kubectl(&["scale", "deployment", deployment, &format!("--replicas={replicas}")]).map(drop)
    }

    /// Waits until every pod of the namespace is ready.
    pub fn ready(&self) -> Result<()> {
        self.kubectl(&["wait", "pod", "--all", "--for=condition=Ready", &timeout()])
            .with_context(|| self.describe_pods())
            .map(drop)
    }

    pub fn wait_ready(&self, pod: &str) -> Result<()> {
        self.kubectl(&["wait", "pod", pod, "--for=condition=Ready", &timeout()])
            .with_context(|| self.describe_pods())
            .map(drop)
    }

    /// Waits until a Service has that many ready endpoints, and no more.
    pub fn wait_endpoints(&self, service: &str, count: usize) -> Result<()> {
        wait_until(&format!("{count} endpoints of {service}"), READY, || {
            let ready = self.endpoints(service)?.len();
            ensure!(ready == count, "{ready} are ready");
            Ok(())
        })
        .with_context(|| self.describe_pods())
    }

    /// Addresses of the ready endpoints of a Service, sorted.
    pub fn endpoint_addresses(&self, service: &str) -> Result<Vec<String>> {
        Ok(sorted(self.endpoints(service)?.into_iter().map(|(address, _)| address)))
    }

    /// Pods behind the ready endpoints of a Service, sorted.
    pub fn endpoint_pods(&self, service: &str) -> Result<Vec<String>> {
        Ok(sorted(self.endpoints(service)?.into_iter().map(|(_, pod)| pod)))
    }

    fn endpoints(&self, service: &str) -> Result<Vec<(String, String)>> {
        let label = format!("kubernetes.io/service-name={service}");
        let path = "jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.addresses[0]} {.targetRef.name}{'\\n'}{end}";
        let text = self.kubectl(&["get", "endpointslices", "-l", &label, "-o", path])?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(address, pod)| (address.into(), pod.into()))
            .collect())
    }

    /// A client inside a pod.
    pub fn client(&self, pod: &str) -> Result<Client<'a>> {
        let address = self.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])?;
        Ok(Client::in_pod(self.cluster, &self.namespace, pod, address))
    }

    /// A pod's address of a family, as its status has it.
    pub fn address(&self, pod: &str, ipv6: bool) -> Result<String> {
        let text = self.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIPs[*].ip}"])?;
        of_family(&text, ipv6).with_context(|| format!("{pod} has {text:?}"))
    }

    /// A pod in which probers run.
    pub fn prober(&self, pod: &str) -> Result<Prober<'a>> {
        Prober::new(self, pod)
    }

    /// Pods and the last events, for the error of a step that failed.
    fn describe_pods(&self) -> String {
        let pods = self.kubectl(&["get", "pods", "-o", "wide"]).unwrap_or_default();
        let events = self.kubectl(&["get", "events", "--sort-by=.lastTimestamp"]).unwrap_or_default();
        let lines: Vec<&str> = events.lines().collect();
        let last = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n");
        format!("pods of {}:\n{pods}\nlast events:\n{last}\n", self.namespace)
    }
}

fn timeout() -> String {
    format!("--timeout={}s", READY.as_secs())
}

fn sorted(values: impl Iterator<Item = String>) -> Vec<String> {
    let mut values: Vec<String> = values.collect();
    values.sort();
    values
}

/// Names of the nodes, in order.
#[must_use]
pub fn node_names(cluster: &Cluster) -> Vec<String> {
    cluster.nodes().iter().map(|node| node.name.clone()).collect()
}
