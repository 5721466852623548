//! How an error is told: all of it, on one line.

use std::error::Error;

/// An error and its causes, outermost first.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Step(&'static str, #[source] Option<Box<dyn Error + Send + Sync>>);

    #[test]
    fn every_cause_is_told_once_and_outermost_first() {
        let refused = io::Error::other("no such device");
        let inner = Step("attach from_pod", Some(Box::new(refused)));
        assert_eq!(
            chain(&Step("add pod", Some(Box::new(inner)))),
            "add pod: attach from_pod: no such device"
        );
        assert_eq!(chain(&Step("alone", None)), "alone");
    }
}
