//! Jaeger in the fabric's network namespace: how it is started, and its traces as values.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::config::addresses::{FABRIC, before_port};
use crate::{Cluster, http};

pub use super::tree::tree;

pub(crate) const NAME: &str = "jaeger";
/// The query API, <https://www.jaegertracing.io/docs/latest/architecture/apis/>.
const QUERY: u16 = 16686;

/// One trace with all its spans, in the order of their start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// 32 hex digits.
    pub id: String,
    pub spans: Vec<Span>,
}

/// One span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// 16 hex digits.
    pub id: String,
    /// Span that it hangs on, which need not be in the trace.
    pub parent: Option<String>,
    /// `service.name` of the program.
    pub service: String,
    pub operation: String,
    /// Microseconds of Unix time.
    pub start: u64,
    /// Microseconds.
    pub duration: u64,
    /// Attributes of the span, and those of its program that it does not have itself.
    pub tags: BTreeMap<String, String>,
}

impl Trace {
    /// The spans of this operation.
    pub fn named<'a>(&'a self, operation: &str) -> impl Iterator<Item = &'a Span> + use<'a> {
        let operation = operation.to_owned();
        self.spans.iter().filter(move |span| span.operation == operation)
    }

    /// The first span of this operation.
    ///
    /// # Errors
    /// There is none; the error shows the trace.
    pub fn span(&self, operation: &str) -> Result<&Span> {
        self.named(operation).next().with_context(|| format!("no span {operation:?} in\n{}", tree(self)))
    }

    /// Spans that hang on `parent`.
    pub fn children<'a>(&'a self, parent: &'a Span) -> impl Iterator<Item = &'a Span> {
        self.spans.iter().filter(|span| span.parent.as_ref() == Some(&parent.id))
    }

    /// Whether `below` hangs on `above`, directly or by others.
    #[must_use]
    pub fn descends(&self, below: &Span, above: &Span) -> bool {
        let mut parent = below.parent.clone();
        for _ in 0..self.spans.len() {
            if parent.as_ref() == Some(&above.id) {
                return true;
            }
            parent = self
                .spans
                .iter()
                .find(|span| Some(&span.id) == parent.as_ref())
                .and_then(|s| s.parent.clone());
        }
        false
    }
}

impl Cluster {
    /// Names of the programs that Jaeger has spans of.
    ///
    /// # Errors
    /// Jaeger does not run.
    pub fn jaeger_services(&self) -> Result<Vec<String>> {
        let answer: Answer<Option<Vec<String>>> = serde_json::from_str(&self.jaeger("/api/services")?)?;
        Ok(answer.data.unwrap_or_default())
    }

    /// The newest traces with a span of this program, operation and attributes, the newest first.
    ///
    /// # Errors
    /// Jaeger does not run.
    pub fn jaeger_traces(
        &self,
        service: &str,
        operation: Option<&str>,
        tags: &[(&str, &str)],
    ) -> Result<Vec<Trace>> {
        let tags: BTreeMap<&str, &str> = tags.iter().copied().collect();
        let operation =
            operation.map(|name| format!("&operation={}", http::quoted(name))).unwrap_or_default();
        let tags = http::quoted(&serde_json::to_string(&tags)?);
        let service = http::quoted(service);
        let path = format!("/api/traces?limit=100&lookback=24h&service={service}{operation}&tags={tags}");
        let mut traces = traces(&self.jaeger(&path)?)?;
        traces.sort_by_key(|trace| std::cmp::Reverse(trace.spans.first().map(|span| span.start)));
        Ok(traces)
    }

    /// One trace.
    ///
    /// # Errors
    /// Jaeger does not run or does not know it.
    pub fn jaeger_trace(&self, id: &str) -> Result<Trace> {
        let mut found = traces(&self.jaeger(&format!("/api/traces/{id}"))?)?;
        found.pop().with_context(|| format!("Jaeger knows no trace {id}"))
    }

