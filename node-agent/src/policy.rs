//! Policy in the kernel: which tables each pod of the node has, written by difference and in an order in which no pod is ever
//! open to more than the old policy or the new one allows. What is not known is closed.
//!
//! Shared by the agent, which brings new policy, and by CNI calls, which bring pods and take them away.

pub mod knowledge;
pub mod maps;
mod mirror;
pub mod numbers;
pub mod snapshot;
mod state;
mod tables;
#[cfg(test)]
mod tests;
mod write;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use netkeel_core::{address::Address, name::ObjectName, policy::Isolation};
use netkeel_dataplane_common::{endpoints::Endpoint, links::Link, tunnels::Block};
use netkeel_dataplane_loader::TableError;
use tokio::sync::Notify;

use self::{maps::Maps, state::State};

/// Who a pod is to the container runtime, and to the API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Namespace and name; both empty where the runtime did not say.
    pub name: ObjectName,
    /// UID of the object, empty where it is not known: a name may be another pod's a moment later.
    pub uid: Arc<str>,
}

impl Default for PodRef {
    fn default() -> Self {
        Self::new("", "")
    }
}

impl PodRef {
    /// From `namespace/name`, as records have it, and the UID.
    #[must_use]
    pub fn new(name: &str, uid: &str) -> Self {
        let (namespace, name) = name.split_once('/').unwrap_or_default();
        Self { name: ObjectName::new(namespace, name), uid: uid.into() }
    }

    /// Whether the runtime said which pod it is.
    #[must_use]
    pub fn is_named(&self) -> bool {
        !self.name.name.is_empty()
    }

    /// Whether both are the same pod, as far as both are known.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let same_object = self.uid.is_empty() || other.uid.is_empty() || self.uid == other.uid;
        self.is_named() && self.name == other.name && same_object
    }
}

/// A pod's link, as policy knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Whose it is.
    pub pod: PodRef,
    /// The pod's address; of a pod with both families its first, by which it is known here.
    pub address: Address,
    /// Its address of the other family.
    pub other: Option<Address>,
    /// Index of the host side.
    pub ifindex: u32,
    /// MAC of the pod side.
    pub mac: [u8; 6],
    /// What comes to the pod has to pass the queue of the host side, which limits the rate.
    pub shaped: bool,
}

impl Attached {
    fn endpoint(&self, ingress: u32) -> Endpoint {
        let endpoint = Endpoint::new(self.ifindex, ingress);
        if self.shaped { endpoint.shaped() } else { endpoint }
    }

    fn link(&self, egress: u32) -> Link {
        self.addresses().fold(Link::new(self.address, self.mac, egress), Link::with)
    }

    /// All its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Address> + use<> {
        [self.address].into_iter().chain(self.other)
    }

    /// Whether one of its addresses is this.
    #[must_use]
    pub fn has(&self, address: Address) -> bool {
        self.addresses().any(|own| own == address)
    }
}

/// A pod of the node that the API knows, and what policies say of it.
#[derive(Clone, Debug)]
pub struct Known {
    /// UID of the object.
    pub uid: Arc<str>,
    /// What the policies say.
    pub isolation: Isolation,
}

/// What the kernel is to hold.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Who has an address.
    pub identities: &'a HashMap<Address, u32>,
    /// Leaves of CIDRs.
    pub cidrs: &'a HashMap<Block, u32>,
    /// The node's pods.
    pub pods: &'a HashMap<ObjectName, Known>,
    /// All pods, namespaces and policies of the cluster are known. Until then nothing is taken away that the kernel knows of an earlier
    /// time, and running pods keep their tables.
    pub complete: bool,
}

/// Figures and problems of policy in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// It was made of all that there is in the cluster.
    pub complete: bool,
    /// Pods whose policy is not known or did not fit: closed in a direction at least.
    pub closed: Vec<PodRef>,
    /// Tables with entries.
    pub tables: usize,
    /// Entries of all tables.
    pub entries: usize,
    /// Addresses with an identity.
    pub identities: usize,
    /// Leaves of CIDRs.
    pub cidrs: usize,
    /// Map writes and removals so far.
    pub writes: u64,
    /// What could not be done, each with the thing it concerns.
    pub problems: Vec<String>,
}

/// How far an added pod's policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// What the policies say is in force.
    InForce,
    /// The pod is closed until the API server has said who it is, or until its tables fit.
    Closed,
}

/// Policy in the kernel.
pub struct Programmer {
    state: Mutex<State>,
    /// New policy was programmed.
    programmed: Condvar,
    /// A pod came or went.
    moved: Arc<Notify>,
}

impl Programmer {
    /// Takes the maps over as they are. `moved` is rung when a pod comes or goes.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn restore(maps: Maps, moved: Arc<Notify>) -> Result<Self, TableError> {
        Ok(Self { state: Mutex::new(State::read(maps)?), programmed: Condvar::new(), moved })
    }

    /// The highest numbers of an identity and of a rule that the maps hold.
    #[must_use]
    pub fn highest_numbers(&self) -> (u32, u32) {
        self.lock().highest_numbers()
    }

    /// Whether the pods with a link are known: before, [`Self::program`] only takes note of what is wanted.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.lock().taken_over
    }

    /// Brings the maps to what is wanted. What does not fit closes the pods that it concerns; it is tried again at the next call.
    pub fn program(&self, wanted: &Wanted<'_>) -> Outcome {
        let outcome = self.lock().program(wanted);
        self.programmed.notify_all();
        outcome
    }

    /// The same as at the last call of [`Self::program`], after a look at what the maps really hold.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn repair(&self) -> Result<(), TableError> {
        self.lock().refresh()
    }

    /// Waits until what the policies say of a pod is known; `false` when the time was not enough.
    #[must_use]
    pub fn await_pod(&self, pod: &PodRef, patience: Duration) -> bool {
        if !pod.is_named() {
            return false;
        }
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while !state.knows(pod) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            let waited = self.programmed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Enters a pod with its tables: those of its policies, else closed.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn enter(&self, pod: &Attached) -> Result<Entered, TableError> {
        let entered = self.lock().enter(pod);
        self.moved.notify_one();
        entered
    }

    /// Takes a pod out of the maps. An address that is not there is fine.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn forget(&self, address: Address) -> Result<(), TableError> {
        let forgotten = self.lock().forget(address);
        self.moved.notify_one();
        forgotten
    }

    /// Whether the maps hold the pod, whatever its tables.
    #[must_use]
    pub fn holds(&self, pod: &Attached) -> bool {
        self.lock().holds(pod)
    }

    /// At start: these are all pods with a link. Each keeps the tables that the kernel holds for it; one that the kernel does not know
    /// is closed.
    ///
    /// # Errors
    /// The first map that could not be written.
    pub fn take_over(&self, pods: &[Attached]) -> Result<(), TableError> {
        let taken = self.lock().take_over(pods);
        self.moved.notify_one();
        taken
    }

    /// The pods with a link, by address.
    #[must_use]
    pub fn attached(&self) -> BTreeMap<Address, PodRef> {
        self.lock().attached()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What a panic leaves half written differs from what is remembered to be written, and is done again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
