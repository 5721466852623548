//! `--name value` pairs and words. No crate: this program has no dependencies.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::Result;

pub(crate) struct Flags {
    words: Vec<String>,
    pairs: HashMap<String, String>,
}

impl Flags {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut flags = Self { words: Vec::new(), pairs: HashMap::new() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if let Some(name) = argument.strip_prefix("--") {
                let value = rest.next().ok_or_else(|| format!("--{name} needs a value"))?;
                flags.pairs.insert(name.to_owned(), value.clone());
            } else {
                flags.words.push(argument.clone());
            }
        }
        Ok(flags)
    }

    /// The first argument that is no flag.
    pub(crate) fn word(&self, what: &str) -> Result<&str> {
        self.words.first().map(String::as_str).ok_or_else(|| format!("{what} is missing"))
    }

    /// All arguments that are no flags.
    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.pairs.get(name).map(String::as_str)
    }

    pub(crate) fn get<T: FromStr<Err: Display>>(&self, name: &str, default: T) -> Result<T> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|error| format!("--{name} {text}: {error}")),
        }
    }

    /// A time in milliseconds.
    pub(crate) fn millis(&self, name: &str, default: u64) -> Result<Duration> {
        self.get(name, default).map(Duration::from_millis)
    }

    /// The end of `--seconds` from now, or the moment when the file `--stop` is there.
    pub(crate) fn deadline(&self, seconds: f64) -> Result<Deadline> {
        let length = Duration::from_secs_f64(self.get("seconds", seconds)?);
        Ok(Deadline { end: Instant::now() + length, stop: self.text("stop").map(PathBuf::from) })
    }

    pub(crate) fn target(&self) -> Result<std::net::SocketAddr> {
        crate::resolve::target(self.text("to").ok_or("--to HOST:PORT is missing")?)
    }
}

/// When a prober ends.
pub(crate) struct Deadline {
    end: Instant,
    stop: Option<PathBuf>,
}

impl Deadline {
    pub(crate) fn over(&self) -> bool {
        Instant::now() >= self.end || self.stop.as_ref().is_some_and(|file| file.exists())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_pairs_mix() {
        let flags = Flags::parse(&["--count", "3", "name", "--tcp", "true"].map(String::from)).unwrap();
        assert_eq!(flags.word("a name").unwrap(), "name");
        assert_eq!(flags.get("count", 1).unwrap(), 3);
        assert!(flags.get("tcp", false).unwrap());
        assert_eq!(flags.get("size", 64).unwrap(), 64);
        assert!(flags.get::<u8>("tcp", 0).unwrap_err().starts_with("--tcp true: "));
    }

    #[test]
    fn a_prober_ends_with_its_time_or_at_the_stop_file() {
        let until = |pairs: &[&str]| {
            let arguments: Vec<String> = pairs.iter().map(|&text| text.to_owned()).collect();
            Flags::parse(&arguments).unwrap().deadline(60.0).unwrap()
        };
        assert!(!until(&[]).over());
        assert!(until(&["--seconds", "0"]).over());
        assert!(!until(&["--stop", "/nonesuch/stop"]).over());
        assert!(until(&["--stop", "/proc/self/stat"]).over());
    }
}
