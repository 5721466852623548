//! What is told about a Corefile, and where in it.

use std::{fmt, sync::Arc};

/// A line of what was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The file, where it is not the one that was asked about.
    pub(super) file: Option<Arc<str>>,
    /// The line, from 1.
    pub(super) line: usize,
}

impl Place {
    /// The first line of what was asked about.
    pub(super) fn first() -> Self {
        Self { file: None, line: 1 }
    }

    /// The first line of a file.
    pub(super) fn of(file: &str) -> Self {
        Self { file: Some(file.into()), line: 1 }
    }

    /// This many lines further down.
    pub(super) fn below(&self, lines: usize) -> Self {
        Self { file: self.file.clone(), line: self.line + lines }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{file} line {}", self.line),
            None => write!(f, "line {}", self.line),
        }
    }
}

/// One thing that is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finding {
    place: Place,
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// All that is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// What has no place in `spec.dns`.
    pub(super) unmapped: Vec<Finding>,
    /// What is different in Netkeel and does no harm.
    pub(super) notes: Vec<Finding>,
}

impl Findings {
    /// `what` has no place in `spec.dns`; `why` says so, and what to do instead.
    pub(super) fn unmapped(&mut self, place: &Place, what: impl fmt::Display, why: impl fmt::Display) {
        self.unmapped.push(Finding { place: place.clone(), text: format!("{what}: {why}") });
    }

    /// `what` is different in Netkeel and does no harm.
    pub(super) fn note(&mut self, place: &Place, what: impl fmt::Display, why: impl fmt::Display) {
        self.notes.push(Finding { place: place.clone(), text: format!("{what}: {why}") });
    }

    /// In the order of their lines, each once.
    pub(super) fn sorted(mut self) -> Self {
        for list in [&mut self.unmapped, &mut self.notes] {
            list.sort();
            list.dedup();
        }
        self
    }
}
