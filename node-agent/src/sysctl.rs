//! Settings of single devices below `/proc/sys/net`: which ones Netkeel needs, and who else writes them. Only devices of ours
//! and the one with the node's address are touched, never `all` or `default`, and nothing is written to files that survive a boot.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A setting that was changed back so often, in [`WHILE`], is fought over.
const OFTEN: usize = 3;
/// How long a change by somebody else is remembered.
const WHILE: Duration = Duration::from_mins(2);

/// A setting of a device, with the value that it must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// Name of its file.
    pub key: &'static str,
    /// What must be in it.
    pub value: &'static str,
}

const fn ipv4(key: &'static str, value: &'static str) -> Setting {
    Setting { family: "ipv4", key, value }
}

const fn ipv6(key: &'static str, value: &'static str) -> Setting {
    Setting { family: "ipv6", key, value }
}

/// The host side of a pod's link: it believes nothing that a pod announces, answers for nobody else, and forwards whatever the
/// node's general setting is. A stricter `all` makes nothing of this weaker.
pub const POD: &[Setting] = &[
    ipv4("forwarding", "1"),
    ipv4("rp_filter", "1"),
    ipv4("accept_redirects", "0"),
    ipv4("send_redirects", "0"),
    ipv4("proxy_arp", "0"),
    ipv6("addr_gen_mode", "1"),
    ipv6("accept_ra", "0"),
    ipv6("accept_redirects", "0"),
    ipv6("forwarding", "1"),
];

/// The overlay's device: nothing is announced over it, and answers may come back another way than the kernel would send
/// (`rp_filter` 2 is the loosest value that wins over any value of `all`).
pub const OVERLAY: &[Setting] = &[
    ipv4("rp_filter", "2"),
    ipv4("forwarding", "1"),
    ipv4("accept_redirects", "0"),
    ipv4("send_redirects", "0"),
    ipv6("addr_gen_mode", "1"),
    ipv6("accept_ra", "0"),
];

/// The device with the node's address: answers from the outside come back to pods.
pub const UNDERLAY: &[Setting] = &[ipv4("forwarding", "1")];

/// A setting could not be written.
#[derive(Debug, thiserror::Error)]
#[error("set {path} to {value}: mount the host's /proc/sys/net writable at /host/proc/sys/net")]
pub struct Error {
    /// The setting's file.
    pub path: PathBuf,
    /// What was to be written.
    pub value: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// A setting that was not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strayed {
    /// The setting.
    pub setting: Setting,
    /// Name of the device.
    pub device: String,
    /// What was found.
    pub found: String,
}

/// The file of a device's setting below `root`, which is `/proc/sys/net` or where it is mounted.
#[must_use]
pub fn file(root: &Path, device: &str, setting: Setting) -> PathBuf {
    root.join(setting.family).join("conf").join(device).join(setting.key)
}

/// Writes what is not as it must be, and tells what that was.
///
/// # Errors
/// The first setting that cannot be written. One of IPv6 on a kernel without it is no error.
pub fn converge(root: &Path, device: &str, settings: &[Setting]) -> Result<Vec<Strayed>, Error> {
    let mut strayed = Vec::new();
    for &setting in settings {
        let path = file(root, device, setting);
        let found = fs::read_to_string(&path).map(|found| found.trim().to_owned());
        if found.as_ref().is_ok_and(|found| found == setting.value) {
            continue;
        }
        match write(path, setting.value) {
            Err(error) if setting.family == "ipv6" && error.source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(()) => {
                strayed.extend(found.ok().map(|found| Strayed { setting, device: device.to_owned(), found }));
            }
        }
    }
    Ok(strayed)
}

/// Whether a setting is not as it must be. What cannot be read is not looked at.
#[must_use]
pub fn strays(root: &Path, device: &str, settings: &[Setting]) -> bool {
    let is_other = |setting: &Setting| {
        fs::read_to_string(file(root, device, *setting)).is_ok_and(|found| found.trim() != setting.value)
    };
    settings.iter().any(is_other)
}

/// Writes one setting.
///
/// # Errors
/// When its file cannot be written.
pub fn write(path: PathBuf, value: &str) -> Result<(), Error> {
    fs::write(&path, value).map_err(|source| Error { path, value: value.to_owned(), source })
}

/// Settings that somebody else changes. Repairing them goes on; that they are fought over should be known.
#[derive(Debug, Default)]
pub struct Fights(Mutex<BTreeMap<(String, &'static str, &'static str), Fight>>);

#[derive(Debug)]
struct Fight {
    needed: &'static str,
    found: String,
    times: Vec<Instant>,
}

