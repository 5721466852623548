//! The numbers of classes and rules on disk: the kernel's tables of an earlier agent are made of them. Lost with the maps at a reboot.

use std::{
    io,
    path::{Path, PathBuf},
};

use netkeel_core::policy::Numbers;

use crate::json_file::{self, Failed, Lasting};

/// Name of the file in the run folder.
pub const FILE: &str = "policy-numbers.json";

/// The file could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {path}: identities in the kernel would lose their meaning")]
pub struct Error {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The file, and what it holds.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    kept: Option<Numbers>,
}

impl Kept {
    /// The file in this folder, whether it exists or not.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self { path: folder.join(FILE), kept: None }
    }

    /// What was written last; `None` where there is no file.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn read(&mut self) -> Result<Option<Numbers>, Error> {
        self.kept = json_file::read(&self.path).map_err(|failed| self.error(failed))?;
        Ok(self.kept.clone())
    }

    /// Writes the numbers, whole or not at all, where they differ from what was written last.
    ///
    /// # Errors
    /// When the file cannot be written: nothing may then be written to the kernel that is made of new numbers.
    pub fn keep(&mut self, numbers: &Numbers) -> Result<(), Error> {
        if self.kept.as_ref() == Some(numbers) {
            return Ok(());
        }
        json_file::write(&self.path, numbers, Lasting::ThisBoot).map_err(|failed| self.error(failed))?;
        self.kept = Some(numbers.clone());
        Ok(())
    }

    fn error(&self, Failed { verb, source }: Failed) -> Error {
        Error { verb, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use netkeel_core::policy::{Class, Who};

    use super::*;

    fn class(leaf: &str) -> Class {
        Class { who: Who::World, leaf: Some(leaf.parse().unwrap()) }
    }

    #[test]
    fn numbers_mean_the_same_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::at(folder.path());
        assert_eq!(kept.read().unwrap(), None);
        let mut numbers = Numbers::default();
        let first = numbers.class(&class("10.0.0.0/8")).unwrap();
        kept.keep(&numbers).unwrap();
        let mut again = Kept::at(folder.path()).read().unwrap().unwrap();
        assert_eq!(again.class(&class("10.0.0.0/8")), Some(first));
        assert_ne!(again.class(&class("10.0.0.0/16")), Some(first));
    }

    #[test]
    fn what_is_kept_already_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::at(folder.path());
        let numbers = Numbers::default();
        kept.keep(&numbers).unwrap();
        fs::remove_file(folder.path().join(FILE)).unwrap();
        kept.keep(&numbers).unwrap();
        assert!(!folder.path().join(FILE).exists());
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_said_to_be_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{ half").unwrap();
        let error = Kept::at(folder.path()).read().unwrap_err();
        assert!(error.to_string().starts_with("understand"), "{error}");
    }
}
