//! What a series of exchanges came to: who answered, whom they saw, what failed, how long it took.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::json::Value;

/// One answer: the line `name client-address` split.
pub(crate) struct Answer {
    pub(crate) backend: String,
    pub(crate) client: String,
}

impl Answer {
    /// Reads the first line of what a server sent.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let line = bytes.split(|byte| *byte == b'\n').next()?;
        let (backend, client) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        // The port of the client differs each time; its address is what tests look at.
        let client = client.rsplit_once(':')?.0.trim_matches(['[', ']']);
        Some(Self { backend: backend.to_owned(), client: client.to_owned() })
    }
}

pub(crate) struct Tally {
    started: Instant,
    last: Instant,
    longest_gap: Duration,
    backends: BTreeMap<String, u64>,
    clients: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    micros: Vec<u32>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            last: now,
            longest_gap: Duration::ZERO,
            backends: BTreeMap::new(),
            clients: BTreeMap::new(),
            errors: BTreeMap::new(),
            micros: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, result: Result<Answer, std::io::Error>, took: Duration) {
        match result {
            Ok(answer) => {
                let now = Instant::now();
                self.longest_gap = self.longest_gap.max(now - self.last);
                self.last = now;
                *self.backends.entry(answer.backend).or_default() += 1;
                *self.clients.entry(answer.client).or_default() += 1;
                self.micros.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
            }
            Err(error) => *self.errors.entry(name(&error)).or_default() += 1,
        }
    }

    /// Prints the tally; whether there was no error and at least one answer.
    pub(crate) fn print(mut self) -> bool {
        let seconds = self.started.elapsed().as_secs_f64();
        let answered = self.micros.len();
        let failed: u64 = self.errors.values().sum();
        self.micros.sort_unstable();
        let percentile = |share: usize| {
            let index = (answered * share / 100).min(answered.saturating_sub(1));
            Value::Count(u64::from(self.micros.get(index).copied().unwrap_or(0)))
        };
        let (p50, p99) = (percentile(50), percentile(99));
        Value::Object(vec![
            ("ok", Value::Count(answered as u64)),
            ("failed", Value::Count(failed)),
            ("backends", Value::Counts(self.backends)),
            ("clients", Value::Counts(self.clients)),
            ("errors", Value::Counts(self.errors)),
            ("longest_gap_ms", Value::Number(self.longest_gap.as_secs_f64() * 1e3)),
            ("p50_us", p50),
            ("p99_us", p99),
            ("per_second", Value::Number(f64::from(u32::try_from(answered).unwrap_or(u32::MAX)) / seconds)),
            ("seconds", Value::Number(seconds)),
        ])
        .print();
        failed == 0 && answered > 0
    }
}

/// A closed set of names for what can go wrong.
pub(crate) fn name(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused".into(),
        ErrorKind::ConnectionReset => "reset".into(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timeout".into(),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable".into(),
        ErrorKind::UnexpectedEof => "closed".into(),
        ErrorKind::InvalidData => "garbled".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_first_line_without_the_clients_port() {
        let answer = Answer::parse(b"web-1 10.244.0.3:51234\nmore").unwrap();
        assert_eq!((answer.backend.as_str(), answer.client.as_str()), ("web-1", "10.244.0.3"));
        assert!(Answer::parse(b"web-1\n").is_none());
    }
}
