//! How busy the machine is: figures of a busy machine are figures of something else.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use netkeel_e2e::Progress;

/// Share of CPU time that must be idle.
const QUIET: f64 = 0.85;
const LOOK: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until the machine has little else to do; says so where it never has.
pub(super) fn settle(progress: &Progress) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = Ticks::read()?;
        std::thread::sleep(LOOK);
        let idle = Ticks::read()?.idle_since(&before);
        if idle >= QUIET {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let busy = (1.0 - idle) * 100.0;
            progress.say(format!(
                "the machine is {busy:.0} % busy with other work: the next figures are disturbed"
            ));
            return Ok(());
        }
    }
}

/// CPU time of the whole machine since its start, in ticks of 10 ms (`USER_HZ`, the same on every Linux).
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticks {
    idle: u32,
    all: u32,
    /// Of programs that are not nice, the kernel for them, and interrupts.
    busy: u32,
}

impl Ticks {
    pub(super) fn read() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Self::parse(&text).context("/proc/stat has no line cpu")
    }

    /// The columns are user, nice, system, idle, iowait and others; the last two, guest time, are in user already.
    fn parse(text: &str) -> Option<Self> {
        let numbers = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let ticks: Vec<u32> = numbers.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        let sum = |columns: &[usize]| columns.iter().filter_map(|column| ticks.get(*column)).sum();
        (ticks.len() == 8).then(|| Self {
            idle: sum(&[3, 4]),
            all: ticks.iter().sum(),
            busy: sum(&[0, 2, 5, 6]),
        })
    }

    /// Seconds of CPU time that were used for something since then, without what runs at the lowest priority.
    pub(super) fn busy_since(&self, before: &Self) -> f64 {
        f64::from(self.busy.wrapping_sub(before.busy)) / 100.0
    }

    fn idle_since(&self, before: &Self) -> f64 {
        let all = self.all.wrapping_sub(before.all).max(1);
        f64::from(self.idle.wrapping_sub(before.idle)) / f64::from(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_the_share_of_idle_and_waiting_time() {
        let before = Ticks::parse("cpu  100 0 50 1000 10 0 0 0 7 7\ncpu0 1").unwrap();
        let after = Ticks::parse("cpu  110 0 60 1070 20 0 0 0 9 9\ncpu0 1").unwrap();
        assert!((after.idle_since(&before) - 0.8).abs() < 1e-9);
        assert!((after.busy_since(&before) - 0.2).abs() < 1e-9);
        assert!(Ticks::parse("intr 1").is_none());
    }
}
