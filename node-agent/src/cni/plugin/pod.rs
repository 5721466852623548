//! The pod's namespace: opened, entered by a thread of its own, and given to the agent as two descriptors.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};

use crate::{
    cni::failure::{Failure, INVALID_ENVIRONMENT, IO},
    link::netlink::open_socket,
};

/// Settings inside that netlink cannot write, for links to come: nothing that others announce is believed, and no
/// address of a pod waits for duplicate detection. A kernel without IPv6 has none of them.
const SETTINGS: [(&str, &str); 3] = [("accept_ra", "0"), ("accept_dad", "0"), ("addr_gen_mode", "1")];

#[derive(Debug)]
pub(super) struct Pod {
    netns: File,
    socket: OwnedFd,
}

impl Pod {
    /// The namespace and a routing socket inside it, in the protocol's order.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.netns.as_fd(), self.socket.as_fd()]
    }
}

pub(super) fn open(path: &str) -> Result<Pod, Failure> {
    let wrong = |why: &str| Failure::new(INVALID_ENVIRONMENT, format!("CNI_NETNS {path} {why}"));
    let netns = File::open(path).map_err(|error| {
        Failure::caused(INVALID_ENVIRONMENT, format!("CNI_NETNS {path} cannot be opened"), &error)
    })?;
    if !fstatfs(&netns).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC) {
        return Err(wrong("is not a network namespace"));
    }
    let failed =
        |error: &io::Error| Failure::caused(IO, format!("CNI_NETNS {path} cannot be entered"), error);
    if is_own(&netns).map_err(|error| failed(&error))? {
        return Err(wrong("is the node's own network namespace"));
    }
    let socket = thread::scope(|scope| scope.spawn(|| enter(&netns)).join());
    let socket = socket.unwrap_or_else(|_| Err(io::Error::other("the thread ended early")));
    Ok(Pod { socket: socket.map_err(|error| failed(&error))?, netns })
}

fn is_own(netns: &File) -> io::Result<bool> {
    let (own, pod) = (fs::metadata("/proc/self/ns/net")?, netns.metadata()?);
    Ok((own.dev(), own.ino()) == (pod.dev(), pod.ino()))
}

fn enter(netns: &File) -> io::Result<OwnedFd> {
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    for (key, value) in SETTINGS {
        match fs::write(format!("/proc/sys/net/ipv6/conf/default/{key}"), value) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    open_socket()
}
