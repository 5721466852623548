//! The checklist of the demo: one line a step, with the time it took and the time since the start.
//! While a step takes long, a line every five seconds says so.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const STILL_WORKING: Duration = Duration::from_secs(5);

pub(super) struct Checklist {
    started: Instant,
    passed: usize,
}

impl Checklist {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), passed: 0 }
    }

    pub(super) fn passed(&self) -> usize {
        self.passed
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Runs a step and prints its line.
    pub(super) fn step<T>(&mut self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (value, took) = self.run(what, work)?;
        self.line(what, took, "");
        Ok(value)
    }

    /// Runs a step that says what it saw.
    pub(super) fn told(&mut self, what: &str, work: impl FnOnce() -> Result<String>) -> Result<()> {
        let (seen, took) = self.run(what, work)?;
        self.line(what, took, &seen);
        Ok(())
    }

    fn run<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
        let step = Instant::now();
        let (done, wait) = channel::<()>();
        let result = std::thread::scope(|scope| {
            scope.spawn(move || {
                while wait.recv_timeout(STILL_WORKING) == Err(RecvTimeoutError::Timeout) {
                    println!("  … {what}: {:.0} s", step.elapsed().as_secs_f64());
                }
            });
            let result = work();
            drop(done);
            result
        });
        match result {
            Ok(value) => Ok((value, step.elapsed())),
            Err(error) => {
                println!("✗ [{:6.1} s] {what}", self.elapsed().as_secs_f64());
                Err(error).with_context(|| format!("failed: {what}"))
            }
        }
    }

    fn line(&mut self, what: &str, took: Duration, seen: &str) {
        self.passed += 1;
        println!("✓ [{:6.1} s, +{:.1} s] {what}", self.elapsed().as_secs_f64(), took.as_secs_f64());
        if !seen.is_empty() {
            println!("      {seen}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_named_in_the_error_and_not_counted() {
        let mut list = Checklist::start();
        list.step("first", || Ok(())).unwrap();
        let error = list.step("second", || -> Result<()> { anyhow::bail!("no") }).unwrap_err();
        assert_eq!(format!("{error:#}"), "failed: second: no");
        assert_eq!(list.passed(), 1);
    }
}
