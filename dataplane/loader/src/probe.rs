//! What the kernel and the node must have, found out before anything is touched.
//! Every error says what is missing and what to do about it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::sys;

/// The oldest kernel that has everything (tcx came with 6.6).
const OLDEST_KERNEL: (u32, u32) = (6, 6);
/// The capabilities that the programs need, by bit number.
const CAPABILITIES: [(u32, &str); 3] = [(12, "NET_ADMIN"), (38, "PERFMON"), (39, "BPF")];
/// Magic number of a BPF file system (`BPF_FS_MAGIC`).
const BPFFS_MAGIC: i64 = 0xcafe_4a11;
/// Magic number of cgroup2 (`CGROUP2_SUPER_MAGIC`).
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// The index of the loopback device, in every network namespace.
const LOOPBACK: u32 = 1;

/// Where the node's file systems are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The BPF file system; pins live in its folder `netkeel`.
    pub bpffs: PathBuf,
    /// The root of the cgroup2 hierarchy whose processes are served (see [`find_cgroup2`]).
    pub cgroup: PathBuf,
}

impl Options {
    /// The usual BPF file system, and a cgroup.
    #[must_use]
    pub fn new(cgroup: PathBuf) -> Self {
        Self { bpffs: PathBuf::from("/sys/fs/bpf"), cgroup }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's release, `6.18.0-foo`.
    pub kernel: String,
}

/// Why the programs cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel is too old.
    #[error("kernel {release} is too old: use Linux 6.6 or later")]
    KernelTooOld {
        /// Its release.
        release: String,
    },
    /// The kernel was built without type information.
    #[error(
        "the kernel has no type information at /sys/kernel/btf/vmlinux: use one with CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoBtf,
    /// The kernel was built without tcx.
    #[error(
        "the kernel {release} cannot attach programs to devices: use one with CONFIG_NET_XGRESS=y and CONFIG_BPF_SYSCALL=y"
    )]
    NoTcx {
        /// Its release.
        release: String,
    },
    /// No BPF file system.
    #[error("no BPF file system at {path}: run `mount -t bpf bpf {path}`")]
    NoBpffs {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// No cgroup2 hierarchy where one was said to be.
    #[error("no cgroup2 hierarchy at {path}: run `mount -t cgroup2 none {path}` or name another folder")]
    NotCgroup2 {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// No cgroup2 hierarchy anywhere.
    #[error(
        "no cgroup2 hierarchy is mounted at {root} or below it: run `mount -t cgroup2 none {root}/unified`"
    )]
    NoCgroup2 {
        /// Where it was looked for.
        root: PathBuf,
    },
    /// The process lacks capabilities.
    #[error("missing capabilities: {names}; add them to the container's securityContext")]
    MissingCapability {
        /// Their names, separated by commas.
        names: String,
    },
    /// A file of the kernel could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Checks kernel, capabilities, BPF file system and cgroup2.
///
/// # Errors
/// The first thing that is missing, and what to do.
pub fn probe(options: &Options) -> Result<Facts, Error> {
    let release = read("/proc/sys/kernel/osrelease".as_ref())?.trim().to_owned();
    if version(&release).is_none_or(|version| version < OLDEST_KERNEL) {
        return Err(Error::KernelTooOld { release });
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(Error::NoBtf);
    }
    let missing = missing_capabilities(&read("/proc/thread-self/status".as_ref())?);
    if !missing.is_empty() {
        return Err(Error::MissingCapability { names: missing.join(", ") });
    }
    if sys::file_system(&options.bpffs).ok() != Some(BPFFS_MAGIC) {
        return Err(Error::NoBpffs { path: options.bpffs.clone() });
    }
    if sys::file_system(&options.cgroup).ok() != Some(CGROUP2_MAGIC) {
        return Err(Error::NotCgroup2 { path: options.cgroup.clone() });
    }
    if sys::query_tcx(LOOPBACK).is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)) {
        return Err(Error::NoTcx { release });
    }
    Ok(Facts { kernel: release })
}

/// Finds the cgroup2 hierarchy mounted at `root` or below it, the nearest to `root` first. On ordinary
/// systems that is `root` (`/sys/fs/cgroup`) itself, on hybrid ones `unified` below it.
///
/// # Errors
/// When there is none, or the mounts cannot be read.
pub fn find_cgroup2(root: &Path) -> Result<PathBuf, Error> {
    let mounts = read("/proc/self/mountinfo".as_ref())?;
    cgroup2_in(&mounts, root).ok_or_else(|| Error::NoCgroup2 { root: root.to_owned() })
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// The mount point of cgroup2 at or below `root` in the text of a mountinfo file.
fn cgroup2_in(mountinfo: &str, root: &Path) -> Option<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .filter(|(_, kind)| kind.split(' ').next() == Some("cgroup2"))
        .filter_map(|(mount, _)| mount.split(' ').nth(4))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| path.starts_with(root))
        .min_by_key(|path| path.components().count())
}

/// Major and minor version of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The needed capabilities that the text of a process's status file does not show as effective.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    CAPABILITIES.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
24 1 0:22 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
25 24 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw
26 24 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
90 25 0:23 / /host/sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw
";

    #[test]
    fn cgroup2_is_found_at_its_root_and_below_it() {
        let plain = "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(cgroup2_in(plain, "/sys/fs/cgroup".as_ref()), Some("/sys/fs/cgroup".into()));
        assert_eq!(cgroup2_in(HYBRID, "/sys/fs/cgroup".as_ref()), Some("/sys/fs/cgroup/unified".into()));
        let host = "/host/sys/fs/cgroup";
        assert_eq!(cgroup2_in(HYBRID, host.as_ref()), Some("/host/sys/fs/cgroup/unified".into()));
    }

    #[test]
    fn a_node_without_cgroup2_has_none() {
        assert_eq!(
            cgroup2_in("24 1 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n", "/sys/fs/cgroup".as_ref()),
            None
        );
        assert_eq!(cgroup2_in("", "/".as_ref()), None);
    }

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("6.6-rc1"), Some((6, 6)));
        assert!(version("6.10.0") > Some(OLDEST_KERNEL) && version("5.15.1") < Some(OLDEST_KERNEL));
        assert_eq!(version("plan9"), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing_capabilities("Name:\tx\nCapEff:\t000000c000001000\n"), Vec::<&str>::new());
        assert_eq!(missing_capabilities("CapEff:\t0000000000001000\n"), ["PERFMON", "BPF"]);
        assert_eq!(missing_capabilities(""), ["NET_ADMIN", "PERFMON", "BPF"]);
    }

    #[test]
    fn a_missing_bpffs_says_how_to_mount_it() {
        let error = Error::NoBpffs { path: "/sys/fs/bpf".into() };
        assert!(error.to_string().ends_with("run `mount -t bpf bpf /sys/fs/bpf`"));
    }
}
