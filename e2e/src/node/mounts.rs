//! The root file system of a node: the machine's own seen through an overlay, so that every write stays with the node,
//! with its own /proc, /sys, /run, cgroups, bpffs and the folders that survive a restart of the node.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};

use super::Spec;
use crate::cgroup;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Builds the root and makes it this mount namespace's.
pub(super) fn enter_root(spec: &Spec) -> Result<()> {
    let hierarchies = cgroup::hierarchies()?;
    let links = cgroup_links();
    change("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    let root = overlay(&spec.folder.join("root"))?;
    special("proc", &root.join("proc"), "")?;
    special("sysfs", &root.join("sys"), "")?;
    special("bpf", &root.join("sys/fs/bpf"), "")?;
    special("tmpfs", &root.join("run"), "mode=755")?;
    bind(Path::new("/dev"), &root.join("dev"), MsFlags::MS_REC)?;
    cgroups(&root, &hierarchies, &links)?;
    for (from, to) in &spec.binds {
        // Not recursive: the root that is being built lies in one of these folders.
        bind(from, &inside(&root, to), MsFlags::empty())?;
    }
    for (path, text) in &spec.files {
        let path = inside(&root, path);
        // On the machine these may be links to somewhere else.
        drop(fs::remove_file(&path));
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    chdir(&root)?;
    pivot_root(".", ".").context("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).context("leave the machine's root")?;
    chdir("/")?;
    // kubelet hands mounts of its pods on, and Kubernetes' mount propagation starts from a shared root.
    change("/", MsFlags::MS_REC | MsFlags::MS_SHARED)
}

fn overlay(base: &Path) -> Result<PathBuf> {
    special("tmpfs", base, "mode=755")?;
    let [upper, work, merged] = ["upper", "work", "merged"].map(|name| base.join(name));
    for folder in [&upper, &work, &merged] {
        fs::create_dir(folder)?;
    }
    let options = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    special("overlay", &merged, &options)?;
    Ok(merged)
}

fn cgroups(root: &Path, hierarchies: &[cgroup::Hierarchy], links: &[(PathBuf, PathBuf)]) -> Result<()> {
    if hierarchies.iter().any(|hierarchy| hierarchy.mount != Path::new(CGROUPS)) {
        special("tmpfs", &inside(root, Path::new(CGROUPS)), "mode=755")?;
    }
    for hierarchy in hierarchies {
        let target = inside(root, &hierarchy.mount);
        match &hierarchy.v1 {
            None => special("cgroup2", &target, "")?,
            Some(options) => special("cgroup", &target, options)?,
        }
    }
    for (path, target) in links {
        symlink(target, inside(root, path))?;
    }
    Ok(())
}

/// Links such as `cpu -> cpu,cpuacct` beside the version 1 mounts.
fn cgroup_links() -> Vec<(PathBuf, PathBuf)> {
    let entries = fs::read_dir(CGROUPS).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| Some((entry.path(), fs::read_link(entry.path()).ok()?))).collect()
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn special(kind: &str, target: &Path, options: &str) -> Result<()> {
    fs::create_dir_all(target).with_context(|| target.display().to_string())?;
    mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("mount {kind} at {} ({options})", target.display()))
}

fn bind(from: &Path, to: &Path, more: MsFlags) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | more, None::<&str>)
        .with_context(|| format!("bind {} to {}", from.display(), to.display()))
}

fn change(target: &str, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("propagation of {target}"))
}
