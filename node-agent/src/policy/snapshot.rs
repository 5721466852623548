//! What policy depends on, on disk: an agent that starts without the API server gives new sandboxes of pods that it knows their policy.

use std::{
    io,
    path::{Path, PathBuf},
};

use k8s_openapi::api::{core::v1::Namespace, networking::v1::NetworkPolicy};
use serde::{Deserialize, Serialize};

use crate::{
    json_file::{self, Failed, Lasting},
    pods::SlimPod,
};

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

impl Error {
    fn of(path: PathBuf, Failed { verb, source }: Failed) -> Self {
        Self { verb, path, source }
    }
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
        json_file::read(&path).map_err(|failed| Error::of(path, failed))
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(FILE);
        json_file::write(&path, self, Lasting::OverReboots).map_err(|failed| Error::of(path, failed))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
