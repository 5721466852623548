//! The `NodeNetwork` objects as they were applied last, on disk: an agent that starts without the API server knows its node.

use std::{
    io,
    path::{Path, PathBuf},
};

use netkeel_crds::NodeNetwork;

use crate::json_file::{self, Failed, Lasting};

/// Name of the file in the state folder.
pub const FILE: &str = "node-network.json";

/// The file could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {path}: what was known before a restart may be lost")]
pub struct Error {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Error {
    fn of(path: PathBuf, Failed { verb, source }: Failed) -> Self {
        Self { verb, path, source }
    }
}

/// What was written last; nothing where there is no file.
///
/// # Errors
/// When the file cannot be read or understood.
pub fn read(folder: &Path) -> Result<Vec<NodeNetwork>, Error> {
    let path = folder.join(FILE);
    json_file::read(&path).map(Option::unwrap_or_default).map_err(|failed| Error::of(path, failed))
}

/// Writes the objects, whole or not at all.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(folder: &Path, objects: &[NodeNetwork]) -> Result<(), Error> {
    let path = folder.join(FILE);
    json_file::write(&path, objects, Lasting::OverReboots).map_err(|failed| Error::of(path, failed))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use netkeel_crds::NodeNetworkSpec;

    use super::*;

    #[test]
    fn what_was_written_is_read_again_and_nothing_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap().is_empty());
        let spec =
            NodeNetworkSpec { blocks: vec!["10.244.0.64/26".parse().unwrap()], ..NodeNetworkSpec::default() };
        write(folder.path(), &[NodeNetwork::new("a", spec)]).unwrap();
        assert_eq!(read(folder.path()).unwrap()[0].spec.blocks.len(), 1);
        fs::write(folder.path().join(FILE), "{ half").unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().starts_with("understand"));
    }
}
