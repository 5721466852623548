//! Kernel links of pods. `netlink` speaks to one namespace's kernel over a socket that may come from elsewhere;
//! `veth` is what a pod's link consists of.

pub mod address;
pub(crate) mod attribute;
pub mod name;
pub mod netlink;
pub mod shaper;
pub(crate) mod socket;
pub mod veth;

use std::io;

use crate::sysctl;

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A change or a question was answered with an error.
    #[error("{what}")]
    Refused { what: String, source: io::Error },
    /// The socket failed.
    #[error("talk to the kernel over netlink")]
    Socket { source: io::Error },
    /// An answer that is no rtnetlink message.
    #[error("the kernel's answer cannot be understood: {reason}")]
    Answer { reason: String },
    /// No list without a change in the middle of it.
    #[error("{what}: something changed each time, so that none can be trusted")]
    Torn { what: String },
    /// A kernel setting could not be written.
    #[error(transparent)]
    Setting(#[from] sysctl::Error),
    /// Something that was just made is not there.
    #[error("link {name} is not there any more: its namespace was removed meanwhile")]
    Vanished { name: String },
}

impl Error {
    /// The kernel's error number, where it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Socket { source } => source.raw_os_error(),
            _ => None,
        }
    }
}
