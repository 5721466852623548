//! What a long task says while it works: one line a finished step, with the time since the start.

use std::time::Instant;

/// Prints steps to stderr, so that stdout stays for results.
pub struct Progress {
    started: Instant,
}

impl Progress {
    #[must_use]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Prints one line.
    pub fn say(&self, text: impl AsRef<str>) {
        eprintln!("[{:6.1} s] {}", self.started.elapsed().as_secs_f64(), text.as_ref());
    }
}
