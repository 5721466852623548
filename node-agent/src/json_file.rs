//! A value in a JSON file, read and written whole: a reader finds what was there before or what is there now.

use std::{fs, io, path::Path};

use serde::{Serialize, de::DeserializeOwned};

/// What could not be done with the file, as one verb, and why.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) verb: &'static str,
    pub(crate) source: io::Error,
}

/// How long a written file must last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// As long as the kernel runs: the page cache will do.
    ThisBoot,
    /// Over a reboot: synced to the disk before it takes the old one's place, and the folder when it has.
    OverReboots,
}

/// What the file holds; `None` where there is no file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failed> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|source| Failed { verb: "read", source })?,
    };
    let understood = serde_json::from_slice(&bytes);
    understood.map(Some).map_err(|error| Failed { verb: "understand", source: error.into() })
}

/// Writes the file, and its folder where that is missing.
pub(crate) fn write(path: &Path, value: &(impl Serialize + ?Sized), lasting: Lasting) -> Result<(), Failed> {
    let fresh = path.with_extension("new");
    let written = serde_json::to_vec(value).map_err(io::Error::from).and_then(|bytes| {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&fresh, bytes)?;
        if lasting == Lasting::OverReboots {
            fs::File::open(&fresh)?.sync_all()?;
        }
        fs::rename(&fresh, path)?;
        match path.parent() {
            Some(folder) if lasting == Lasting::OverReboots => fs::File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    });
    written.map_err(|source| Failed { verb: "write", source })
}
