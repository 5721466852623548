//! Calls a CNI plugin as a runtime does, ADD for as many network namespaces as asked for, then DEL for each.
//! An ADD's time is from the start of the plugin's process to its end; making the namespaces is not in it. Other pods can be
//! there meanwhile; with no pod of its own it keeps those until its standard input ends.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::samples::Samples;
use crate::Result;
use crate::flags::Flags;
use crate::json::Value;

/// How many of the pods that are only there are made at once.
const BESIDE_PARALLEL: u32 = 8;
/// Said when they are all there and nothing else is to be measured.
const READY: &str = "ready";

/// The configuration is the first line of standard input.
pub(crate) fn run(flags: &Flags) -> Result<bool> {
    let mut config = String::new();
    std::io::stdin().read_line(&mut config).map_err(|error| format!("standard input: {error}"))?;
    let plugin = flags.text("plugin").ok_or("--plugin PATH is missing")?;
    let count: u32 = flags.get("count", 200)?;
    let parallel: u32 = flags.get("parallel", 1)?;
    let beside: u32 = flags.get("beside", 0)?;
    let pods: Vec<Pod> =
        (0..count + beside).map(|index| Pod::new(plugin, config.as_bytes(), index)).collect();
    let made = pods.iter().try_for_each(|pod| namespace("add", &pod.name));
    let results = made.map(|()| measure(&pods, beside as usize, parallel));
    for pod in &pods {
        drop(namespace("del", &pod.name));
    }
    let (beside, add, del) = results?;
    let well = [&beside, &add, &del].iter().all(|outcome| outcome.failures.is_empty());
    Value::Object(vec![("beside", beside.value()), ("add", add.value()), ("del", del.value())]).print();
    Ok(well)
}

/// What the calls came to: those of either verb for the pods that stay meanwhile, ADD and DEL for the others.
fn measure(pods: &[Pod<'_>], beside: usize, parallel: u32) -> (Outcome, Outcome, Outcome) {
    let (beside, pods) = pods.split_at(beside);
    let before = calls(beside, BESIDE_PARALLEL, "ADD");
    let (add, del) = (calls(pods, parallel, "ADD"), calls(pods, parallel, "DEL"));
    if pods.is_empty() {
        println!("{READY}");
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
    }
    (merge(before, calls(beside, BESIDE_PARALLEL, "DEL")), add, del)
}

fn namespace(verb: &str, name: &str) -> Result<()> {
    let done = Command::new("ip").args(["netns", verb, name]).output();
    let done = done.map_err(|error| format!("ip netns {verb} {name}: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("ip netns {verb} {name}: {}", String::from_utf8_lossy(&done.stderr).trim()))
}

/// A network namespace that stands for a pod.
struct Pod<'a> {
    plugin: &'a str,
    config: &'a [u8],
    name: String,
}

impl<'a> Pod<'a> {
    fn new(plugin: &'a str, config: &'a [u8], index: u32) -> Self {
        Self { plugin, config, name: format!("nkt-bench-{}-{index}", std::process::id()) }
    }

    fn call(&self, verb: &str) -> Result<Duration> {
        let mut plugin = Command::new(self.plugin);
        plugin.env_clear().envs([
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", &self.name),
            ("CNI_NETNS", &format!("/run/netns/{}", self.name)),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
            // No pod of Kubernetes: nothing waits for the API server to say who it is.
            ("CNI_ARGS", "IgnoreUnknown=1"),
        ]);
        plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |error: std::io::Error| format!("{}: {error}", self.plugin);
        let begun = Instant::now();
        let mut child = plugin.spawn().map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            // A plugin that ends early closes the pipe; its own error says more than the write's.
            drop(input.write_all(self.config));
        }
        let output = child.wait_with_output().map_err(failed)?;
        let took = begun.elapsed();
        if output.status.success() {
            return Ok(took);
        }
        Err(String::from_utf8_lossy(&output.stdout).replace(&self.name, "POD"))
    }
}

/// What calls of one verb came to.
#[derive(Default)]
struct Outcome {
    samples: Samples,
    /// What the plugin said, how often.
    failures: BTreeMap<String, u64>,
    took: Duration,
}

impl Outcome {
    fn value(self) -> Value {
        let rate = f64::from(self.samples.count()) / self.took.as_secs_f64();
        Value::Object(vec![
            ("p50_us", Value::Number(self.samples.percentile(500))),
            ("p99_us", Value::Number(self.samples.percentile(990))),
            ("max_us", Value::Number(self.samples.percentile(1000))),
            ("per_second", Value::Number(rate)),
            ("failures", Value::Counts(self.failures)),
        ])
    }
}

/// One call for each pod, that many at a time.
fn calls(pods: &[Pod<'_>], parallel: u32, verb: &str) -> Outcome {
    let next = AtomicU32::new(0);
    let begun = Instant::now();
    let worker = || {
        let mut outcome = Outcome::default();
        while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            match pod.call(verb) {
                Ok(took) => outcome.samples.add(took),
                Err(error) => *outcome.failures.entry(error).or_default() += 1,
            }
        }
        outcome
    };
    let mut all = thread::scope(|scope| {
        let workers: Vec<_> = (0..parallel.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).fold(Outcome::default(), merge)
    });
    all.took = begun.elapsed();
    all
}

fn merge(mut all: Outcome, one: Outcome) -> Outcome {
    all.samples.extend(one.samples);
    for (error, count) in one.failures {
        *all.failures.entry(error).or_default() += count;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pod_is_called_once_and_failures_are_counted_by_what_was_said() {
        let pods: Vec<_> = (0..20).map(|index| Pod::new("/bin/true", b"{}", index)).collect();
        let outcome = calls(&pods, 4, "ADD");
        assert_eq!((outcome.samples.count(), outcome.failures.len()), (20, 0));
        let pods: Vec<_> = (0..3).map(|index| Pod::new("/bin/false", b"{}", index)).collect();
        let outcome = calls(&pods, 1, "DEL");
        assert_eq!((outcome.samples.count(), outcome.failures), (0, BTreeMap::from([(String::new(), 3)])));
    }
}
