//! Times of single operations.

use std::time::{Duration, Instant};

/// Nanoseconds, one entry an operation.
#[derive(Default)]
pub(super) struct Samples(Vec<u64>);

impl Samples {
    /// Repeats an exchange for that long: exchanges a second, and the time of each. Any that fails ends it, since a rate
    /// with failures in it says nothing.
    pub(super) fn of(
        length: Duration,
        mut exchange: impl FnMut() -> std::io::Result<()>,
    ) -> std::io::Result<(f64, Self)> {
        let mut samples = Self::default();
        let begun = Instant::now();
        let mut last = begun;
        while last - begun < length {
            exchange()?;
            let now = Instant::now();
            samples.add(now - last);
            last = now;
        }
        Ok((f64::from(samples.count()) / (last - begun).as_secs_f64(), samples))
    }

    pub(super) fn add(&mut self, took: Duration) {
        self.0.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// The smallest time that at least `share` per mille of the operations did not exceed, in microseconds.
    pub(super) fn percentile(&self, share: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * share).div_ceil(1000).saturating_sub(1);
        let nanos = sorted.get(rank).copied().unwrap_or_default();
        Duration::from_nanos(nanos).as_secs_f64() * 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut samples = Samples::default();
        for micros in (1..=200).rev() {
            samples.add(Duration::from_micros(micros));
        }
        let seen = [1, 500, 990, 1000].map(|share| samples.percentile(share).round());
        assert_eq!(seen.map(|micros| micros.to_string()), ["1", "100", "198", "200"]);
        assert!(Samples::default().percentile(500).abs() < f64::EPSILON);
    }
}
