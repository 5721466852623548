//! Metrics of one program, exposed as `OpenMetrics` text. Names are `netkeel_<program>_<what>_<unit>`; a counter's
//! `_total` is appended by the exposition. Every registry also carries the process's own figures.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Metric;

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

mod process;

/// Label names and values of one member of a family.
pub type Labels = Vec<(&'static str, String)>;
/// A gauge of fractional values.
pub type FloatGauge = Gauge<f64, std::sync::atomic::AtomicU64>;

/// Buckets in seconds for things that take from 100 µs to 13 s.
pub const SECONDS: [f64; 18] = [
    0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048, 0.4096,
    0.8192, 1.6384, 3.2768, 6.5536, 13.1072,
];

/// What telemetry says about itself, shared by all registries of the process.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    pub(crate) spans: Counter,
    pub(crate) exported: Counter,
    pub(crate) dropped: Counter,
    pub(crate) failures: Counter,
}

pub(crate) static TELEMETRY: LazyLock<Telemetry> = LazyLock::new(Telemetry::default);

/// One metric as it is documented.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Described {
    /// Its name in the exposition; of a histogram without `_bucket`, `_sum` and `_count`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: Vec<&'static str>,
    /// What it says.
    pub help: String,
}

/// The metrics of one program. Clones share them.
#[derive(Clone, Debug)]
pub struct Registry {
    metrics: Arc<Mutex<prometheus_client::registry::Registry>>,
    described: Arc<Mutex<Vec<Described>>>,
}

impl Registry {
    /// A registry that holds `netkeel_build_info`, the process's figures and the exporter's counters.
    /// `program` is the short name, `agent`.
    #[must_use]
    pub fn new(program: &'static str, version: &'static str) -> Self {
        let this = Self { metrics: Arc::default(), described: Arc::default() };
        let help = "Version of the running program, always 1";
        let info = this.gauges("netkeel_build_info", help, &["program", "version"]);
        info.get_or_create(&vec![("program", program.into()), ("version", version.into())]).set(1);
        let told = &*TELEMETRY;
        for (what, help, counter) in [
            ("spans", "Spans of traces that were handed to the exporter", &told.spans),
            ("spans_exported", "Spans of traces that the collector took", &told.exported),
            (
                "spans_dropped",
                "Spans of traces that were lost: no collector took them in time",
                &told.dropped,
            ),
            (
                "export_failures",
                "Attempts to send spans that failed; they are tried again for a while",
                &told.failures,
            ),
        ] {
            this.register(&format!("netkeel_{program}_trace_{what}"), help, counter.clone());
        }
        for (name, kind, help) in process::DESCRIBED {
            this.describe(name, kind, help, &[]);
        }
        this.collector(process::Process::new());
        this
    }

    /// All metrics as they are documented, in the order of their names.
    #[must_use]
    pub fn described(&self) -> Vec<Described> {
        let mut all = self.described.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort();
        all
    }

