//! Checks that several tests and the demo share: values in, a sentence out.
#![expect(clippy::missing_errors_doc, reason = "the error is the check that failed")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};

/// Of 300 connections to a Service with three endpoints, each endpoint gets 20 to 47 %.
const SHARE_OF_THREE: std::ops::RangeInclusive<usize> = 20..=47;

/// Checks that each of `backends` backends, and no other, got its share of the connections.
pub fn fair_share(counts: &BTreeMap<String, usize>, backends: usize) -> Result<()> {
    let total: usize = counts.values().sum();
    ensure!(counts.len() == backends, "{} of {backends} backends answered: {counts:?}", counts.len());
    // 20..47 of a hundred are the bounds around a third; other numbers of backends scale with them.
    let bounds = (SHARE_OF_THREE.start() * 3 / backends)..=(SHARE_OF_THREE.end() * 3 / backends);
    for (backend, count) in counts {
        let share = count * 100 / total;
        ensure!(
            bounds.contains(&share),
            "{backend} got {share} % of {total} connections, not {bounds:?}: {counts:?}"
        );
    }
    Ok(())
}

/// Checks that something took no longer than `limit`.
pub fn within(what: &str, took: Duration, limit: Duration) -> Result<()> {
    ensure!(took <= limit, "{what} took {took:.1?}, the limit is {limit:.1?}");
    Ok(())
}

/// The p-th percentile (0 to 100) of durations; zero when there are none.
#[must_use]
pub fn percentile(mut values: Vec<Duration>, p: usize) -> Duration {
    values.sort();
    let at = (values.len() * p / 100).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(values: &[usize]) -> BTreeMap<String, usize> {
        values.iter().enumerate().map(|(i, count)| (format!("pod-{i}"), *count)).collect()
    }

    #[test]
    fn a_third_each_is_fair() {
        fair_share(&counts(&[100, 90, 110]), 3).unwrap();
    }

    #[test]
    fn a_backend_with_half_of_the_connections_is_not_fair() {
        assert!(fair_share(&counts(&[150, 80, 70]), 3).is_err());
    }

    #[test]
    fn a_silent_backend_is_not_fair() {
        assert!(fair_share(&counts(&[150, 150]), 3).is_err());
    }

    #[test]
    fn the_median_of_three_is_the_middle() {
        let ms = |n| Duration::from_millis(n);
        assert_eq!(percentile(vec![ms(30), ms(10), ms(20)], 50), ms(20));
    }
}
