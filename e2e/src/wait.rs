//! Waiting for something to become true, with the last reason in the error.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Between two checks: a tenth of the time that has passed, within these. Most checks start a program.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// Calls `check` again and again until it returns a value. After `timeout` the error names `what` and carries the last error.
///
/// # Errors
/// The last error of `check`, when the time is over.
pub fn wait_until<T>(what: &str, timeout: Duration, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() >= timeout => {
                return Err(error).with_context(|| format!("{what}: not within {} s", timeout.as_secs_f64()));
            }
            Err(_) => std::thread::sleep((start.elapsed() / 10).clamp(PAUSES[0], PAUSES[1])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reason_is_in_the_error() {
        let mut calls = 0;
        let error = wait_until("the moon is full", Duration::from_millis(150), || -> Result<()> {
            calls += 1;
            anyhow::bail!("call {calls}")
        })
        .unwrap_err();
        assert!(calls >= 2);
        assert_eq!(format!("{error:#}"), format!("the moon is full: not within 0.15 s: call {calls}"));
    }
}
