//! Kernel settings below `/proc/sys/net`. In the agent's container that is read-only; the node's is mounted elsewhere.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::sysctl::{self, Strayed};

/// The file in the runtime folder that holds what the node's forwarding was. Like the setting, it is lost at a reboot.
pub const KEPT: &str = "ip_forward";
/// The folder beside it that holds one file for each device that did not forward.
pub const KEPT_DEVICES: &str = "not_forwarding";

/// A kernel setting could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting itself.
    #[error(transparent)]
    Setting(#[from] sysctl::Error),
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
    Ok(sysctl::write(path, "1")?)
}

/// Lets the device with the node's address forward IPv4 packets, after keeping in `state` what was there: somebody may switch
/// that off for the device alone.
///
/// # Errors
/// When the setting cannot be written, or the earlier value not kept.
pub fn underlay(settings: &Path, state: &Path, device: &str) -> Result<Vec<Strayed>, Error> {
    if !sysctl::strays(settings, device, sysctl::UNDERLAY) {
        return Ok(Vec::new());
    }
    let kept = state.join(KEPT_DEVICES).join(device);
    if !kept.exists() {
        let keep = fs::create_dir_all(state.join(KEPT_DEVICES)).and_then(|()| fs::write(&kept, "0"));
        keep.map_err(|source| Error::Kept { path: kept, source })?;
    }
    Ok(sysctl::converge(settings, device, sysctl::UNDERLAY)?)
}

/// Gives the node's forwarding back what it was before [`forwarding`] and [`underlay`] changed it, if they did.
///
/// # Errors
/// When a setting cannot be written.
pub fn restore(settings: &Path, state: &Path) -> Result<(), Error> {
    let path = state.join(KEPT);
    match fs::read_to_string(&path) {
        Ok(before) => sysctl::write(forward(settings), before.trim())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Kept { path, source }),
    }
    let devices = state.join(KEPT_DEVICES);
    let kept = match fs::read_dir(&devices) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        kept => kept.map_err(|source| Error::Kept { path: devices.clone(), source })?,
    };
    for device in kept {
        let name = device.map_err(|source| Error::Kept { path: devices.clone(), source })?.file_name();
        let file = sysctl::file(settings, &name.to_string_lossy(), sysctl::UNDERLAY[0]);
        // A device that is gone has nothing to give back.
        if file.exists() {
            sysctl::write(file, "0")?;
        }
    }
    Ok(())
}

fn forward(settings: &Path) -> PathBuf {
    settings.join("ipv4/ip_forward")
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
    fn a_device_that_did_not_forward_is_given_back_and_one_that_is_gone_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let (settings, state) = (root.path().join("net"), root.path().join("run"));
        fs::create_dir(&state).unwrap();
        let file = |device: &str| sysctl::file(&settings, device, sysctl::UNDERLAY[0]);
        for (device, value) in [("eth0", "0\n"), ("eth1", "0\n"), ("eth2", "1\n")] {
            fs::create_dir_all(file(device).parent().unwrap()).unwrap();
            fs::write(file(device), value).unwrap();
            underlay(&settings, &state, device).unwrap();
            assert_eq!(fs::read_to_string(file(device)).unwrap().trim(), "1");
        }
        fs::remove_dir_all(file("eth1").parent().unwrap()).unwrap();
        restore(&settings, &state).unwrap();
        assert_eq!(fs::read_to_string(file("eth0")).unwrap(), "0");
        assert_eq!(fs::read_to_string(file("eth2")).unwrap(), "1\n", "it did by itself");
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