    fn describe(&self, name: &str, kind: &'static str, help: &str, labels: &[&'static str]) {
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        let one = Described { name, kind, labels: labels.to_vec(), help: help.to_owned() };
        self.described.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    }

    /// Adds `metric` under `name` and hands it back.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.labelled(name, help, &[], metric)
    }

    fn labelled<M: Metric + Clone>(&self, name: &str, help: &str, labels: &[&'static str], metric: M) -> M {
        let kind = match metric.metric_type() {
            MetricType::Counter => "counter",
            MetricType::Histogram => "histogram",
            _ => "gauge",
        };
        self.describe(name, kind, help, labels);
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner).register(name, help, metric.clone());
        metric
    }

    /// A counter; the exposition appends `_total` to `name`.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.register(name, help, Counter::default())
    }

    /// Counters that differ in their labels.
    #[must_use]
    pub fn counters(&self, name: &str, help: &str, labels: &[&'static str]) -> Family<Labels, Counter> {
        self.labelled(name, help, labels, Family::default())
    }

    /// A gauge of whole numbers.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    /// Gauges that differ in their labels.
    #[must_use]
    pub fn gauges(&self, name: &str, help: &str, labels: &[&'static str]) -> Family<Labels, Gauge> {
        self.labelled(name, help, labels, Family::default())
    }

    /// A histogram with the upper bounds `buckets`, `SECONDS` for example.
    #[must_use]
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.register(name, help, Histogram::new(buckets.iter().copied()))
    }

    /// Histograms that differ in their labels, all with the upper bounds of `SECONDS`.
    #[must_use]
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&'static str],
    ) -> Family<Labels, Histogram, fn() -> Histogram> {
        let make: fn() -> Histogram = || Histogram::new(SECONDS);
        self.labelled(name, help, labels, Family::new_with_constructor(make))
    }

    /// A gauge that calls `value` at each scrape.
    pub fn gauge_fn<F>(&self, name: &'static str, help: &'static str, value: F)
    where
        F: Fn() -> f64 + Send + Sync + 'static,
    {
        self.describe(name, "gauge", help, &[]);
        self.collector(Read { name, help, value });
    }

    /// Adds metrics that are made at each scrape.
    pub fn collector(&self, collector: impl Collector) {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner).register_collector(Box::new(collector));
    }

    /// All metrics as `OpenMetrics` text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        // writing to a String does not fail; a collector that does costs the scrape the rest, not the program
        let _ = encode(&mut text, &registry);
        text
    }
}

struct Read<F> {
    name: &'static str,
    help: &'static str,
    value: F,
}

impl<F> fmt::Debug for Read<F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name)
    }
}

impl<F: Fn() -> f64 + Send + Sync + 'static> Collector for Read<F> {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        gauge(&mut encoder, self.name, self.help, (self.value)())
    }
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: f64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

#[cfg(test)]
mod tests {
    use super::{Registry, SECONDS};

    #[test]
    fn all_kinds_of_metrics_are_exposed() {
        let registry = Registry::new("test", "1.2.3");
        registry.counter("netkeel_test_things", "Things").inc_by(3);
        let drops = registry.counters("netkeel_test_drops", "Drops", &["reason"]);
        drops.get_or_create(&vec![("reason", "full".into())]).inc();
        registry.gauge("netkeel_test_level", "Level").set(7);
        registry.histogram("netkeel_test_wait_seconds", "Wait", &SECONDS).observe(0.5);
        registry.gauge_fn("netkeel_test_read_bytes", "Read", || 12.5);
        let text = registry.encode();
        for line in [
            "netkeel_test_things_total 3",
            "netkeel_test_drops_total{reason=\"full\"} 1",
            "netkeel_test_level 7",
            "netkeel_test_wait_seconds_count 1",
            "netkeel_test_read_bytes 12.5",
            "netkeel_build_info{program=\"test\",version=\"1.2.3\"} 1",
            "# TYPE netkeel_test_trace_export_failures counter",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_metric_that_is_exposed_is_described() {
        let registry = Registry::new("test", "1");
        drop(registry.counters("netkeel_test_drops", "Drops", &["reason"]));
        drop(registry.histogram("netkeel_test_wait_seconds", "Wait", &SECONDS));
        registry.gauge_fn("netkeel_test_read_bytes", "Read", || 12.5);
        let described = registry.described();
        for line in registry.encode().lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            let same =
                |one: &super::Described| one.kind == kind && one.name.trim_end_matches("_total") == name;
            assert!(described.iter().any(same), "{line} is not described");
        }
        let drops = described.iter().find(|one| one.name == "netkeel_test_drops_total").unwrap();
        assert_eq!((drops.kind, &drops.labels[..], &*drops.help), ("counter", &["reason"][..], "Drops"));
    }

    #[test]
    fn the_process_tells_its_memory_and_processor_time() {
        let text = Registry::new("test", "1").encode();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_start_time_seconds") > 1e9);
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
