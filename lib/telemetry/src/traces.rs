//! The way of a span to the collector: a switch that can be pointed elsewhere at run time, a sampler that drops
//! everything while it points nowhere, and an exporter that counts instead of complaining.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use opentelemetry::trace::{Link, SpanKind, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingDecision, SamplingResult, ShouldSample, Span,
    SpanData, SpanProcessor,
};
use tokio::runtime::Handle;

use crate::Error;
use crate::metrics::TELEMETRY;

/// Spans that may wait for the collector; more are dropped.
const QUEUE: usize = 2048;
/// How long a finished span waits for company.
const DELAY: Duration = Duration::from_secs(2);
/// How long one export may last.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A span processor whose collector can change at run time. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Switch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    runtime: Handle,
    active: AtomicBool,
    current: ArcSwapOption<BatchSpanProcessor>,
    settings: Mutex<Settings>,
}

#[derive(Debug, Default)]
struct Settings {
    endpoint: Option<String>,
    resource: Option<Resource>,
}

impl Switch {
    /// A switch that points nowhere; exports run on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Self {
        let current = ArcSwapOption::const_empty();
        Self(Arc::new(Shared {
            runtime,
            active: AtomicBool::new(false),
            current,
            settings: Mutex::default(),
        }))
    }

    /// Points at `endpoint`, or nowhere.
    pub(crate) fn set(&self, endpoint: Option<&str>) -> Result<(), Error> {
        let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty());
        let mut settings = self.0.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if settings.endpoint.as_deref() == endpoint {
            return Ok(());
        }
        let next =
            endpoint.map(|endpoint| self.pipeline(endpoint, settings.resource.as_ref())).transpose()?;
        settings.endpoint = endpoint.map(str::to_owned);
        self.0.active.store(next.is_some(), Ordering::Relaxed);
        if let Some(former) = self.0.current.swap(next.map(Arc::new)) {
            self.0.runtime.spawn_blocking(move || former.shutdown_with_timeout(TIMEOUT));
        }
        Ok(())
    }

    fn pipeline(&self, endpoint: &str, resource: Option<&Resource>) -> Result<BatchSpanProcessor, Error> {
        let address = endpoint.strip_prefix("http://").unwrap_or_default();
        if address.trim_matches('/').is_empty() {
            return Err(Error::Endpoint { endpoint: endpoint.to_owned() });
        }
        let _runtime = self.0.runtime.enter();
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|source| Error::Exporter { endpoint: endpoint.to_owned(), source })?;
        let exporter = Counting { runtime: self.0.runtime.clone(), exporter: Arc::new(exporter) };
        let batch =
            BatchConfigBuilder::default().with_max_queue_size(QUEUE).with_scheduled_delay(DELAY).build();
        let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(batch).build();
        if let Some(resource) = resource {
            processor.set_resource(resource);
        }
        Ok(processor)
    }
}

impl SpanProcessor for Switch {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if let Some(current) = &*self.0.current.load() {
            TELEMETRY.spans.inc();
            current.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.current.load_full().map_or(Ok(()), |current| current.force_flush())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.active.store(false, Ordering::Relaxed);
        self.0.current.swap(None).map_or(Ok(()), |current| current.shutdown_with_timeout(timeout))
    }

    /// Comes once, when the provider is built: the pipeline that may be there already is built anew.
    fn set_resource(&mut self, resource: &Resource) {
        let endpoint = {
            let mut settings = self.0.settings.lock().unwrap_or_else(PoisonError::into_inner);
            settings.resource = Some(resource.clone());
            settings.endpoint.take()
        };
        // it was accepted once, so it is again
        let _ = self.set(endpoint.as_deref());
    }
}

/// Records nothing while the switch points nowhere; else a caller's choice, or a share of new traces.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    switch: Switch,
    sampler: Sampler,
}

impl Gate {
    /// `ratio` is the share of new traces that are recorded, 0 to 1.
    pub(crate) fn new(switch: &Switch, ratio: f64) -> Self {
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
        Self { switch: switch.clone(), sampler }
    }
}

impl ShouldSample for Gate {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        if self.switch.0.active.load(Ordering::Relaxed) {
            return self.sampler.should_sample(parent, trace, name, kind, attributes, links);
        }
        SamplingResult {
            decision: SamplingDecision::Drop,
            attributes: Vec::new(),
            trace_state: TraceState::default(),
        }
    }
}

/// Exports on the runtime, since the batch thread has none, and counts what was sent and what was lost.
#[derive(Debug)]
struct Counting {
    runtime: Handle,
    exporter: Arc<SpanExporter>,
}

impl opentelemetry_sdk::trace::SpanExporter for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exporter = Arc::clone(&self.exporter);
        let count = batch.len() as u64;
        let export = async move { tokio::time::timeout(TIMEOUT, exporter.export(batch)).await };
        let result = match self.runtime.spawn(export).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(OTelSdkError::Timeout(TIMEOUT)),
            Err(join) => Err(OTelSdkError::InternalFailure(join.to_string())),
        };
        match &result {
            Ok(()) => TELEMETRY.exported.inc_by(count),
            Err(_) => TELEMETRY.failures.inc(),
        };
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}
