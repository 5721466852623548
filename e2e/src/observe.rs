//! Jaeger and Prometheus for a cluster: real ones, as a user has them, at addresses that nodes and pods reach.
//! Both are optional; a cluster without them sends its traces nowhere.

pub mod dashboard;
pub mod jaeger;
pub mod prometheus;
mod tree;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::cluster::start::launch;
use crate::config::{Plan, addresses::FABRIC};
use crate::{Cluster, Progress, binaries, cgroup, wait_until};

const START: Duration = Duration::from_mins(1);

/// The Service that Netkeel sends its traces to when it is told nothing else.
const COLLECTOR: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: observability}
---
apiVersion: v1
kind: Service
metadata: {name: jaeger-collector, namespace: observability}
spec:
  ports: [{name: otlp-grpc, port: 4317, protocol: TCP, targetPort: 4317}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: jaeger-collector-fabric
  namespace: observability
  labels: {kubernetes.io/service-name: jaeger-collector}
addressType: FAMILY
ports: [{name: otlp-grpc, port: 4317, protocol: TCP}]
endpoints: [{addresses: ["ADDRESS"], conditions: {ready: true}}]
"#;

/// What must be there before the first node starts: Prometheus stays down until it is wanted.
pub(crate) fn prepare(cluster: &Path) -> Result<()> {
    prometheus::configure(cluster)?;
    let stopped = cluster.join("n1/stopped");
    if !cluster.join("n1/spec.json").exists() {
        fs::create_dir_all(&stopped)?;
        fs::write(stopped.join(prometheus::NAME), "")?;
    }
    Ok(())
}

impl Cluster {
    /// Starts Jaeger beside the fabric, behind the Service `jaeger-collector` in the namespace `observability`, and
    /// Prometheus on the first node. What runs is left alone.
    ///
    /// # Errors
    /// A program cannot be built, fetched or started.
    pub fn observe(&self, progress: &Progress) -> Result<()> {
        self.start_jaeger(progress)?;
        let address = FABRIC.first(self.ip_family());
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        self.apply(&COLLECTOR.replace("ADDRESS", &address.to_string()).replace("FAMILY", family))?;
        prometheus::fetch(progress)?;
        let mark = self.folder().join("n1/stopped").join(prometheus::NAME);
        if mark.exists() {
            fs::remove_file(mark)?;
        }
        wait_until("Prometheus answers", START, || self.prometheus_query("vector(1)"))?;
        progress.say("Jaeger and Prometheus run");
        Ok(())
    }

    /// Whether [`Cluster::observe`] was called and Jaeger runs.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        crate::node::Spec::read(&self.folder().join(jaeger::NAME)).is_ok_and(|spec| spec.process().is_some())
    }

    /// Starts Jaeger, with nothing in its memory, unless it runs.
    ///
    /// # Errors
    /// It cannot be built or does not answer.
    pub fn start_jaeger(&self, progress: &Progress) -> Result<()> {
        let program = binaries::jaeger(progress)?;
        jaeger::configure(self.folder(), FABRIC.first(self.ip_family()))?;
        let spec = Plan::jaeger(self.name(), self.folder(), self.fabric()?.pid, &program);
        launch(self.folder(), "beside", &spec)?;
        wait_until("Jaeger answers", START, || self.jaeger_services()).map(drop)
    }

    /// Ends Jaeger, which forgets all traces. The Service stays, and leads nowhere.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop_jaeger(&self) -> Result<()> {
        let spec = crate::node::Spec::read(&self.folder().join(jaeger::NAME))?;
        cgroup::destroy(&spec.group)
    }
}
