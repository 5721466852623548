//! Brings the kernel programs up: finds out what the node has, loads, pins, and takes over the maps as they are.

use std::{path::Path, sync::Arc};

use tokio::sync::Notify;

use netkeel_core::service::{Backend, Frontend};
use netkeel_dataplane_common::{backends::Slot, services::Service};
use netkeel_dataplane_loader::{
    self as loader, Datapath, KernelTable, Options, TableError, find_cgroup2, probe,
};

use crate::{
    policy::{Programmer, maps::Maps},
    services::ServiceTables,
};

/// The tables of services in the kernel.
pub type Tables = ServiceTables<KernelTable<Frontend, Service>, KernelTable<Slot, Backend>>;

/// Why the programs do not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node lacks something.
    #[error(transparent)]
    Probe(#[from] loader::probe::Error),
    /// The programs were refused.
    #[error(transparent)]
    Load(#[from] loader::Error),
    /// The maps of services or policy cannot be read.
    #[error("take over the services and policies of an earlier start")]
    Restore(#[from] TableError),
}

impl Error {
    /// One word for a condition and a metric.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        use loader::probe::Error as Probe;
        match self {
            Self::Probe(Probe::KernelTooOld { .. } | Probe::NoBtf | Probe::NoTcx { .. }) => {
                "KernelUnsuitable"
            }
            Self::Probe(Probe::NoBpffs { .. }) => "NoBpffs",
            Self::Probe(Probe::NotCgroup2 { .. } | Probe::NoCgroup2 { .. }) => "NoCgroup2",
            Self::Probe(Probe::MissingCapability { .. }) => "MissingCapability",
            Self::Probe(_) => "ProbeFailed",
            Self::Load(_) => "DatapathFailed",
            Self::Restore(_) => "RestoreFailed",
        }
    }
}

/// The running programs.
pub struct Kernel {
    /// The programs and their maps.
    pub datapath: Arc<Datapath>,
    /// The tables of services.
    pub tables: Tables,
    /// Policy in the maps, and the pods.
    pub policy: Arc<Programmer>,
    /// The kernel's release.
    pub release: String,
}

impl Kernel {
    /// Loads the programs, or puts them in place of those of an earlier start. `moved` is rung when a pod comes or goes.
    ///
    /// # Errors
    /// What is missing, or what the kernel refused. What ran before still runs.
    pub fn load(bpffs: &Path, cgroups: &Path, moved: Arc<Notify>) -> Result<Self, Error> {
        let options = Options { bpffs: bpffs.to_owned(), cgroup: find_cgroup2(cgroups)? };
        let facts = probe(&options)?;
        let datapath = Datapath::load(&options)?;
        let tables = ServiceTables::restore(datapath.services()?, datapath.backends()?)?;
        let policy = Arc::new(Programmer::restore(Maps::of(&datapath)?, moved)?);
        Ok(Self { datapath: Arc::new(datapath), tables, policy, release: facts.kernel })
    }

    /// Names of the programs that are loaded.
    #[must_use]
    pub fn programs(&self) -> Vec<String> {
        self.datapath.programs()
    }
}
