//! The files below `<bpffs>/netkeel`: where they are, what they are called, and how they go.
//! A map is `maps/<NAME>-v<LAYOUT>`, a link `links/<program>[-<device>]`.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use netkeel_dataplane_common::LAYOUT;

use crate::sys;

/// Why pins could not be listed or removed.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// A folder could not be read or made.
    #[error("use folder {path}: is the BPF file system mounted there?")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A pinned link could not be read.
    #[error("read pin {path}")]
    Read {
        /// The pin.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A pin could not be removed.
    #[error("remove pin {path}")]
    Remove {
        /// The pin.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A link that is pinned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PinnedLink {
    /// The pin's name: the program, and the device if there is one.
    pub name: String,
    /// The kernel's id of the link; stays the same when the program is replaced.
    pub link: u32,
    /// The kernel's id of the program in it.
    pub program: u32,
    /// Whether its device or cgroup still exists.
    pub attached: bool,
}

/// The folder of our pins on one BPF file system.
#[derive(Clone, Debug)]
pub(crate) struct Pins(PathBuf);

impl Pins {
    pub(crate) fn at(bpffs: &Path) -> Self {
        Self(bpffs.join("netkeel"))
    }

    /// Makes the folders.
    pub(crate) fn create(&self) -> Result<(), PinError> {
        for path in [self.maps(), self.links()] {
            fs::create_dir_all(&path).map_err(|source| PinError::Folder { path, source })?;
        }
        Ok(())
    }

    fn maps(&self) -> PathBuf {
        self.0.join("maps")
    }

    fn links(&self) -> PathBuf {
        self.0.join("links")
    }

    /// The pin of a map of the current layout.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(format!("{name}-v{LAYOUT}"))
    }

    /// The pin of a program's link.
    pub(crate) fn link(&self, program: &str, device: Option<&str>) -> PathBuf {
        self.links().join(link_name(program, device))
    }

    /// The program and the device of every pinned link of a device.
    pub(crate) fn device_links(&self) -> Result<Vec<(String, String)>, PinError> {
        let names = list(&self.links())?;
        Ok(names
            .iter()
            .filter_map(|name| name.split_once('-'))
            .map(|(program, device)| (program.to_owned(), swap(device, [('_', '.'), (':', '_')])))
            .collect())
    }

    /// Removes the maps of other layouts.
    pub(crate) fn remove_other_layouts(&self) -> Result<(), PinError> {
        let current = format!("-v{LAYOUT}");
        let folder = self.maps();
        list(&folder)?
            .iter()
            .filter(|name| !name.ends_with(&current))
            .try_for_each(|name| unpin(&folder.join(name)))
    }
}

/// The name of a link's pin. A dot in a device's name becomes `_`: the BPF file system refuses dots
/// (`bpf_lookup`, "reserved for future extensions"). A `_` becomes a colon, which no device's name has (`dev_valid_name`).
fn link_name(program: &str, device: Option<&str>) -> String {
    let name = |device| format!("{program}-{}", swap(device, [('.', '_'), ('_', ':')]));
    device.map_or_else(|| program.to_owned(), name)
}

/// Puts other characters in the place of some, each looked at once.
fn swap(text: &str, characters: [(char, char); 2]) -> String {
    let other = |one| characters.iter().find(|(from, _)| *from == one).map_or(one, |(_, to)| *to);
    text.chars().map(other).collect()
}

/// Removes a pin; one that is not there is no error.
pub(crate) fn unpin(path: &Path) -> Result<(), PinError> {
    gone(fs::remove_file(path)).map_err(|source| PinError::Remove { path: path.to_owned(), source })
}

/// Removes everything that was pinned on this BPF file system, which detaches all programs: the links
/// first, then the maps, then the folders. Goes on after an error and returns the first.
///
/// # Errors
/// The first pin that could not be removed.
pub fn remove(bpffs: &Path) -> Result<(), PinError> {
    let pins = Pins::at(bpffs);
    let mut result = Ok(());
    for folder in [pins.links(), pins.maps(), pins.0.clone()] {
        for name in list(&folder)? {
            result = result.and(unpin(&folder.join(name)));
        }
        let removed =
            gone(fs::remove_dir(&folder)).map_err(|source| PinError::Remove { path: folder, source });
        result = result.and(removed);
    }
    result
}

/// Every link that is pinned on this BPF file system, whoever pinned it.
///
/// # Errors
/// The first pin that cannot be read.
pub fn pinned_links(bpffs: &Path) -> Result<Vec<PinnedLink>, PinError> {
    let folder = Pins::at(bpffs).links();
    let read = |name: String| {
        let path = folder.join(&name);
        let info = sys::object_get(&path).and_then(|link| sys::link_info(link.as_fd()));
        let info = info.map_err(|source| PinError::Read { path, source })?;
        Ok(PinnedLink { name, link: info.id, program: info.program, attached: info.target != 0 })
    };
    list(&folder)?.into_iter().map(read).collect()
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The names of the files in a folder; none when it does not exist.
fn list(path: &Path) -> Result<Vec<String>, PinError> {
    let error = |source| PinError::Folder { path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Err(failure) if failure.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(error)?,
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    names.collect::<Result<_, _>>().map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_named_after_program_device_and_layout() {
        let pins = Pins::at("/sys/fs/bpf".as_ref());
        let map = format!("/sys/fs/bpf/netkeel/maps/SERVICES-v{LAYOUT}");
        assert_eq!(pins.map("SERVICES"), Path::new(&map));
        assert_eq!(pins.link("connect4", None), Path::new("/sys/fs/bpf/netkeel/links/connect4"));
        let pod = pins.link("from_pod", Some("nk0123456789ab"));
        assert_eq!(pod, Path::new("/sys/fs/bpf/netkeel/links/from_pod-nk0123456789ab"));
    }

    #[test]
    fn a_dot_in_a_device_name_is_no_dot_in_a_pin() {
        assert_eq!(link_name("to_overlay", Some("netkeel.vxlan")), "to_overlay-netkeel_vxlan");
    }

    #[test]
    fn every_device_has_a_pin_of_its_own_which_says_what_it_is_called() {
        let folder = std::env::temp_dir().join(format!("netkeel-pin-names-{}", std::process::id()));
        let pins = Pins::at(&folder);
        pins.create().unwrap();
        let mut devices = ["bond0-1", "bond0.100", "bond0._", "bond0_.", "bond0_100"];
        for device in devices {
            fs::write(pins.link("from_underlay", Some(device)), "").unwrap();
        }
        let mut found = pins.device_links().unwrap();
        found.sort();
        devices.sort_unstable();
        assert_eq!(found, devices.map(|device| ("from_underlay".to_owned(), device.to_owned())));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn removing_takes_what_is_there_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("netkeel-pins-{}", std::process::id()));
        fs::create_dir_all(folder.join("netkeel/maps")).unwrap();
        fs::create_dir_all(folder.join("other")).unwrap();
        fs::write(folder.join("netkeel/maps/CONFIG-v1"), "").unwrap();
        remove(&folder).unwrap();
        assert!(!folder.join("netkeel").exists() && folder.join("other").exists());
        remove(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
