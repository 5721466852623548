//! Kernel settings below `/proc/sys/net`. In the agent's container that is read-only; the node's is mounted elsewhere.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A kernel setting could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("set {path} to {value}: mount the host's /proc/sys/net writable at /host/proc/sys/net")]
pub struct Error {
    path: PathBuf,
    value: &'static str,
    source: io::Error,
}

/// The folder of the settings: the host's where it is mounted, else the process's own.
#[must_use]
pub fn folder(host: &Path) -> PathBuf {
    let mounted = host.join("proc/sys/net");
    if mounted.is_dir() { mounted } else { PathBuf::from("/proc/sys/net") }
}

/// Lets the node forward IPv4 packets. Left alone where it does: writing it resets other settings.
///
/// # Errors
/// When the setting cannot be written.
pub fn forwarding(settings: &Path) -> Result<(), Error> {
    let (path, value) = (settings.join("ipv4/ip_forward"), "1");
    if fs::read_to_string(&path).is_ok_and(|found| found.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| Error { path, value, source })
}
