//! Memory, processor time and descriptors of this process, read from /proc at each scrape, under the names that
//! dashboards know.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;

use super::gauge;

/// Name, kind and help of each.
pub(super) const DESCRIBED: [(&str, &str, &str); 4] = [
    ("process_resident_memory_bytes", "gauge", "Resident memory"),
    ("process_open_fds", "gauge", "Open file descriptors"),
    ("process_start_time_seconds", "gauge", "Start of the process since the epoch"),
    ("process_cpu_seconds", "counter", "Processor time"),
];

/// The process's figures.
#[derive(Debug)]
pub(super) struct Process {
    started: f64,
}

impl Process {
    /// Takes now as the time of the process's start.
    pub(super) fn new() -> Self {
        Self { started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64()) }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        if let Some(bytes) = resident() {
            gauge(&mut encoder, "process_resident_memory_bytes", "Resident memory", bytes)?;
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            let open = u32::try_from(entries.count()).map_or(f64::MAX, f64::from);
            gauge(&mut encoder, "process_open_fds", "Open file descriptors", open)?;
        }
        gauge(
            &mut encoder,
            "process_start_time_seconds",
            "Start of the process since the epoch",
            self.started,
        )?;
        let cpu = ConstCounter::new(processor_seconds().unwrap_or_default());
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "Processor time",
            None,
            cpu.metric_type(),
        )?)
    }
}

/// Ticks a second of /proc/self/stat: `USER_HZ`, 100 on every architecture that Netkeel runs on.
const TICKS: f64 = 100.0;

/// Seconds of processor time, user and system: fields 14 and 15 of proc(5) `stat`, counted after the name.
fn processor_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit(')').next()?.split_ascii_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((f64::from(user) + f64::from(system)) / TICKS)
}

/// Resident memory in bytes, from `VmRSS` of proc(5).
fn resident() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u32 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(f64::from(kibibytes) * 1024.0)
}
