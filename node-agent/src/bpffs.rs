//! Mounts the BPF file system where a node lacks it. Needs `CAP_SYS_ADMIN`, which only the init container has.

use std::path::{Path, PathBuf};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// The BPF file system could not be mounted.
#[derive(Debug, thiserror::Error)]
#[error(
    "mount the BPF file system at {path}: the init container must be privileged, and its mount Bidirectional"
)]
pub struct Error {
    path: PathBuf,
    source: nix::Error,
}

/// Whether the folder is a BPF file system.
#[must_use]
pub fn is_mounted(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// Mounts it, unless it is there. Returns whether it did.
///
/// # Errors
/// When the kernel refuses.
pub fn mount_missing(path: &Path) -> Result<bool, Error> {
    if is_mounted(path) {
        return Ok(false);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mounted = mount(Some("bpf"), path, Some("bpf"), flags, Some("mode=0700"));
    mounted.map(|()| true).map_err(|source| Error { path: path.to_owned(), source })
}
