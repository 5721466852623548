//! What makes the runtime call Netkeel: the plugin in the CNI folder, and the configuration, written last. Both atomically.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Name of the plugin.
pub const PLUGIN: &str = "netkeel-cni";
/// Name of the configuration; the runtime uses the first by name alone.
pub const CONFIGURATION: &str = "05-netkeel.conflist";

/// libcni 1.2 and later takes the highest of the versions that it knows; earlier ones know `cniVersion` alone.
const CONFLIST: &str = r#"{
  "cniVersion": "1.0.0",
  "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
  "name": "netkeel",
  "plugins": [
    {
      "type": "netkeel-cni"
    }
  ]
}
"#;

/// Why the runtime does not call Netkeel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another network's configuration would be used instead.
    #[error("{path} of another network comes before {CONFIGURATION}: remove it, and Netkeel takes over")]
    Rival {
        /// The other configuration.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{verb} {path}")]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Where the runtime looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// Plugins, `/opt/cni/bin` of the host.
    pub bin: PathBuf,
    /// Configurations, `/etc/cni/net.d` of the host.
    pub conf: PathBuf,
}

impl Folders {
    /// The usual folders, seen below a prefix.
    #[must_use]
    pub fn below(prefix: &Path) -> Self {
        Self { bin: prefix.join("opt/cni/bin"), conf: prefix.join("etc/cni/net.d") }
    }

    /// Copies the plugin, where it differs. Returns whether it did.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn install_plugin(&self, plugin: &Path) -> Result<bool, Error> {
        let bytes = fs::read(plugin).map_err(failed("read", plugin))?;
        replace(&self.bin.join(PLUGIN), &bytes, 0o755)
    }

    /// Writes the configuration, where it differs. Returns whether it did.
    ///
    /// # Errors
    /// When another network's configuration comes first (ours is not written then), or the file cannot be written.
    pub fn install_configuration(&self) -> Result<bool, Error> {
        if let Some(first) =
            self.rivals()?.into_iter().find(|path| path.file_name() < Some(CONFIGURATION.as_ref()))
        {
            return Err(Error::Rival { path: first });
        }
        replace(&self.conf.join(CONFIGURATION), CONFLIST.as_bytes(), 0o644)
    }

    /// Configurations of other networks, in the order in which the runtime would use them.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn rivals(&self) -> Result<Vec<PathBuf>, Error> {
        let entries = match fs::read_dir(&self.conf) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed("list", &self.conf))?,
        };
        let paths: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.path())).collect();
        let mut paths = paths.map_err(failed("list", &self.conf))?;
        paths.retain(|path| is_configuration(path) && path.file_name() != Some(CONFIGURATION.as_ref()));
        paths.sort();
        Ok(paths)
    }

    /// Removes the configuration, then the plugin; what is not there is no error.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(&self) -> Result<(), Error> {
        for path in [self.conf.join(CONFIGURATION), self.bin.join(PLUGIN)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What libcni takes for a configuration.
fn is_configuration(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| ["conf", "conflist", "json"].iter().any(|known| extension == *known))
}

/// Writes a file whole and moves it into place, where it differs.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, Error> {
    let same_mode = fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o777 == mode);
    if same_mode && fs::read(path).is_ok_and(|found| found == bytes) {
        return Ok(false);
    }
    // A name that neither libcni nor a person takes for the file itself, on the same file system.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.new"));
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(failed("make folder", parent))?;
    fs::write(&fresh, bytes).map_err(failed("write", &fresh))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))
        .map_err(failed("set the mode of", &fresh))?;
    let synced = fs::File::open(&fresh).and_then(|file| file.sync_all());
    synced.and_then(|()| fs::rename(&fresh, path)).map_err(failed("write", path))?;
    Ok(true)
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { verb, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders() -> (tempfile::TempDir, Folders) {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::below(root.path());
        (root, folders)
    }

    #[test]
    fn both_files_are_written_once_and_removed_whole() {
        let (root, folders) = folders();
        let plugin = root.path().join("plugin");
        fs::write(&plugin, "program").unwrap();
        assert!(folders.install_plugin(&plugin).unwrap());
        assert!(!folders.install_plugin(&plugin).unwrap());
        assert_eq!(fs::metadata(folders.bin.join(PLUGIN)).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(folders.install_configuration().unwrap());
        assert!(!folders.install_configuration().unwrap());
        folders.remove().unwrap();
        folders.remove().unwrap();
        assert_eq!(
            fs::read_dir(&folders.bin).unwrap().count() + fs::read_dir(&folders.conf).unwrap().count(),
            0
        );
    }

    #[test]
    fn another_networks_configuration_that_comes_first_stops_ours() {
        let (_root, folders) = folders();
        fs::create_dir_all(&folders.conf).unwrap();
        fs::write(folders.conf.join("00-other.conflist"), "{}").unwrap();
        fs::write(folders.conf.join("README"), "").unwrap();
        let error = folders.install_configuration().unwrap_err();
        assert!(error.to_string().contains("00-other.conflist of another network comes before"), "{error}");
        assert!(!folders.conf.join(CONFIGURATION).exists());
    }

    #[test]
    fn one_that_comes_later_is_a_rival_but_does_no_harm() {
        let (_root, folders) = folders();
        fs::create_dir_all(&folders.conf).unwrap();
        fs::write(folders.conf.join("10-other.conf"), "{}").unwrap();
        assert!(folders.install_configuration().unwrap());
        assert_eq!(folders.rivals().unwrap(), [folders.conf.join("10-other.conf")]);
    }

    #[test]
    fn runtimes_before_cni_1_1_get_a_version_that_they_know_and_newer_ones_the_newest() {
        let value: serde_json::Value = serde_json::from_str(CONFLIST).unwrap();
        assert_eq!(value["cniVersion"], "1.0.0");
        assert_eq!(value["cniVersions"], serde_json::json!(crate::cni::config::VERSIONS));
        assert_eq!(value["plugins"][0]["type"], PLUGIN);
    }
}
