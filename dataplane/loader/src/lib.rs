//! Loads the kernel programs of a node, pins them, replaces them in place and writes their maps.
//! Needs the capabilities BPF, `NET_ADMIN` and PERFMON; nothing here walks the kernel's object ids.

pub mod datapath;
pub mod pins;
pub mod probe;
mod sys;
pub mod tables;

pub use datapath::{Datapath, Error, Verdict, Way};
pub use netkeel_dataplane_common as common;
pub use pins::{PinnedLink, pinned_links, remove};
pub use probe::{Facts, Options, find_cgroup2, probe};
pub use sys::netns_cookie;
pub use tables::{Changes, FakeTable, KernelTable, Table, TableError, converge};

/// The compiled kernel programs; empty when this crate was built without them.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netkeel.o"));

/// Whether this program holds kernel programs at all.
///
/// # Errors
/// [`Error::Stub`], which says how to build one that does.
pub fn built() -> Result<(), Error> {
    if OBJECT.is_empty() { Err(Error::Stub) } else { Ok(()) }
}
