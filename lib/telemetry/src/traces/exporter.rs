//! One collector: a queue of bounded length, and batches that are tried again for a while, since at an installation
//! the network that leads to the collector comes only after the first spans. Every span that is lost is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanProcessor};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::Error;
use crate::metrics::TELEMETRY;

/// Spans that may wait for the collector; more are dropped.
const QUEUE: u64 = 2048;
/// How long a finished span waits for company.
const DELAY: Duration = Duration::from_secs(2);
/// How long one export may last.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take to come about: a packet sent before there was a way is never answered.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a batch is tried before it is given up.
const HOLD: Duration = Duration::from_secs(30);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// The way to one collector.
#[derive(Debug)]
pub(super) struct Pipeline {
    processor: BatchSpanProcessor,
    /// Spans that were taken and are neither sent nor lost.
    waiting: Arc<AtomicU64>,
    /// Batches are tried once more and then given up.
    ending: CancellationToken,
}

impl Pipeline {
    /// A way to `endpoint`, `http://host:port`. Nothing is connected before there is a span to send.
    pub(super) fn new(runtime: &Handle, endpoint: &str, resource: Option<&Resource>) -> Result<Self, Error> {
        let not_one = || Error::Endpoint { endpoint: endpoint.to_owned() };
        let address = endpoint.strip_prefix("http://").unwrap_or_default();
        if address.trim_matches('/').is_empty() {
            return Err(not_one());
        }
        let (waiting, ending) = (Arc::<AtomicU64>::default(), CancellationToken::new());
        let _runtime = runtime.enter();
        let channel = Endpoint::from_shared(endpoint.to_owned()).map_err(|_| not_one())?;
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_channel(channel.connect_timeout(CONNECT).connect_lazy())
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|source| Error::Exporter { endpoint: endpoint.to_owned(), source })?;
        let exporter = Patient {
            runtime: runtime.clone(),
            exporter: Arc::new(exporter),
            waiting: waiting.clone(),
            ending: ending.clone(),
        };
        let size = usize::try_from(QUEUE).unwrap_or(usize::MAX);
        let batch =
            BatchConfigBuilder::default().with_max_queue_size(size).with_scheduled_delay(DELAY).build();
        let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(batch).build();
        if let Some(resource) = resource {
            processor.set_resource(resource);
        }
        Ok(Self { processor, waiting, ending })
    }

    /// Takes a span, or counts it as lost where too many wait already.
    pub(super) fn take(&self, span: SpanData) {
        TELEMETRY.spans.inc();
        if self.waiting.fetch_add(1, Ordering::Relaxed) < QUEUE {
            self.processor.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            TELEMETRY.dropped.inc();
        }
    }

    pub(super) fn flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    /// Sends what waits, within `timeout`; what is left then is lost.
    pub(super) fn end(&self, timeout: Duration) -> OTelSdkResult {
        self.ending.cancel();
        let ended = self.processor.shutdown_with_timeout(timeout);
        TELEMETRY.dropped.inc_by(self.waiting.swap(0, Ordering::Relaxed));
        ended
    }
}

/// Exports on the runtime, since the batch thread has none, and tries again while there is hope.
#[derive(Debug)]
struct Patient {
    runtime: Handle,
    exporter: Arc<SpanExporter>,
    waiting: Arc<AtomicU64>,
    ending: CancellationToken,
}

impl opentelemetry_sdk::trace::SpanExporter for Patient {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let sending = send(Arc::clone(&self.exporter), batch, self.ending.clone());
        let result = match self.runtime.spawn(sending).await {
            Ok(result) => result,
            Err(join) => Err(OTelSdkError::InternalFailure(join.to_string())),
        };
        // a pipeline that has ended meanwhile has counted them as lost
        let still = |waiting: u64| Some(waiting.saturating_sub(count));
        let before =
            self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, still).unwrap_or_default();
        let counter = if result.is_ok() { &TELEMETRY.exported } else { &TELEMETRY.dropped };
        counter.inc_by(count.min(before));
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}

async fn send(exporter: Arc<SpanExporter>, batch: Vec<SpanData>, ending: CancellationToken) -> OTelSdkResult {
    use opentelemetry_sdk::trace::SpanExporter as _;
    let begin = Instant::now();
    loop {
        let last = ending.is_cancelled() || begin.elapsed() > HOLD;
        let tried = tokio::time::timeout(TIMEOUT, exporter.export(batch.clone())).await;
        let result = tried.unwrap_or(Err(OTelSdkError::Timeout(TIMEOUT)));
        if result.is_ok() {
            return result;
        }
        TELEMETRY.failures.inc();
        if last {
            return result;
        }
        let _ = tokio::time::timeout(PAUSE, ending.cancelled()).await;
    }
}
