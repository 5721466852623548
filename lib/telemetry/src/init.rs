//! Sets a program's telemetry up once, and gives a `Guard` that changes the collector and flushes at the end.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::spans::Sink;
use crate::traces::{Gate, Switch};

/// Crates whose own messages about a dead collector would fill the log.
const QUIET: [&str; 8] = [
    "h2",
    "hyper",
    "hyper_util",
    "opentelemetry",
    "opentelemetry_sdk",
    "opentelemetry_otlp",
    "tonic",
    "tower",
];

/// How long `Guard::shutdown` waits for the last spans.
const FLUSH: Duration = Duration::from_secs(3);

/// How a program logs and traces.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program's version, `service.version` of its spans.
    pub version: &'static str,
    /// How a log line looks.
    pub log_format: LogFormat,
    /// What is logged, in the syntax of `RUST_LOG`, for example `info,netkeel_agent=debug`.
    pub log_filter: String,
    /// OTLP/gRPC collector, `http://host:port`; none sends no traces.
    pub traces_endpoint: Option<String>,
    /// Share of new traces that are recorded, 0 to 1. A trace that came from elsewhere keeps its caller's choice.
    pub sampling_ratio: f64,
    /// More attributes of every span's resource, such as `k8s.node.name`.
    pub attributes: Vec<(&'static str, String)>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Options {
    /// Options from the environment: `RUST_LOG` (default `info`), `NETKEEL_LOG_FORMAT` (`text` or `json`, default
    /// `text`), `NODE_NAME` and `POD_NAME` as attributes. Every trace is recorded; no endpoint is set.
    #[must_use]
    pub fn from_env(version: &'static str) -> Self {
        let var = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let format = var("NETKEEL_LOG_FORMAT");
        let named = [("k8s.node.name", "NODE_NAME"), ("k8s.pod.name", "POD_NAME")];
        Self {
            version,
            log_format: if format.as_deref() == Some("json") { LogFormat::Json } else { LogFormat::Text },
            log_filter: var("RUST_LOG").unwrap_or_else(|| "info".into()),
            traces_endpoint: None,
            sampling_ratio: 1.0,
            attributes: named.iter().filter_map(|(key, name)| Some((*key, var(name)?))).collect(),
        }
    }
}

/// Why telemetry could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `RUST_LOG` does not parse.
    #[error("log filter {filter:?} is not valid: use LEVEL or TARGET=LEVEL, separated by commas")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What the parser says.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The endpoint is not a plain `http://` address.
    #[error("traces endpoint {endpoint:?} is not http://HOST:PORT (OTLP over gRPC, without TLS)")]
    Endpoint {
        /// The endpoint as given.
        endpoint: String,
    },
    /// The exporter does not take the endpoint.
    #[error("traces endpoint {endpoint:?} is refused by the exporter")]
    Exporter {
        /// The endpoint as given.
        endpoint: String,
        /// What the exporter says.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// `init` was called outside of tokio.
    #[error("telemetry needs a running tokio runtime")]
    NoRuntime(#[source] tokio::runtime::TryCurrentError),
    /// `init` was called twice.
    #[error("telemetry of this process is already set up")]
    Twice(#[source] tracing::subscriber::SetGlobalDefaultError),
}

/// A program's running telemetry. Clones share it.
#[derive(Clone, Debug)]
pub struct Guard {
    provider: SdkTracerProvider,
    switch: Switch,
}

impl Guard {
    /// Sends traces to `endpoint` (`http://host:port`) from now on, or to nobody. Spans that wait for the former
    /// endpoint are still sent there. Setting the same endpoint again does nothing.
    ///
    /// # Errors
    /// An endpoint that cannot be one; the former one stays.
    pub fn set_traces_endpoint(&self, endpoint: Option<&str>) -> Result<(), Error> {
        self.switch.set(endpoint)
    }

    /// Sends what waits, for three seconds at most, and stops tracing.
    pub async fn shutdown(&self) {
        let provider = self.provider.clone();
        let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH));
        // a flush that fails or lasts is counted by the exporter; there is nobody left to tell
        let _ = tokio::time::timeout(FLUSH + Duration::from_secs(1), flush).await;
    }
}

/// Sets up logging to stderr and tracing for the whole process. `service` is the program's name, `netkeel-agent`.
///
/// # Errors
/// A filter or endpoint that is not valid, no tokio runtime, or a second call.
pub fn init(service: &'static str, options: &Options) -> Result<Guard, Error> {
    let (subscriber, guard) = build(service, options, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(Error::Twice)?;
    Sink::new(&guard.switch, service).install();
    Ok(guard)
}

/// The subscriber and guard of `init`, not yet installed; `writer` takes the log.
pub(crate) fn build<W>(
    service: &'static str,
    options: &Options,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync, Guard), Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = log_filter(&options.log_filter)?;
    let switch = Switch::new(Handle::try_current().map_err(Error::NoRuntime)?);
    switch.set(options.traces_endpoint.as_deref())?;
    let provider = SdkTracerProvider::builder()
        .with_resource(resource(service, options))
        .with_sampler(Gate::new(&switch, options.sampling_ratio))
        .with_span_processor(switch.clone())
        .build();
    // spans of other crates, the exporter's own among them, are no part of a trace
    let traces = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(service))
        .with_location(false)
        .with_threads(false)
        .with_filter(Targets::new().with_target("netkeel", Level::DEBUG));
    let subscriber = tracing_subscriber::registry()
        .with(log_layer(options.log_format, writer).with_filter(filter))
        .with(traces);
    Ok((subscriber, Guard { provider, switch }))
}

fn log_layer<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_ansi(false).with_writer(writer);
    match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    }
}

/// The filter as asked for, with the exporter's crates silenced unless it names them.
fn log_filter(asked: &str) -> Result<EnvFilter, Error> {
    let quiet = QUIET.iter().filter(|name| !asked.contains(*name)).map(|name| format!("{name}=off"));
    let all = std::iter::once(asked.to_owned()).chain(quiet).collect::<Vec<_>>().join(",");
    EnvFilter::try_new(&all).map_err(|source| Error::Filter { filter: asked.to_owned(), source })
}

fn resource(service: &'static str, options: &Options) -> Resource {
    Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.version", options.version))
        .with_attributes(options.attributes.iter().map(|(key, value)| KeyValue::new(*key, value.clone())))
        .build()
}

#[cfg(test)]
mod tests;
