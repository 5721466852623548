//! What the demo shows of traces and figures: in a real Jaeger, by a real Prometheus.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::jaeger::tree;
use netkeel_e2e::workload::Workload;
use netkeel_e2e::{Cluster, dashboard, wait_until};

/// Traces are sent every few seconds, and Prometheus needs two scrapes for a rate.
const GATHERED: Duration = Duration::from_mins(1);

/// The first trace of the operator's that has the agents' work in it, as a tree.
pub(super) fn install_trace(cluster: &Cluster) -> Result<String> {
    wait_until("the install is in Jaeger", GATHERED, || {
        let traces = cluster.jaeger_traces("netkeel-operator", Some("install"), &[])?;
        let trace = traces.last().context("Jaeger has no trace of an install")?;
        let applied = trace.named("apply").count();
        ensure!(applied >= cluster.nodes().len(), "{applied} nodes are in the trace");
        Ok(indented(&tree(trace)))
    })
}

/// The trace of one pod's start, from the CNI plugin to its policy, as a tree.
pub(super) fn pod_trace(cluster: &Cluster) -> Result<String> {
    wait_until("the start of a pod is in Jaeger", GATHERED, || {
        let traces = cluster.jaeger_traces("netkeel-agent", Some("CNI ADD"), &[])?;
        let whole = |trace: &&netkeel_e2e::jaeger::Trace| trace.span("policy").is_ok();
        let trace = traces.iter().find(whole).context("Jaeger has no trace of a CNI ADD with its policy")?;
        Ok(indented(&tree(trace)))
    })
}

/// Every expression of the chart's dashboard has series, with names of the outside asked for meanwhile.
pub(super) fn dashboard_answers(cluster: &Cluster, workload: &Workload<'_>) -> Result<String> {
    let client = workload.client("client-0")?;
    wait_until("Prometheus answers", GATHERED, || {
        client.resolve("outside.test.", "A", false)?;
        let expressions = dashboard::expressions()?;
        for (title, expression) in &expressions {
            ensure!(
                !cluster.prometheus_query(expression)?.is_empty(),
                "panel {title:?} is empty: {expression}"
            );
        }
        Ok(format!("{} expressions of \"Cluster overview\" return series", expressions.len()))
    })
}

fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n      ")
}
