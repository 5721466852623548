//! What makes the runtime call Netkeel: the plugin in the CNI folder, and the configuration, written last. Both atomically, and
//! a plugin only when it has shown that it runs.

mod trial;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

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
      "type": "netkeel-cni",
      "capabilities": {"portMappings": true, "bandwidth": true}
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
    /// The plugin does not work on this node; what was there before stays.
    #[error("the CNI plugin does not run on this node and is not installed: {why}")]
    Plugin {
        /// What it did instead of telling its versions.
        why: String,
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

    /// Copies the plugin, where it differs and when it runs. Returns whether it did.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the copy does not tell its versions: it is removed then.
    pub fn install_plugin(&self, plugin: &Path) -> Result<bool, Error> {
        let bytes = fs::read(plugin).map_err(failed("read", plugin))?;
        replace(&self.bin.join(PLUGIN), &bytes, 0o755, |fresh| {
            trial::run(fresh).map_err(|why| Error::Plugin { why })
        })
    }

    /// Writes the configuration, where it differs. Returns whether it did. Plugins that others have chained to ours stay.
    ///
    /// # Errors
    /// When another network's configuration comes first (ours is not written then), or the file cannot be written.
    pub fn install_configuration(&self) -> Result<bool, Error> {
        if let Some(first) =
            self.rivals()?.into_iter().find(|path| path.file_name() < Some(CONFIGURATION.as_ref()))
        {
            return Err(Error::Rival { path: first });
        }
        let path = self.conf.join(CONFIGURATION);
        let found = fs::read(&path).unwrap_or_default();
        replace(&path, &configuration(&found), 0o644, |_| Ok(()))
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

    /// Removes the configuration, then the plugin, and what a start that died has left of them; what is not there is no error.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(&self) -> Result<(), Error> {
        for path in [self.conf.join(CONFIGURATION), self.bin.join(PLUGIN)] {
            for path in [fresh(&path), path] {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed("remove", &path)(error));
                    }
                    _ => {}
                }
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

/// Writes a file whole and moves it into place, where it differs and `check` finds nothing wrong with it.
fn replace(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    check: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<bool, Error> {
    let same_mode = fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o777 == mode);
    if same_mode && fs::read(path).is_ok_and(|found| found == bytes) {
        return Ok(false);
    }
    let fresh = fresh(path);
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(failed("make folder", parent))?;
    let written = write_whole(&fresh, bytes, mode)
        .map_err(failed("write", path))
        .and_then(|()| check(&fresh))
        .and_then(|()| fs::rename(&fresh, path).map_err(failed("write", path)));
    if written.is_err() {
        // Half a file, on a full disk for example; that it cannot be removed either changes nothing.
        drop(fs::remove_file(&fresh));
    }
    written.map(|()| true)
}

fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    fs::write(path, bytes)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    fs::File::open(path)?.sync_all()
}

