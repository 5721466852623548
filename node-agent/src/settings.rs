//! Kernel settings below `/proc/sys/net`. In the agent's container that is read-only; the node's is mounted elsewhere.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use netkeel_core::address::Addresses;

use crate::sysctl::{self, Strayed};

/// The files in the runtime folder that hold what the node's forwarding was. Like the settings, they are lost at a reboot.
pub const KEPT: &str = "ip_forward";
/// The same of IPv6.
pub const KEPT_IPV6: &str = "ip6_forward";
/// Interfaces on which the node took router advertisements as a host, one a line.
pub const KEPT_ROUTERS: &str = "accept_ra";
/// The folder beside them that holds one file for each device that did not forward.
pub const KEPT_DEVICES: &str = "not_forwarding";

const IPV4: &str = "ipv4/ip_forward";
const IPV6: &str = "ipv6/conf/all/forwarding";

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

/// Lets the node forward packets of the families of its pods, in which it has these overlay addresses, after keeping in `state`
/// what was there. Left alone where it does: writing it resets other settings.
///
/// # Errors
/// When a setting cannot be written, or an earlier value not kept.
pub fn forwarding(settings: &Path, state: &Path, overlay: &Addresses) -> Result<(), Error> {
    if overlay.ipv4.is_some() {
        turn_on(&settings.join(IPV4), &state.join(KEPT))?;
    }
    if overlay.ipv6.is_some() {
        hear_routers(settings, state)?;
        turn_on(&settings.join(IPV6), &state.join(KEPT_IPV6))?;
    }
    Ok(())
}

fn turn_on(path: &Path, kept: &Path) -> Result<(), Error> {
    let found = fs::read_to_string(path).unwrap_or_default();
    if found.trim() == "1" {
        return Ok(());
    }
    // What was kept first is the node's own; what is found later is somebody's answer to it.
    if !kept.exists() {
        keep(kept, found.trim())?;
    }
    Ok(sysctl::write(path.to_owned(), "1")?)
}

/// A node that forwards IPv6 no longer takes routers' advertisements where `accept_ra` is 1, and loses the default route that came
/// with them. Where it took them it goes on.
fn hear_routers(settings: &Path, state: &Path) -> Result<(), Error> {
    let forwards = fs::read_to_string(settings.join(IPV6)).unwrap_or_default();
    if forwards.trim() == "1" {
        return Ok(());
    }
    let interfaces = fs::read_dir(settings.join("ipv6/conf")).into_iter().flatten().flatten();
    let takes = |name: &String| {
        let value = fs::read_to_string(accept_ra(settings, name)).unwrap_or_default();
        name != "all" && value.trim() == "1"
    };
    let names = interfaces.filter_map(|entry| entry.file_name().into_string().ok());
    let hearing: Vec<String> = names.filter(takes).collect();
    let kept = state.join(KEPT_ROUTERS);
    if !kept.exists() {
        keep(&kept, &hearing.join("\n"))?;
    }
    hearing.iter().try_for_each(|name| Ok(sysctl::write(accept_ra(settings, name), "2")?))
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
    let folder = state.join(KEPT_DEVICES);
    let kept = folder.join(device);
    if !kept.exists() {
        fs::create_dir_all(&folder).map_err(|source| Error::Kept { path: folder, source })?;
        keep(&kept, "0")?;
    }
    Ok(sysctl::converge(settings, device, sysctl::UNDERLAY)?)
}

/// Gives the node's settings back what they were before [`forwarding`] and [`underlay`] changed them, if they did.
///
/// # Errors
/// When a setting cannot be written.
pub fn restore(settings: &Path, state: &Path) -> Result<(), Error> {
    for (file, setting) in [(KEPT, IPV4), (KEPT_IPV6, IPV6)] {
        if let Some(before) = kept(&state.join(file))? {
            sysctl::write(settings.join(setting), before.trim())?;
        }
    }
    let hearing = kept(&state.join(KEPT_ROUTERS))?.unwrap_or_default();
    for name in hearing.lines() {
        give_back(accept_ra(settings, name), "1")?;
    }
    let devices = state.join(KEPT_DEVICES);
    let names = match fs::read_dir(&devices) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names.map_err(|source| Error::Kept { path: devices.clone(), source })?,
    };
    for device in names {
        let name = device.map_err(|source| Error::Kept { path: devices.clone(), source })?.file_name();
        give_back(sysctl::file(settings, &name.to_string_lossy(), sysctl::UNDERLAY[0]), "0")?;
    }
    Ok(())
}

/// An interface that is gone meanwhile has nothing to be given back.
fn give_back(file: PathBuf, value: &str) -> Result<(), Error> {
    if file.exists() {
        sysctl::write(file, value)?;
    }
    Ok(())
}

fn accept_ra(settings: &Path, interface: &str) -> PathBuf {
    settings.join("ipv6/conf").join(interface).join("accept_ra")
}

fn keep(path: &Path, value: &str) -> Result<(), Error> {
    fs::write(path, value).map_err(|source| Error::Kept { path: path.to_owned(), source })
}

/// What was kept; `None` when nothing was changed.
fn kept(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(before) => Ok(Some(before)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Kept { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const FOUR: Addresses = Addresses { ipv4: Some(Ipv4Addr::LOCALHOST), ipv6: None };

    /// What forwarding is after it was wanted and given back, on a node where it was `before`.
    fn round(before: &str) -> (String, bool, String) {
        let root = tempfile::tempdir().unwrap();
        let (settings, state) = (root.path().join("net"), root.path().join("run"));
        fs::create_dir_all(settings.join("ipv4")).unwrap();
        fs::create_dir(&state).unwrap();
        fs::write(settings.join("ipv4/ip_forward"), before).unwrap();
        let read = || fs::read_to_string(settings.join("ipv4/ip_forward")).unwrap();
        forwarding(&settings, &state, &FOUR).unwrap();
        let (during, kept) = (read(), state.join(KEPT).exists());
        forwarding(&settings, &state, &FOUR).unwrap();
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
        forwarding(root.path(), root.path(), &FOUR).unwrap();
        assert_eq!(fs::read_to_string(root.path().join(KEPT)).unwrap(), "0");
    }

    #[test]
    fn a_node_that_forwards_ipv6_still_takes_its_default_route_from_a_router() {
        let root = tempfile::tempdir().unwrap();
        let (settings, state) = (root.path().join("net"), root.path().join("run"));
        fs::create_dir(&state).unwrap();
        for (interface, value) in [("all", "1"), ("eth0", "1"), ("eth1", "0"), ("eth2", "2")] {
            let folder = settings.join("ipv6/conf").join(interface);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("accept_ra"), value).unwrap();
        }
        fs::write(settings.join(IPV6), "0").unwrap();
        let read = || {
            let accept = ["all", "eth0", "eth1", "eth2"]
                .map(|name| fs::read_to_string(accept_ra(&settings, name)).unwrap());
            (fs::read_to_string(settings.join(IPV6)).unwrap(), accept.concat())
        };
        let six = Addresses { ipv4: None, ipv6: Some(Ipv6Addr::LOCALHOST) };
        for _ in 0..2 {
            forwarding(&settings, &state, &six).unwrap();
            assert_eq!(read(), ("1".into(), "1202".into()));
        }
        restore(&settings, &state).unwrap();
        assert_eq!(read(), ("0".into(), "1102".into()));
    }
}
