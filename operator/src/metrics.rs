//! The operator's figures.

use std::time::Duration;

use netkeel_telemetry::metrics::{Counter, Family, Gauge, Histogram, Labels, Registry, SECONDS};

use crate::reconcile::Pass;

/// The operator's figures. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    passes: Family<Labels, Counter>,
    durations: Histogram,
    steps: Counter,
    nodes: Gauge,
    updated: Gauge,
    /// 1 while this operator leads.
    pub leading: Gauge,
}

impl Metrics {
    /// Registers all of them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let gauge = |what: &str, help: &str| registry.gauge(&format!("netkeel_operator_{what}"), help);
        Self {
            passes: registry.counters(
                "netkeel_operator_passes",
                "Passes over the cluster by result",
                &["result"],
            ),
            durations: registry.histogram("netkeel_operator_pass_seconds", "Time that a pass took", &SECONDS),
            steps: registry.counter("netkeel_operator_steps", "Changes to objects that passes wanted"),
            nodes: gauge("nodes", "Nodes of the cluster; 0 where another operator leads"),
            updated: gauge("nodes_updated", "Nodes on which the present configuration is in force"),
            leading: gauge("leading", "Whether this operator leads: 1 or 0"),
        }
    }

    /// Counts a pass that took `time`; none is one that failed.
    pub fn passed(&self, pass: Option<&Pass>, time: Duration) {
        let result = if pass.is_some() { "ok" } else { "failed" };
        self.passes.get_or_create(&vec![("result", result.to_owned())]).inc();
        self.durations.observe(time.as_secs_f64());
        if let Some(pass) = pass {
            let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            self.steps.inc_by(pass.applied as u64);
            self.nodes.set(number(pass.nodes));
            self.updated.set(number(pass.updated));
        }
    }

    /// Another operator leads: its figures count.
    pub fn rests(&self) {
        for gauge in [&self.leading, &self.nodes, &self.updated] {
            gauge.set(0);
        }
    }
}
