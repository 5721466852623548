//! The folder of the records on a file system that is full or read-only: calls fail with its name, and nothing is lost or given twice.
#![expect(clippy::unwrap_used, reason = "a failure of the fixture is a failure of the test")]

use std::{collections::HashSet, fs, path::Path, path::PathBuf};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::host::{Host, Pod, address, eventually};

/// A host whose records are on a file system of their own, which this thread and its children see alone.
fn on_a_disk(options: &str) -> (Host, PathBuf) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let mut host = Host::new("10.244.0.0/26");
    let disk = host.folder.path().join("ipam");
    fs::create_dir(&disk).unwrap();
    mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
    host.start();
    (host, disk)
}

fn remount(disk: &Path, flags: MsFlags, options: &str) {
    mount(None::<&str>, disk, None::<&str>, MsFlags::MS_REMOUNT | flags, Some(options)).unwrap();
}

/// The call failed for the folder, and says so and what to do.
fn names_the_folder((code, text): (u64, String), disk: &Path) {
    assert_eq!(code, 5, "{text}");
    assert!(
        text.contains(disk.to_str().unwrap()) && text.contains("must be writable and have room"),
        "{text}"
    );
}

/// A DEL that is refused has taken the pod's route; the first look of the next agent, which nobody waits for, brings it back.
fn mended(host: &Host, pod: &Pod) {
    eventually("the repair of a pod whose DEL was refused", || host.check(pod).success);
}

#[test]
fn a_full_disk_loses_no_address_and_gives_none_twice() {
    // A page a record.
    let (mut host, disk) = on_a_disk("size=8k");
    let pods: Vec<_> = (0..4).map(|number| Pod::new(format!("pod-{number}"))).collect();
    let mut given: Vec<_> = pods[..2].iter().map(|pod| address(&host.add(pod).ok())).collect();
    names_the_folder(host.add(&pods[2]).refused(), &disk);
    names_the_folder(host.del(&pods[0]).refused(), &disk);
    assert_eq!(
        (host.pool().usage().used, host.links().len()),
        (2, 2),
        "a refused call leaves nothing and takes nothing"
    );
    host.kill();
    host.start();
    mended(&host, &pods[0]);
    host.check(&pods[1]).ok();
    names_the_folder(host.add(&pods[2]).refused(), &disk);
    remount(&disk, MsFlags::empty(), "size=1m");
    given.extend(pods[2..].iter().map(|pod| address(&host.add(pod).ok())));
    assert_eq!(given.iter().collect::<HashSet<_>>().len(), 4, "{given:?}");
    for pod in &pods {
        host.del(pod).ok();
    }
    assert_eq!((host.pool().usage().used, host.pool().usage().resting), (0, 4));
}

#[test]
fn a_read_only_disk_loses_no_address_and_gives_none_twice() {
    let (mut host, disk) = on_a_disk("size=1m");
    let pods: Vec<_> = (0..3).map(|number| Pod::new(format!("pod-{number}"))).collect();
    let first = address(&host.add(&pods[0]).ok());
    let second = address(&host.add(&pods[1]).ok());
    remount(&disk, MsFlags::MS_RDONLY, "size=1m");
    names_the_folder(host.add(&pods[2]).refused(), &disk);
    names_the_folder(host.del(&pods[1]).refused(), &disk);
    assert_eq!(address(&host.add(&pods[0]).ok()), first, "what there is needs no writing");
    host.kill();
    host.start();
    mended(&host, &pods[1]);
    names_the_folder(host.add(&pods[2]).refused(), &disk);
    remount(&disk, MsFlags::empty(), "size=1m");
    let third = address(&host.add(&pods[2]).ok());
    assert!(![first, second].contains(&third), "{third}");
    host.del(&pods[1]).ok();
    assert_eq!((host.pool().usage().used, host.pool().usage().resting), (2, 1));
}
