//! The cgroups of the test clusters: one subtree `netkeel/<cluster>/<node>` in every hierarchy of the machine.
//! A process that is in the subtree was started by the cluster, so ending the subtree ends nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait_until;

/// One mounted cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) mount: PathBuf,
    /// Mount options that name a version 1 hierarchy; `None` is cgroup2.
    pub(crate) v1: Option<String>,
}

/// Every hierarchy that is mounted here.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let found = parse(&fs::read_to_string("/proc/self/mountinfo")?);
    if !found.iter().any(|hierarchy| hierarchy.v1.is_none()) {
        bail!("cgroup2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified");
    }
    Ok(found)
}

fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (Some(mount), mut right) = (left.split(' ').nth(4), right.split(' ')) else { continue };
        let v1 = match right.next() {
            Some("cgroup2") => None,
            Some("cgroup") => Some(hierarchy_options(right.nth(1).unwrap_or_default())),
            _ => continue,
        };
        if !found.iter().any(|known| known.v1 == v1) {
            found.push(Hierarchy { mount: mount.into(), v1 });
        }
    }
    found
}

/// Controllers and the name, without the options that belong to the whole hierarchy.
fn hierarchy_options(options: &str) -> String {
    let own = |option: &&str| {
        !matches!(*option, "rw" | "ro" | "xattr" | "clone_children" | "cpuset_v2_mode" | "noprefix")
            && !option.starts_with("release_agent=")
    };
    options.split(',').filter(own).collect::<Vec<_>>().join(",")
}

/// Puts a process at the root of the hierarchy that shares out CPU time, where it competes with whole groups. Inside of a
/// group its own weight would count among the group's processes only.
///
/// # Errors
/// The process is gone, or this one is not root.
pub fn share_cpu_at_root(pid: u32) -> Result<()> {
    let hierarchies = hierarchies()?;
    let shares = |hierarchy: &&Hierarchy| {
        hierarchy.v1.as_ref().is_some_and(|options| options.split(',').any(|option| option == "cpu"))
    };
    let unified = || hierarchies.iter().find(|hierarchy| hierarchy.v1.is_none());
    let hierarchy = hierarchies.iter().find(shares).or_else(unified).context("no cgroups are mounted")?;
    let procs = hierarchy.mount.join("cgroup.procs");
    fs::write(&procs, pid.to_string()).with_context(|| format!("process {pid} into {}", procs.display()))
}

/// Puts this process into `group` (a path below each hierarchy's root), which is created where it is missing.
pub(crate) fn join(group: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        create(&hierarchy, group)?;
        let procs = hierarchy.mount.join(group).join("cgroup.procs");
        fs::write(&procs, std::process::id().to_string()).with_context(|| procs.display().to_string())?;
    }
    Ok(())
}

fn create(hierarchy: &Hierarchy, group: &str) -> Result<()> {
    let mut folder = hierarchy.mount.clone();
    for part in Path::new(group) {
        let parent = folder.clone();
        folder.push(part);
        if !folder.exists() {
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        if hierarchy.v1.is_some() {
            inherit_cpuset(&parent, &folder)?;
        }
    }
    Ok(())
}

/// A version 1 cpuset begins empty, and an empty one takes no process.
fn inherit_cpuset(parent: &Path, folder: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let Ok(current) = fs::read_to_string(folder.join(file)) else { continue };
        if current.trim().is_empty() {
            fs::write(folder.join(file), fs::read_to_string(parent.join(file))?)
                .with_context(|| folder.join(file).display().to_string())?;
        }
    }
    Ok(())
}

/// Ends every process of the subtree and removes it. A subtree that does not exist is already gone.
pub(crate) fn destroy(group: &str) -> Result<()> {
    let hierarchies = hierarchies()?;
    for unified in hierarchies.iter().filter(|hierarchy| hierarchy.v1.is_none()) {
        let folder = unified.mount.join(group);
        if !folder.exists() {
            continue;
        }
        fs::write(folder.join("cgroup.kill"), "1")
            .with_context(|| format!("cgroup.kill of {}", folder.display()))?;
        wait_until(&format!("processes of {} end", folder.display()), Duration::from_secs(20), || {
            let events = fs::read_to_string(folder.join("cgroup.events"))?;
            if events.contains("populated 0") { Ok(()) } else { bail!("still running") }
        })?;
    }
    for hierarchy in &hierarchies {
        let folder = hierarchy.mount.join(group);
        // A zombie leaves a version 1 group a moment after it left the cgroup2 group.
        wait_until("cgroups can be removed", Duration::from_secs(10), || remove(&folder))?;
    }
    Ok(())
}

/// Removes `netkeel` itself when no cluster is left in it.
pub(crate) fn remove_empty(group: &str) {
    for hierarchy in hierarchies().unwrap_or_default() {
        drop(fs::remove_dir(hierarchy.mount.join(group)));
    }
}

fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)?.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(folder).with_context(|| folder.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_with_the_options_that_name_them() {
        let found = parse(
            "36 25 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             37 25 0:32 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd\n\
             38 25 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             39 25 0:33 / /run/again rw - cgroup2 cgroup2 rw\n\
             40 25 0:34 / /proc rw - proc proc rw\n",
        );
        let expected = [
            ("/sys/fs/cgroup/cpu,cpuacct", Some("cpu,cpuacct")),
            ("/sys/fs/cgroup/systemd", Some("name=systemd")),
            ("/sys/fs/cgroup/unified", None),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(mount, v1)| Hierarchy { mount: mount.into(), v1: v1.map(String::from) })
            .collect();
        assert_eq!(found, expected);
    }
}
