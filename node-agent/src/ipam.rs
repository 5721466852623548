//! The node's addresses, durable: the allocator of `netkeel-core` with one file an address beside it.
//! An address is written down before anybody uses it, and its file says who it was until it has rested.

pub mod record;
mod store;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ipnet::Ipv4Net;
use netkeel_core::{
    address::Address,
    ipam::{Allocator, Exhausted, Held, Owner, Usage},
};
use record::Record;
use store::Store;

/// What can go wrong with the node's addresses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address is left.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The folder of the records cannot be read or written.
    #[error("{verb} {}: the agent must own this folder, and its file system must have room", path.display())]
    Store { verb: &'static str, path: PathBuf, source: std::io::Error },
}

/// What is known of a pod besides its owner; it goes into the address's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the network in the CNI configuration.
    pub network: String,
    /// `namespace/name` of the pod, empty where the runtime did not say.
    pub pod: String,
    /// UID of the pod, empty where the runtime did not say.
    pub uid: String,
}

/// Allocations of one node.
#[derive(Debug)]
pub struct Pool {
    state: Mutex<State>,
    clock: fn() -> Duration,
}

#[derive(Debug)]
struct State {
    allocator: Allocator,
    records: HashMap<Owner, Record>,
    store: Store,
}

impl Pool {
    /// Reads what the folder holds, and makes it where it is missing.
    ///
    /// # Errors
    /// When the folder cannot be made or read. A file that cannot be understood is no error: its address stays taken.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        Self::with_clock(folder, since_boot)
    }

    /// The same with another clock, for tests.
    ///
    /// # Errors
    /// As [`Pool::open`].
    pub fn with_clock(folder: &Path, clock: fn() -> Duration) -> Result<Self, Error> {
        let (store, found) = Store::open(folder)?;
        let held = found.iter().map(|record| (record.address, record.held()));
        let allocator = Allocator::new(Vec::new(), held);
        let used = found.into_iter().filter(|record| matches!(record.held(), Held::By(_)));
        let records = used.map(|record| (record.owner.clone(), record)).collect();
        Ok(Self { state: Mutex::new(State { allocator, records, store }), clock })
    }

    /// Takes over the node's blocks.
    pub fn set_blocks(&self, blocks: &[Ipv4Net]) {
        let mut state = self.lock();
        if state.allocator.blocks() != blocks {
            state.allocator.set_blocks(blocks.to_vec());
        }
    }

    /// Gives `owner` an address and writes it down; the same one as before where it has one.
    ///
    /// # Errors
    /// Nothing left, or the file cannot be written; then nothing is given.
    pub fn allocate(&self, owner: &Owner, details: Details) -> Result<Address, Error> {
        let now = (self.clock)();
        let mut state = self.lock();
        state.wake(now)?;
        if let Some(address) = state.allocator.address_of(owner) {
            return Ok(address);
        }
        let address = state.allocator.allocate(owner, now)?;
        let record = Record::used(address, owner.clone(), details, now);
        if let Err(error) = state.store.create(&record) {
            state.allocator.cancel(owner);
            return Err(error);
        }
        state.records.insert(owner.clone(), record);
        Ok(address)
    }

    /// Takes the owner's address back; it rests. `None` where it holds nothing.
    ///
    /// # Errors
    /// The file cannot be written; then the owner keeps the address.
    pub fn release(&self, owner: &Owner) -> Result<Option<Address>, Error> {
        let now = (self.clock)();
        let mut state = self.lock();
        let Some(record) = state.records.get(owner) else { return Ok(None) };
        let resting = record.clone().resting(now);
        state.store.replace(&resting)?;
        state.records.remove(owner);
        Ok(state.allocator.release(owner, now))
    }

    /// Takes back an address that no packet has carried: it is free at once.
    ///
    /// # Errors
    /// The file cannot be removed; then the owner keeps the address.
    pub fn cancel(&self, owner: &Owner) -> Result<(), Error> {
        let mut state = self.lock();
        let Some(record) = state.records.get(owner) else { return Ok(()) };
        state.store.remove(record.address)?;
        state.records.remove(owner);
        state.allocator.cancel(owner);
        Ok(())
    }

    /// Removes the files of addresses that have rested.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn wake(&self) -> Result<(), Error> {
        self.lock().wake((self.clock)())
    }

    /// The owner's record.
    #[must_use]
    pub fn record(&self, owner: &Owner) -> Option<Record> {
        self.lock().records.get(owner).cloned()
    }

    /// All addresses that pods hold.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.values().cloned().collect()
    }

    /// How full the blocks are.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.lock().allocator.usage((self.clock)())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing below leaves the state half changed, so a panic elsewhere does not make it wrong.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&mut self, now: Duration) -> Result<(), Error> {
        self.allocator.wake(now).into_iter().try_for_each(|address| self.store.remove(address))
    }
}

/// Time since boot, sleep included: the same for every process, and it never runs backwards.
#[must_use]
pub fn since_boot() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}
