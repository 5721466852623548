//! Kernel settings below `/proc/sys/net`. In the agent's container that is read-only; the node's is mounted elsewhere.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The file in the runtime folder that holds what the node's forwarding was. Like the setting, it is lost at a reboot.
pub const KEPT: &str = "ip_forward";

/// A kernel setting could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting itself.
    #[error("set {path} to {value}: mount the host's /proc/sys/net writable at /host/proc/sys/net")]
    Setting {
        /// The setting's file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What it was before.
    #[error("keep in {path} what the node's forwarding was")]
    Kept {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The folder of the settings: the host's where it is mounted, else the process's own.
#[must_use]
pub fn folder(host: &Path) -> PathBuf {
    let mounted = host.join("proc/sys/net");
    if mounted.is_dir() { mounted } else { PathBuf::from("/proc/sys/net") }
}

/// Lets the node forward IPv4 packets, after keeping in `state` what was there. Left alone where it does: writing it
/// resets other settings.
///
/// # Errors
/// When the setting cannot be written, or the earlier value not kept.
pub fn forwarding(settings: &Path, state: &Path) -> Result<(), Error> {
    let path = forward(settings);
    let found = fs::read_to_string(&path).unwrap_or_default();
    if found.trim() == "1" {
        return Ok(());
    }
    let kept = state.join(KEPT);
    // What was kept first is the node's own; what is found later is somebody's answer to it.
    if !kept.exists() {
        fs::write(&kept, found.trim()).map_err(|source| Error::Kept { path: kept, source })?;
    }
    write(path, "1")
}

/// Gives the node's forwarding back what it was before [`forwarding`] changed it, if that did.
///
/// # Errors
/// When the setting cannot be written.
pub fn restore(settings: &Path, state: &Path) -> Result<(), Error> {
    let path = state.join(KEPT);
    match fs::read_to_string(&path) {
        Ok(before) => write(forward(settings), before.trim()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Kept { path, source }),
    }
}

fn forward(settings: &Path) -> PathBuf {
    settings.join("ipv4/ip_forward")
}

fn write(path: PathBuf, value: &str) -> Result<(), Error> {
    fs::write(&path, value).map_err(|source| Error::Setting { path, value: value.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What forwarding is after it was wanted and given back, on a node where it was `before`.
    fn round(before: &str) -> (String, bool, String) {
        let root = tempfile::tempdir().unwrap();
        let (settings, state) = (root.path().join("net"), root.path().join("run"));
        fs::create_dir_all(settings.join("ipv4")).unwrap();
        fs::create_dir(&state).unwrap();
        fs::write(settings.join("ipv4/ip_forward"), before).unwrap();
        let read = || fs::read_to_string(settings.join("ipv4/ip_forward")).unwrap();
        forwarding(&settings, &state).unwrap();
        let (during, kept) = (read(), state.join(KEPT).exists());
        forwarding(&settings, &state).unwrap();
        restore(&settings, &state).unwrap();
        (during.trim().to_owned(), kept, read().trim().to_owned())
    }

    #[test]
    fn forwarding_is_given_back_as_it_was_and_left_alone_where_it_was_on() {
        assert_eq!(round("0\n"), ("1".into(), true, "0".into()));
        assert_eq!(round("1\n"), ("1".into(), false, "1".into()));
    }

    #[test]
    fn what_was_found_first_is_given_back_whatever_came_later() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("ipv4")).unwrap();
        fs::write(root.path().join(KEPT), "0").unwrap();
        fs::write(root.path().join("ipv4/ip_forward"), "2").unwrap();
        forwarding(root.path(), root.path()).unwrap();
        assert_eq!(fs::read_to_string(root.path().join(KEPT)).unwrap(), "0");
    }
}
