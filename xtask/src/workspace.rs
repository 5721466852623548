//! What cargo says about the workspace's own crates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use netkeel_e2e::process;
use serde::Deserialize;

/// One crate of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) features: BTreeMap<String, Vec<String>>,
    pub(crate) targets: Vec<Target>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One thing that cargo builds from a crate.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
    #[serde(default)]
    pub(crate) src_path: PathBuf,
    #[serde(default, rename = "required-features")]
    pub(crate) required_features: Vec<String>,
}

/// One line of a crate's dependencies.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `dev` or `build`; none is a normal one.
    pub(crate) kind: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

impl Package {
    /// The folder of its Cargo.toml.
    pub(crate) fn folder(&self) -> PathBuf {
        self.manifest_path.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// A crate for tests, in `folder`, with these target files.
    #[cfg(test)]
    pub(crate) fn of(folder: &Path, targets: &[&str]) -> Self {
        let target = |file: &&str| Target {
            name: "test".into(),
            kind: vec!["lib".into()],
            src_path: folder.join(file),
            required_features: Vec::new(),
        };
        Self {
            name: "test".into(),
            id: "test".into(),
            manifest_path: folder.join("Cargo.toml"),
            features: BTreeMap::new(),
            targets: targets.iter().map(target).collect(),
            dependencies: Vec::new(),
        }
    }
}

/// The crates of the workspace at `root`.
pub(crate) fn packages(root: &Path) -> Result<Vec<Package>> {
    let output = process::cargo()
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    let told = || String::from_utf8_lossy(&output.stderr).into_owned();
    let metadata: Metadata = serde_json::from_slice(&output.stdout).with_context(told)?;
    Ok(metadata.packages)
}
