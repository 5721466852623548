//! What a pod's link needs of the kernel programs, as a port: `kernel` is the real one, `FakeDatapath` serves tests.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use netkeel_core::address::Address;
use netkeel_dataplane_common::{backends::Backend, host_ports::HostPort};

use crate::policy::{Entered, PodRef};

/// One pod's link as the programs know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLink {
    /// Whose it is: policy goes by that.
    pub pod: PodRef,
    /// Name of the host side.
    pub host_name: String,
    /// Index of the host side.
    pub host_ifindex: u32,
    /// The pod's address, its first.
    pub pod_address: Address,
    /// Its address of the other family.
    pub other_address: Option<Address>,
    /// MAC of the pod side.
    pub pod_mac: [u8; 6],
    /// MAC of the host side.
    pub host_mac: [u8; 6],
    /// What comes to the pod has to pass the queue of the host side, which limits the rate.
    pub shaped: bool,
}

/// A program could not be attached or a map not be written.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    pub what: String,
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// The kernel's side of a pod's link.
pub trait PodDatapath: Send + Sync {
    /// Waits shortly until it is known what the policies say of a pod; `false` when the time was not enough.
    fn await_policy(&self, pod: &PodRef) -> bool;

    /// Attaches the programs to the host side and enters the pod in the tables, with its policy; whatever was there is replaced.
    ///
    /// # Errors
    /// When the kernel refuses; what was done by then stays: `remove` takes the entries away, the programs go with the link.
    fn add(&self, pod: &PodLink) -> Result<Entered, Error>;

    /// Takes the address out of the tables: nothing is sent to the pod any more, nor accepted from it.
    /// An address that is not there is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn remove(&self, pod_address: Address) -> Result<(), Error>;

    /// Whether the tables hold the pod like this.
    ///
    /// # Errors
    /// When they cannot be read.
    fn holds(&self, pod: &PodLink) -> Result<bool, Error>;

    /// The number by which the programs know the node's own network namespace.
    fn netns(&self) -> u64;

    /// What sockets of the node and its pods are told of host ports.
    ///
    /// # Errors
    /// When the map cannot be read.
    fn ports(&self) -> Result<HashMap<HostPort, Backend>, Error>;

    /// Tells sockets of these ports too.
    ///
    /// # Errors
    /// When the map is full or cannot be written.
    fn open_ports(&self, ports: &HashMap<HostPort, Backend>) -> Result<(), Error>;

    /// Tells sockets of these ports no more.
    ///
    /// # Errors
    /// When the map cannot be written.
    fn close_ports(&self, ports: &[HostPort]) -> Result<(), Error>;

    /// At start: makes the tables hold these pods and no others, with today's programs on their links. The policy that the kernel
    /// holds for them stays.
    ///
    /// # Errors
    /// The first refusal; the other pods are done all the same.
    fn restore(&self, pods: &[PodLink]) -> Result<(), Error>;
}

/// A datapath of ordinary memory: with it pods are reached through the host's routes alone.
#[derive(Debug, Default)]
pub struct FakeDatapath {
    pods: Mutex<HashMap<Address, PodLink>>,
    ports: Mutex<HashMap<HostPort, Backend>>,
    room: OnceLock<usize>,
    refuses: AtomicBool,
}

impl FakeDatapath {
    /// What the tables hold.
    pub fn pods(&self) -> HashMap<Address, PodLink> {
        self.lock().clone()
    }

    /// What sockets are told of host ports.
    pub fn sockets(&self) -> MutexGuard<'_, HashMap<HostPort, Backend>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on sockets can be told of so many host ports and no more. Calls that come later change nothing.
    pub fn limit_sockets(&self, room: usize) {
        self.room.get_or_init(|| room);
    }

    /// From now on `add` and `restore` fail, or work again.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, PodLink>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PodDatapath for FakeDatapath {
    fn await_policy(&self, _: &PodRef) -> bool {
        true
    }

    fn add(&self, pod: &PodLink) -> Result<Entered, Error> {
        if self.refuses.load(Ordering::Relaxed) {
            let what = format!("attach from_pod to {}", pod.host_name);
            return Err(Error { what, source: "the test said so".into() });
        }
        self.lock().insert(pod.pod_address, pod.clone());
        Ok(Entered::InForce)
    }

    fn remove(&self, pod_address: Address) -> Result<(), Error> {
        self.lock().remove(&pod_address);
        Ok(())
    }

    fn holds(&self, pod: &PodLink) -> Result<bool, Error> {
        Ok(self.lock().get(&pod.pod_address) == Some(pod))
    }

    fn netns(&self) -> u64 {
        1
    }

    fn ports(&self) -> Result<HashMap<HostPort, Backend>, Error> {
        Ok(self.sockets().clone())
    }

    fn open_ports(&self, ports: &HashMap<HostPort, Backend>) -> Result<(), Error> {
        let (mut sockets, room) = (self.sockets(), self.room.get().copied().unwrap_or(usize::MAX));
        for (port, to) in ports {
            if sockets.len() >= room && !sockets.contains_key(port) {
                return Err(Error { what: "write a host port".to_owned(), source: "the map is full".into() });
            }
            sockets.insert(*port, *to);
        }
        Ok(())
    }

    fn close_ports(&self, ports: &[HostPort]) -> Result<(), Error> {
        self.sockets().retain(|port, _| !ports.contains(port));
        Ok(())
    }

    fn restore(&self, pods: &[PodLink]) -> Result<(), Error> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(Error { what: "restore".to_owned(), source: "the test said so".into() });
        }
        *self.lock() = pods.iter().map(|pod| (pod.pod_address, pod.clone())).collect();
        Ok(())
    }
}