    fn jaeger(&self, path: &str) -> Result<String> {
        http::get(self, SocketAddr::new(FABRIC.first(self.ip_family()), QUERY), path).context(
            "is Jaeger running? cargo xtask cluster up starts it, and its log is jaeger/log/member.log",
        )
    }
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTrace {
    #[serde(rename = "traceID")]
    trace_id: String,
    spans: Vec<RawSpan>,
    processes: BTreeMap<String, Process>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSpan {
    #[serde(rename = "spanID")]
    span_id: String,
    operation_name: String,
    #[serde(default)]
    references: Vec<Reference>,
    start_time: u64,
    duration: u64,
    #[serde(default)]
    tags: Vec<Tag>,
    #[serde(rename = "processID")]
    process_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    ref_type: String,
    #[serde(rename = "spanID")]
    span_id: String,
}

#[derive(Clone, Deserialize)]
struct Tag {
    key: String,
    value: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    service_name: String,
    #[serde(default)]
    tags: Vec<Tag>,
}

fn traces(text: &str) -> Result<Vec<Trace>> {
    let answer: Answer<Option<Vec<RawTrace>>> = serde_json::from_str(text)?;
    Ok(answer.data.unwrap_or_default().into_iter().map(Trace::from).collect())
}

impl From<RawTrace> for Trace {
    fn from(raw: RawTrace) -> Self {
        let mut spans: Vec<Span> = raw.spans.into_iter().map(|span| span.with(&raw.processes)).collect();
        spans.sort_by_key(|span| span.start);
        Self { id: raw.trace_id, spans }
    }
}

impl RawSpan {
    fn with(self, processes: &BTreeMap<String, Process>) -> Span {
        let process = processes.get(&self.process_id);
        let of_process = process.map(|process| process.tags.clone()).unwrap_or_default();
        let text = |tag: Tag| (tag.key, tag.value.as_str().map_or(tag.value.to_string(), str::to_owned));
        let parent = self.references.into_iter().find(|reference| reference.ref_type == "CHILD_OF");
        Span {
            id: self.span_id,
            parent: parent.map(|parent| parent.span_id),
            service: process.map(|process| process.service_name.clone()).unwrap_or_default(),
            operation: self.operation_name,
            start: self.start_time,
            duration: self.duration,
            tags: of_process.into_iter().chain(self.tags).map(text).collect(),
        }
    }
}

pub(crate) fn command(cluster: &Path, program: &Path) -> Vec<String> {
    vec![program.display().to_string(), "--config".into(), file(cluster).display().to_string()]
}

fn file(cluster: &Path) -> PathBuf {
    cluster.join("jaeger.yaml")
}

/// Writes its configuration: it listens at this address.
pub(crate) fn configure(cluster: &Path, address: IpAddr) -> Result<()> {
    let address = before_port(&address.to_string());
    Ok(fs::write(file(cluster), CONFIGURATION.replace("ADDRESS", &address))?)
}

/// OTLP in, the query API out, the last traces in memory; spans can be queried a moment after they came.
const CONFIGURATION: &str = r"service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [jaeger_storage_exporter]}
  telemetry:
    resource: {service.name: jaeger}
    metrics: {level: none}
    logs: {level: warn}
extensions:
  jaeger_storage: {backends: {memory: {memory: {max_traces: 20000}}}}
  jaeger_query:
    storage: {traces: memory}
    enable_tracing: false
    http: {endpoint: 'ADDRESS:16686'}
    grpc: {endpoint: 'ADDRESS:16685'}
receivers:
  otlp: {protocols: {grpc: {endpoint: 'ADDRESS:4317'}, http: {endpoint: 'ADDRESS:4318'}}}
processors:
  batch: {timeout: 100ms}
exporters:
  jaeger_storage_exporter: {trace_storage: memory}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_their_parent_and_their_programs_attributes() {
        let text = r#"{"data":[{"traceID":"t","spans":[
            {"spanID":"b","operationName":"apply","references":[{"refType":"CHILD_OF","traceID":"t","spanID":"a"}],
             "startTime":20,"duration":5,"tags":[{"key":"n","type":"int64","value":3}],"processID":"p1"},
            {"spanID":"a","operationName":"edit","startTime":10,"duration":50,"processID":"p1"}],
            "processes":{"p1":{"serviceName":"x","tags":[{"key":"k8s.node.name","type":"string","value":"n1"}]}}}]}"#;
        let trace = traces(text).unwrap().remove(0);
        let (edit, apply) = (trace.span("edit").unwrap(), trace.span("apply").unwrap());
        assert_eq!((&*trace.spans[0].operation, apply.parent.as_deref()), ("edit", Some("a")));
        assert_eq!((&*apply.tags["n"], &*apply.tags["k8s.node.name"], &*apply.service), ("3", "n1", "x"));
        assert!(trace.descends(apply, edit) && !trace.descends(edit, apply));
        assert!(trace.span("none").unwrap_err().to_string().contains("edit"));
        assert!(traces(r#"{"data":null}"#).unwrap().is_empty());
    }
}
