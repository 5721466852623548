//! What tells whether a server goes on answering whatever happens around it.

use std::net::SocketAddr;

use netkeel_client::Signs;
use netkeel_telemetry::metrics::{Counter, Family, Gauge, Labels, Registry};

/// Snapshots, loops and silence. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Lasting {
    loads: Family<Labels, Counter>,
    writes: Family<Labels, Counter>,
    bytes: Gauge,
    from_snapshot: Gauge,
    loops: Family<Labels, Gauge>,
    signs: Signs,
}

impl Lasting {
    pub(super) fn new(registry: &Registry) -> Self {
        let signs = Signs::default();
        let read = signs.clone();
        registry.gauge_fn(
            "netkeel_dns_watch_age_seconds",
            "Time since the API server was last heard on the watch that has been silent for longest; up to 15 s are usual",
            move || read.age().as_secs_f64(),
        );
        Self {
            loads: registry.counters(
                "netkeel_dns_snapshot_loads",
                "Starts by what came of the names that the last server kept: `used`, `none`, or why they were not used",
                &["result"],
            ),
            writes: registry.counters(
                "netkeel_dns_snapshot_writes",
                "Times that the names were kept on disk, `ok` or `failed`",
                &["result"],
            ),
            bytes: registry.gauge("netkeel_dns_snapshot_bytes", "Size of the names as kept on disk"),
            from_snapshot: registry.gauge(
                "netkeel_dns_serving_from_snapshot",
                "1 while answers are what the last server knew, for the API server has not told all names yet",
            ),
            loops: registry.gauges(
                "netkeel_dns_upstream_loops",
                "1 for an upstream resolver that leads back to this cluster's DNS and is left out",
                &["to"],
            ),
            signs,
        }
    }

    /// When the API server was last heard.
    pub(crate) fn signs(&self) -> &Signs {
        &self.signs
    }

    /// These are all upstream resolvers that are looked at, and whether each leads back.
    pub(crate) fn upstream_loops(&self, all: impl Iterator<Item = (SocketAddr, bool)>) {
        self.loops.clear();
        for (to, leads_back) in all {
            self.loops.get_or_create(&vec![("to", to.to_string())]).set(i64::from(leads_back));
        }
    }

    /// A snapshot was looked for at the start.
    pub(crate) fn snapshot_loaded(&self, result: &'static str) {
        self.loads.get_or_create(&vec![("result", result.into())]).inc();
    }

    /// The names are kept in so many bytes, or could not be.
    pub(crate) fn snapshot_written(&self, bytes: Option<u64>) {
        let result = if bytes.is_some() { "ok" } else { "failed" };
        self.writes.get_or_create(&vec![("result", result.into())]).inc();
        if let Some(bytes) = bytes {
            self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// Whether answers are what the last server knew.
    pub(crate) fn serving_from_snapshot(&self, is: bool) {
        self.from_snapshot.set(i64::from(is));
    }
}
