//! What policy depends on, on disk: an agent that starts without the API server gives new sandboxes of pods that it knows their policy.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use k8s_openapi::api::{core::v1::Namespace, networking::v1::NetworkPolicy};
use serde::{Deserialize, Serialize};

use crate::pods::SlimPod;

/// Name of the file in the state folder.
pub const FILE: &str = "policy.json";

/// The file could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {path}: without the API server, new pods of this node stay closed after a restart")]
pub struct Error {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// The node's own pods, and of all others one for each identity: rules are made of identities.
    pub pods: Vec<SlimPod>,
    /// All namespaces.
    pub namespaces: Vec<Namespace>,
    /// All policies.
    pub policies: Vec<NetworkPolicy>,
}

impl Snapshot {
    /// What was written last; `None` where there is no file.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(FILE);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| Error { verb: "read", path: path.clone(), source })?,
        };
        let understood = serde_json::from_slice(&bytes);
        understood.map(Some).map_err(|error| Error { verb: "understand", path, source: error.into() })
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(FILE);
        let fresh = path.with_extension("new");
        let written = serde_json::to_vec(self).map_err(io::Error::from).and_then(|bytes| {
            fs::create_dir_all(folder)?;
            fs::write(&fresh, bytes)?;
            fs::File::open(&fresh)?.sync_all()?;
            fs::rename(&fresh, &path)
        });
        written.map_err(|source| Error { verb: "write", path, source })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_is_read_again_and_rubbish_is_said_to_be_some() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Snapshot::read(folder.path()).unwrap(), None);
        let snapshot: Snapshot = serde_json::from_value(json!({
            "pods": [{"metadata": {"name": "cart-0", "namespace": "shop", "uid": "u"}, "spec": {"nodeName": "a"}}],
            "namespaces": [{"metadata": {"name": "shop", "labels": {"team": "x"}}}],
            "policies": [{"metadata": {"name": "deny", "namespace": "shop"}, "spec": {"podSelector": {}}}],
        }))
        .unwrap();
        snapshot.write(folder.path()).unwrap();
        assert_eq!(Snapshot::read(folder.path()).unwrap(), Some(snapshot));
        fs::write(folder.path().join(FILE), "{\"pods\": [").unwrap();
        let error = Snapshot::read(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("understand") && error.contains("stay closed"), "{error}");
    }
}
