//! Leaves the node as it was before Netkeel: whatever can be removed is removed, and all that failed is reported.

use std::{
    error::Error as StdError,
    fs, io,
    path::{Path, PathBuf},
};

use netkeel_dataplane_loader as loader;
pub use netkeel_telemetry::chain;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};

use crate::{
    host_port,
    install::Folders,
    link::{self, name::is_host_side, netlink::Rtnetlink, veth},
    masquerade, overlay, route, settings,
};

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Places {
    /// The runtime's folders.
    pub folders: Folders,
    /// The BPF file system.
    pub bpffs: PathBuf,
    /// The kernel's network settings.
    pub settings: PathBuf,
    /// Where what they were is kept: `/run/netkeel`.
    pub kept: PathBuf,
    /// Folders whose contents are ours: `/run/netkeel`, `/var/lib/netkeel`.
    pub state: Vec<PathBuf>,
}

/// Something stayed behind.
#[derive(Debug, thiserror::Error)]
#[error("{} of Netkeel's parts could not be removed: {}", .0.len(), .0.join("; "))]
pub struct Error(Vec<String>);

/// Removes everything that the agent makes on a node. May be repeated.
///
/// # Errors
/// All parts that could not be removed.
pub fn clean(places: &Places) -> Result<(), Error> {
    let mut failed = Vec::new();
    // The configuration goes first, so that the runtime starts no pod on a network that is going away.
    note(&mut failed, places.folders.remove());
    match Rtnetlink::open() {
        Ok(mut net) => {
            note(&mut failed, remove_pod_links(&mut net));
            note(&mut failed, overlay::remove(&mut net));
            note(&mut failed, route::remove(&mut net));
        }
        Err(error) => failed.push(chain(&error)),
    }
    note(&mut failed, masquerade::remove());
    note(&mut failed, host_port::table::remove());
    note(&mut failed, loader::remove(&places.bpffs));
    let restored = settings::restore(&places.settings, &places.kept);
    // Without it the next try would not know what the settings were.
    let needed = restored.is_err().then_some(&places.kept);
    note(&mut failed, restored);
    for folder in places.state.iter().filter(|folder| Some(*folder) != needed) {
        let emptied = empty(folder);
        note(&mut failed, emptied);
    }
    if failed.is_empty() { Ok(()) } else { Err(Error(failed)) }
}

fn remove_pod_links(net: &mut Rtnetlink) -> Result<(), link::Error> {
    let links = net.dump("list links", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let ours = links.into_iter().filter_map(|message| {
        let RouteNetlinkMessage::NewLink(message) = message else { return None };
        let named = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::IfName(name) if is_host_side(name));
        message.attributes.iter().any(named).then_some(message.header.index)
    });
    ours.collect::<Vec<_>>().into_iter().try_for_each(|index| veth::delete(net, index))
}

/// Empties a folder that may be a mount point.
fn empty(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let removed =
            if entry.file_type()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed
            .map_err(|error| io::Error::new(error.kind(), format!("remove {}: {error}", path.display())))?;
    }
    Ok(())
}

fn note<E: StdError>(failed: &mut Vec<String>, outcome: Result<(), E>) {
    if let Err(error) = outcome {
        failed.push(chain(&error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_emptied_and_kept_and_a_missing_one_is_fine() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("ipam/deep")).unwrap();
        fs::write(root.path().join("ipam/10.0.0.1"), "x").unwrap();
        fs::write(root.path().join("agent.sock"), "").unwrap();
        empty(root.path()).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        empty(&root.path().join("nonesuch")).unwrap();
    }
}
