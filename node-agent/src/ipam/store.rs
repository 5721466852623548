//! The folder of address records. Every write is a new file and a rename, so a reader sees all of it or nothing;
//! a new address's rename fails where a file exists (ADR 0003).

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use netkeel_core::address::Address;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{Error, record::Record};

#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
}

impl Store {
    pub(super) fn open(folder: &Path) -> Result<(Self, Vec<Record>), Error> {
        let store = Self { folder: folder.to_owned() };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| store.error("make", "", source))?;
        let records = store.read_all().map_err(|source| store.error("read", "", source))?;
        Ok((store, records))
    }

    /// Writes the file of an address that has none.
    pub(super) fn create(&self, record: &Record) -> Result<(), Error> {
        self.write(record, RenameFlags::RENAME_NOREPLACE)
    }

    /// Writes the file of an address that has one.
    pub(super) fn replace(&self, record: &Record) -> Result<(), Error> {
        self.write(record, RenameFlags::empty())
    }

    pub(super) fn remove(&self, address: Address) -> Result<(), Error> {
        let name = address.to_string();
        match fs::remove_file(self.folder.join(&name)) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(self.error("remove", &name, source)),
            _ => Ok(()),
        }
    }

    fn write(&self, record: &Record, flags: RenameFlags) -> Result<(), Error> {
        let name = record.address.to_string();
        let (new, file) = (self.folder.join(format!(".{name}.new")), self.folder.join(&name));
        let renamed = fs::write(&new, record.to_json())
            .and_then(|()| Ok(renameat2(AT_FDCWD, &new, AT_FDCWD, &file, flags)?));
        renamed.map_err(|source| {
            // What is half written takes room; where it cannot be removed the next start does it.
            let _ = fs::remove_file(&new);
            self.error("write", &name, source)
        })
    }

    /// All records; what a crash left half written is removed.
    fn read_all(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') {
                fs::remove_file(&path)?;
            } else {
                records.extend(Record::read(&name, &fs::read(&path)?));
            }
        }
        Ok(records)
    }

    fn error(&self, verb: &'static str, name: &str, source: io::Error) -> Error {
        Error::Store { verb, path: self.folder.join(name), source }
    }
}
