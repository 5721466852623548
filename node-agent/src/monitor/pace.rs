//! How soon a notice leads to a look: soon for the first, later and later while notices keep coming, so that a program that
//! fights over our routes costs little. Never so late that a repair would take a second.

use std::time::{Duration, Instant};

/// Notices of one event come together.
const GATHER: Duration = Duration::from_millis(50);
/// The longest that a notice waits.
const LONGEST: Duration = Duration::from_millis(400);
/// After so long without a look the next notice is a first one again.
const CALM: Duration = Duration::from_secs(2);

/// The time between looks.
#[derive(Debug)]
pub struct Pace {
    last: Option<Instant>,
    gap: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { last: None, gap: GATHER }
    }
}

impl Pace {
    /// How long to wait from `now`, when a notice came, until the look that it leads to.
    pub fn wait(&mut self, now: Instant) -> Duration {
        let calm = self.last.is_none_or(|last| now.saturating_duration_since(last) >= CALM);
        self.gap = if calm { GATHER } else { (self.gap * 2).min(LONGEST) };
        self.last = Some(now + self.gap);
        self.gap
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_notice_waits_shortly_and_a_storm_longer_and_longer_until_it_is_over() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        let waits: Vec<_> = (0..6)
            .map(|_| {
                let wait = pace.wait(now);
                now += wait + Duration::from_millis(1);
                wait.as_millis()
            })
            .collect();
        assert_eq!(waits, [50, 100, 200, 400, 400, 400]);
        assert_eq!(pace.wait(now + CALM).as_millis(), 50);
    }

    proptest! {
        #[test]
        fn looks_are_rare_in_every_storm_and_none_is_late(gaps in prop::collection::vec(0_u64..3000, 1..200)) {
            let start = Instant::now();
            let (mut now, mut pace, mut looks) = (start, Pace::default(), 0_u32);
            for gap in gaps {
                let wait = pace.wait(now);
                prop_assert!((GATHER..=LONGEST).contains(&wait));
                looks += 1;
                now += wait + Duration::from_millis(gap);
            }
            // Three short waits after each calm, then five in two seconds.
            let seconds = now.duration_since(start).as_secs_f64();
            prop_assert!(f64::from(looks) <= 5.0 + seconds * 2.5, "{looks} looks in {seconds} s");
        }
    }
}
