//! `--name value` pairs and words. No crate: this program has no dependencies.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

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

    pub(crate) fn target(&self) -> Result<std::net::SocketAddr> {
        crate::resolve::target(self.text("to").ok_or("--to HOST:PORT is missing")?)
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
}
