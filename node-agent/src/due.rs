//! When something is to be done next: at once after a change, later and later after failures, now and then to repair drift.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// The time of one recurring piece of work.
#[derive(Debug)]
pub struct Due {
    at: Option<Instant>,
    delay: Duration,
    period: Duration,
}

impl Due {
    /// Due at once, and every `period` after a success.
    #[must_use]
    pub fn now(period: Duration) -> Self {
        Self { at: None, delay: FIRST, period }
    }

    /// Whether it is time.
    #[must_use]
    pub fn is(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| at <= now)
    }

    /// Something changed: do not wait, not even after failures.
    pub fn hurry(&mut self) {
        self.at = None;
    }

    /// It worked.
    pub fn done(&mut self, now: Instant) {
        self.delay = FIRST;
        self.at = Some(now + self.period);
    }

    /// It failed.
    pub fn failed(&mut self, now: Instant) {
        self.at = Some(now + self.delay);
        self.delay = (self.delay * 2).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_wait_longer_and_longer_and_a_change_waits_not_at_all() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut due = Due::now(Duration::from_mins(1));
        assert!(due.is(start));
        due.failed(start);
        assert!(!due.is(start) && due.is(after(1)));
        due.failed(start);
        assert!(!due.is(after(1)) && due.is(after(2)));
        (0..9).for_each(|_| due.failed(start));
        assert!(!due.is(after(29)) && due.is(after(30)));
        due.hurry();
        assert!(due.is(start));
        due.done(start);
        assert!(!due.is(after(59)) && due.is(after(60)));
        due.failed(start);
        assert!(due.is(after(1)), "a success makes the first wait short again");
    }
}
