//! Prints the program's metrics, one a line: name, kind, labels, help. `cargo xtask generate` makes docs/metrics.md of it.

use netkeel_agent::metrics::Metrics;
use netkeel_telemetry::metrics::Registry;

fn main() {
    let registry = Registry::new("agent", env!("CARGO_PKG_VERSION"));
    let _ = Metrics::new(&registry);
    for metric in registry.described() {
        println!("{}\t{}\t{}\t{}", metric.name, metric.kind, metric.labels.join(", "), metric.help);
    }
}
