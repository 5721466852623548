//! The way of a span to the collector: a switch that can be pointed elsewhere at run time, a sampler that drops
//! everything while it points nowhere, and an exporter that tries again for a while and counts instead of complaining.

mod exporter;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use opentelemetry::trace::{Link, SpanKind, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SamplingDecision, SamplingResult, ShouldSample, Span, SpanData, SpanProcessor,
};
use tokio::runtime::Handle;

use crate::Error;
use exporter::Pipeline;

/// A span processor whose collector can change at run time. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Switch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    runtime: Handle,
    active: AtomicBool,
    current: ArcSwapOption<Pipeline>,
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
        let build = |endpoint| Pipeline::new(&self.0.runtime, endpoint, settings.resource.as_ref());
        let next = endpoint.map(build).transpose()?;
        settings.endpoint = endpoint.map(str::to_owned);
        self.0.active.store(next.is_some(), Ordering::Relaxed);
        if let Some(former) = self.0.current.swap(next.map(Arc::new)) {
            self.0.runtime.spawn_blocking(move || former.end(exporter::TIMEOUT));
        }
        Ok(())
    }

    /// Whether it points anywhere.
    pub(crate) fn is_active(&self) -> bool {
        self.0.active.load(Ordering::Relaxed)
    }

    /// Takes a span that is over. Never waits.
    pub(crate) fn hand(&self, span: SpanData) {
        if let Some(current) = &*self.0.current.load() {
            current.take(span);
        }
    }
}

impl SpanProcessor for Switch {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.hand(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.current.load_full().map_or(Ok(()), |current| current.flush())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.active.store(false, Ordering::Relaxed);
        self.0.current.swap(None).map_or(Ok(()), |current| current.end(timeout))
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
        if self.switch.is_active() {
            return self.sampler.should_sample(parent, trace, name, kind, attributes, links);
        }
        SamplingResult {
            decision: SamplingDecision::Drop,
            attributes: Vec::new(),
            trace_state: TraceState::default(),
        }
    }
}
