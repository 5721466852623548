//! DELs that found no agent: one file each, written by the plugin, done by the agent before it serves and again
//! every now and then, for one that arrives just between.

use std::{
    fs::{self, DirBuilder},
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use netkeel_core::ipam::Owner;
use serde::{Deserialize, Serialize};

use crate::link::name;

/// One DEL to be made up for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    #[serde(flatten)]
    pub owner: Owner,
    /// Trace of the call.
    #[serde(default)]
    pub traceparent: String,
}

/// The folder of such files.
#[derive(Clone, Debug)]
pub struct Journal {
    folder: PathBuf,
}

impl Journal {
    /// The journal below the state folder; nothing is made yet.
    #[must_use]
    pub fn new(state_folder: &Path) -> Self {
        Self { folder: state_folder.join("journal") }
    }

    /// Writes one entry; the same DEL twice is one entry.
    ///
    /// # Errors
    /// When the folder cannot be made or written: the DEL is then not safe and must fail.
    pub fn write(&self, entry: &Entry) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let file = self.file(&entry.owner);
        let new = file.with_extension(format!("{}.new", std::process::id()));
        fs::write(&new, serde_json::to_vec(entry)?)?;
        fs::rename(&new, &file)
    }

    /// All entries. A file that cannot be understood is removed with a word about it: the sweep for leaks covers it.
    ///
    /// # Errors
    /// When the folder cannot be read; a missing one is empty.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let files = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            files => files?,
        };
        let mut entries = Vec::new();
        for file in files {
            let path = file?.path();
            // Another extension is a file that its plugin has not finished.
            if path.extension().is_some() {
                continue;
            }
            match serde_json::from_slice(&fs::read(&path)?) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a journalled DEL cannot be understood, it is dropped");
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(entries)
    }

    /// Whether a DEL of this owner waits.
    #[must_use]
    pub fn has(&self, owner: &Owner) -> bool {
        self.file(owner).exists()
    }

    /// The entry is done.
    ///
    /// # Errors
    /// When its file cannot be removed; one that is gone is fine.
    pub fn remove(&self, owner: &Owner) -> io::Result<()> {
        match fs::remove_file(self.file(owner)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn file(&self, owner: &Owner) -> PathBuf {
        self.folder.join(name::host_side(owner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_written_once_and_read_back_and_rubbish_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path());
        assert!(journal.entries().unwrap().is_empty());
        let owner = Owner { container_id: "a".to_owned(), interface: "eth0".to_owned() };
        let entry = Entry { owner: owner.clone(), traceparent: "t".to_owned() };
        journal.write(&entry).unwrap();
        journal.write(&entry).unwrap();
        fs::write(folder.path().join("journal/nk000000000000"), "{").unwrap();
        assert_eq!(journal.entries().unwrap(), [entry]);
        assert!(journal.has(&owner));
        journal.remove(&owner).unwrap();
        journal.remove(&owner).unwrap();
        assert!(fs::read_dir(folder.path().join("journal")).unwrap().next().is_none());
    }
}