/// Where a file is written before it takes its place: on the same file system, under a name that neither libcni nor a
/// person takes for the file itself.
fn fresh(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// The configuration, with the plugins that others (service meshes, for example) have chained to ours in what was `found`.
fn configuration(found: &[u8]) -> Vec<u8> {
    let ours: Value = serde_json::from_str(CONFLIST).expect("a test reads it");
    let is_ours = |plugin: &Value| plugin["type"] == PLUGIN;
    let Ok(found_value) = serde_json::from_slice::<Value>(found) else { return CONFLIST.into() };
    let chain = found_value["plugins"].as_array().map(Vec::as_slice).unwrap_or_default();
    if chain.len() < 2 || chain.iter().filter(|plugin| is_ours(plugin)).count() != 1 {
        return CONFLIST.into();
    }
    let mut wanted = ours.clone();
    let replaced = chain.iter().map(|plugin| if is_ours(plugin) { &ours["plugins"][0] } else { plugin });
    wanted["plugins"] = replaced.cloned().collect();
    // Equal but for its layout: whoever chained a plugin laid it out.
    if wanted == found_value { found.to_vec() } else { format!("{wanted:#}\n").into_bytes() }
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { verb, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a plugin says of itself, without a plugin.
    const PROGRAM: &str = "#!/bin/sh\nprintf '{\"supportedVersions\":[\"0.4.0\",\"1.0.0\",\"1.1.0\"]}'\n";

    fn folders() -> (tempfile::TempDir, Folders) {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::below(root.path());
        (root, folders)
    }

    #[test]
    fn both_files_are_written_once_and_removed_whole() {
        let (root, folders) = folders();
        let plugin = root.path().join("plugin");
        fs::write(&plugin, PROGRAM).unwrap();
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
    fn a_plugin_that_another_program_chained_to_ours_stays_and_our_part_is_kept_right() {
        let (_root, folders) = folders();
        folders.install_configuration().unwrap();
        let path = folders.conf.join(CONFIGURATION);
        let read = || serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap();
        let mut chained = read();
        let mesh = serde_json::json!({"type": "istio-cni", "kubernetes": {"exclude_namespaces": ["a"]}});
        chained["plugins"].as_array_mut().unwrap().push(mesh.clone());
        fs::write(&path, chained.to_string()).unwrap();
        assert!(!folders.install_configuration().unwrap(), "it is left alone, layout and all");

        let whole = chained.clone();
        chained["cniVersion"] = "0.4.0".into();
        chained["plugins"][0] = serde_json::json!({"type": PLUGIN, "agentSocket": "/tmp/x"});
        fs::write(&path, chained.to_string()).unwrap();
        assert!(folders.install_configuration().unwrap());
        assert_eq!(read(), whole);
    }

    #[test]
    fn a_configuration_that_is_no_chain_with_ours_is_written_anew() {
        for bad in [
            "",
            "{",
            "[]",
            r#"{"plugins":[{"type":"netkeel-cni","x":1}]}"#,
            r#"{"plugins":[{"type":"a"},{"type":"b"}]}"#,
            r#"{"plugins":[{"type":"netkeel-cni"},{"type":"netkeel-cni"}]}"#,
            r#"{"plugins":"netkeel-cni"}"#,
        ] {
            assert_eq!(configuration(bad.as_bytes()), CONFLIST.as_bytes(), "{bad}");
        }
    }

    #[test]
    fn a_reader_sees_a_whole_configuration_or_none_while_it_is_written_again_and_again() {
        let (_root, folders) = folders();
        folders.install_configuration().unwrap();
        let path = folders.conf.join(CONFIGURATION);
        let longer = CONFLIST.replace("\"netkeel\"", &format!("\"{}\"", "n".repeat(9000)));
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                for _ in 0..200 {
                    replace(&path, longer.as_bytes(), 0o644, |_| Ok(())).unwrap();
                    replace(&path, CONFLIST.as_bytes(), 0o644, |_| Ok(())).unwrap();
                }
            });
            while !writing.is_finished() {
                let seen = fs::read_to_string(&path).unwrap();
                assert!(seen == CONFLIST || seen == longer, "{} bytes", seen.len());
                assert_eq!(
                    folders.rivals().unwrap(),
                    Vec::<PathBuf>::new(),
                    "nor is the new one taken for another's"
                );
            }
        });
    }

    #[test]
    fn a_damaged_plugin_is_replaced_and_nothing_of_a_start_that_died_or_failed_is_left() {
        let (root, folders) = folders();
        let plugin = root.path().join("plugin");
        fs::write(&plugin, PROGRAM).unwrap();
        folders.install_plugin(&plugin).unwrap();
        fs::write(folders.bin.join(PLUGIN), &PROGRAM[..20]).unwrap();
        assert!(folders.install_plugin(&plugin).unwrap(), "it was cut off");
        fs::set_permissions(folders.bin.join(PLUGIN), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(folders.install_plugin(&plugin).unwrap(), "it could not be run");
        for left in [folders.bin.join(".netkeel-cni.new"), folders.conf.join(".05-netkeel.conflist.new")] {
            fs::create_dir_all(left.parent().unwrap()).unwrap();
            fs::write(left, "pro").unwrap();
        }
        folders.remove().unwrap();
        for folder in [&folders.bin, &folders.conf] {
            assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
        }
        // A folder has the file's place: the new file is whole, and cannot take it.
        fs::create_dir_all(folders.bin.join(PLUGIN).join("x")).unwrap();
        folders.install_plugin(&plugin).unwrap_err();
        assert_eq!(fs::read_dir(&folders.bin).unwrap().count(), 1, "only what was there");
    }

    #[test]
    fn a_plugin_that_does_not_run_is_not_installed_and_the_one_before_stays() {
        let (root, folders) = folders();
        let plugin = root.path().join("plugin");
        fs::write(&plugin, PROGRAM).unwrap();
        folders.install_plugin(&plugin).unwrap();
        for (bad, said) in [
            ("", ""),
            ("\x7fELF", ""),
            ("#!/bin/sh\nexit 3\n", "exit status: 3"),
            ("#!/bin/sh\necho hello\n", "no JSON"),
            ("#!/bin/sh\nprintf '{\"supportedVersions\":[\"0.3.1\"]}'\n", "speaks CNI [\"0.3.1\"]"),
            ("#!/bin/nonesuch\n", "No such file"),
        ] {
            fs::write(&plugin, bad).unwrap();
            let error = folders.install_plugin(&plugin).unwrap_err().to_string();
            assert!(
                error.contains("the CNI plugin does not run on this node") && error.contains(said),
                "{error}"
            );
            assert_eq!(fs::read_to_string(folders.bin.join(PLUGIN)).unwrap(), PROGRAM);
            assert_eq!(fs::read_dir(&folders.bin).unwrap().count(), 1, "nothing of the bad one");
        }
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