impl Fights {
    /// These were changed back now. Those of devices that are just made do not belong here.
    pub fn note(&self, strayed: Vec<Strayed>, now: Instant) {
        let mut fights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Strayed { setting, device, found } in strayed {
            tracing::warn!(
                device,
                key = setting.key,
                found,
                needed = setting.value,
                "a kernel setting is changed back"
            );
            let fight = fights.entry((device, setting.family, setting.key)).or_insert_with(|| Fight {
                needed: setting.value,
                found: String::new(),
                times: Vec::new(),
            });
            fight.found = found;
            fight.times.push(now);
        }
        fights.retain(|_, fight| {
            fight.forget(now);
            !fight.times.is_empty()
        });
    }

    /// What should be known now, one sentence for each setting, whatever the number of devices.
    pub fn notes(&self, now: Instant) -> Vec<String> {
        let mut fights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut notes = BTreeMap::new();
        for ((device, family, key), fight) in fights.iter_mut() {
            fight.forget(now);
            if fight.times.len() >= OFTEN {
                notes.entry((*family, *key)).or_insert_with(|| {
                    format!(
                        "net.{family}.conf.{device}.{key} is set to {} by another program again and again, Netkeel needs {}: \
                         leave interfaces nk* and netkeel.* out of /etc/sysctl.d, udev rules, and tuning daemons",
                        fight.found, fight.needed
                    )
                });
            }
        }
        notes.into_values().collect()
    }
}

impl Fight {
    fn forget(&mut self, now: Instant) {
        self.times.retain(|time| now.saturating_duration_since(*time) < WHILE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel's settings of one device, all "9"; without IPv6 there are none of that.
    fn settings(families: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for setting in POD.iter().chain(OVERLAY).filter(|setting| families.contains(&setting.family)) {
            let file = file(root.path(), "dev", *setting);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "9\n").unwrap();
        }
        root
    }

    #[test]
    fn what_strayed_alone_is_written_and_told() {
        let root = settings(&["ipv4", "ipv6"]);
        assert_eq!(converge(root.path(), "dev", POD).unwrap().len(), POD.len());
        assert_eq!(converge(root.path(), "dev", POD).unwrap(), []);
        let path = file(root.path(), "dev", POD[1]);
        fs::write(&path, "0\n").unwrap();
        let strayed = Strayed { setting: POD[1], device: "dev".to_owned(), found: "0".to_owned() };
        assert_eq!(converge(root.path(), "dev", POD).unwrap(), [strayed]);
        assert_eq!(fs::read_to_string(path).unwrap(), "1");
    }

    #[test]
    fn a_kernel_without_ipv6_lacks_nothing_and_a_folder_that_is_not_there_is_named_with_what_to_do() {
        let root = settings(&["ipv4"]);
        converge(root.path(), "dev", POD).unwrap();
        let error = converge(root.path(), "other", POD).unwrap_err().to_string();
        assert!(error.contains("ipv4/conf/other/forwarding to 1: mount the host's /proc/sys/net"), "{error}");
    }

    #[test]
    fn a_change_now_and_then_is_no_fight_and_one_that_comes_again_and_again_is_told_until_it_is_over() {
        let (fights, start) = (Fights::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let stray = |device: &str| {
            vec![Strayed { setting: OVERLAY[0], device: device.to_owned(), found: "1".to_owned() }]
        };
        for (seconds, fought) in [(0, false), (10, false), (20, true), (139, false), (150, false)] {
            fights.note(stray("netkeel.vxlan"), at(seconds));
            assert_eq!(!fights.notes(at(seconds)).is_empty(), fought, "after {seconds} s");
        }
        fights.note(stray("netkeel.vxlan"), at(151));
        let notes = fights.notes(at(151));
        assert!(
            notes[0].starts_with("net.ipv4.conf.netkeel.vxlan.rp_filter is set to 1 by another program"),
            "{notes:?}"
        );
        assert!(notes[0].contains("needs 2") && notes[0].contains("/etc/sysctl.d"), "{notes:?}");
        assert!(fights.notes(at(300)).is_empty());
    }

    #[test]
    fn one_change_of_many_devices_is_no_fight_and_a_fight_over_many_is_one_sentence() {
        let (fights, now) = (Fights::default(), Instant::now());
        let all = || {
            (0..250).map(|n| Strayed {
                setting: POD[1],
                device: format!("nk{n:012x}"),
                found: "2".to_owned(),
            })
        };
        fights.note(all().collect(), now);
        assert!(fights.notes(now).is_empty());
        (0..OFTEN).for_each(|_| fights.note(all().collect(), now));
        assert_eq!(fights.notes(now).len(), 1);
    }
}
