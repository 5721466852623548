//! The node's addresses, durable: the allocator of `netkeel-core` with one file an address beside it.
//! An address is written down before anybody uses it, and its file says who it was until it has rested.

mod demand;
pub mod record;
mod store;
#[cfg(test)]
mod tests;
pub mod wishes;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use demand::Demand;
use ipnet::IpNet;
use netkeel_core::{
    address::Address,
    ipam::{Allocator, Ask, Exhausted, Family, Held, Owner, Refused, Releasing, Usage},
};
use record::Record;
use store::Store;
use tokio::sync::Notify;
use wishes::Wishes;

use crate::{bandwidth::Bandwidth, host_port::HostPort, node::NodeWatch};

/// How long a refusal counts: the kubelet tries again within this time as long as it wants the pod.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long a block must have been empty to be idle.
const IDLE: Duration = Duration::from_mins(1);

/// What can go wrong with the node's addresses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address can be given.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The folder of the records cannot be read or written.
    #[error("{verb} {}: the agent must own this folder, and its file system must be writable and have room", path.display())]
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
    /// Ports of the node that lead to the pod.
    pub ports: Vec<HostPort>,
    /// Limits on its rates.
    pub bandwidth: Bandwidth,
}

/// The owner in whose name an address is held that is in use and of which no record is left.
#[must_use]
pub fn unrecorded(address: Address) -> Owner {
    Owner { container_id: format!("unrecorded-{address}"), interface: String::new() }
}

/// Allocations of one node.
#[derive(Debug)]
pub struct Pool {
    state: Mutex<State>,
    clock: fn() -> Duration,
    /// What the API says that pods want.
    pub wishes: Wishes,
    /// Rung when the blocks or what is wanted of them changed.
    pub changed: Notify,
}

#[derive(Debug)]
struct State {
    allocator: Allocator,
    /// What pods hold, IPv4 first.
    records: HashMap<Owner, Vec<Record>>,
    store: Store,
    demand: Demand,
    shortage: Option<Shortage>,
    refusals: u64,
    /// Addresses that are in use without a record are held too.
    complete: bool,
    /// Since when blocks have been empty, since boot.
    empty: HashMap<IpNet, Duration>,
}

/// How full one block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockUse {
    /// The block.
    pub block: IpNet,
    /// Its addresses.
    pub usage: Usage,
    /// It has been empty for a minute.
    pub idle: bool,
}

/// The node had no address for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// When that began, since boot.
    pub since: Duration,
    /// The last time, since boot.
    last: Duration,
    /// The family that ran out.
    family: Family,
    /// Which blocks are full, and by what.
    pub message: String,
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
        let allocator = Allocator::new(Arc::default(), held);
        let mut state = State {
            allocator,
            records: HashMap::new(),
            store,
            demand: Demand::default(),
            shortage: None,
            refusals: 0,
            complete: false,
            empty: HashMap::new(),
        };
        let used = found.into_iter().filter(|record| matches!(record.held(), Held::By(_)));
        used.for_each(|record| state.note(record));
        Ok(Self { state: Mutex::new(state), clock, wishes: Wishes::default(), changed: Notify::new() })
    }

    /// Takes over the pools and blocks that the node has now. Of several that do so at once none brings back what another has
    /// replaced: from a block that was empty a moment ago nothing may be given any more.
    pub fn follow(&self, node: &NodeWatch) {
        let mut state = self.lock();
        let layout = node.borrow().as_ref().map(|node| node.layout.clone());
        if let Some(layout) = layout.filter(|layout| state.allocator.layout() != layout) {
            state.demand.forget(&layout);
            state.allocator.set_layout(layout);
            state.shortage = None;
            self.changed.notify_one();
        }
    }

    /// Gives `owner` one address of each family asked for and writes them down; the same ones as before where it has some.
    /// The result is in the order of `ask.families`.
    ///
    /// # Errors
    /// Nothing left, or a file cannot be written; then nothing is given.
    pub fn allocate(&self, owner: &Owner, ask: &Ask<'_>, details: &Details) -> Result<Vec<Address>, Error> {
        let now = (self.clock)();
        let mut state = self.lock();
        state.wake(now)?;
        let before = state.allocator.addresses_of(owner);
        let given = match state.allocator.allocate(owner, ask, now) {
            Ok(given) => given,
            Err(refused) => {
                let layout = state.allocator.layout().clone();
                if state.demand.note(&layout, ask, &refused, now) {
                    self.changed.notify_one();
                }
                return Err(refused.into());
            }
        };
        state.shortage = state.shortage.take().filter(|shortage| !ask.families.contains(&shortage.family));
        let new: Vec<Address> = given.iter().filter(|address| !before.contains(address)).copied().collect();
        for (written, address) in new.iter().enumerate() {
            let record = Record::used(*address, owner.clone(), details.clone(), now);
            if let Err(error) = state.store.create(&record) {
                state.take_back(owner, &new[..written], &new[written..]);
                return Err(error);
            }
            state.note(record);
        }
        Ok(given)
    }

    /// Holds addresses that are in use though nothing is written down of them, so that nobody is given them. Gives those that are new.
    /// From then on all that is in use is known.
    /// They are freed as all others are: when they have been seen to be unused for long enough.
    pub fn hold(&self, used: impl IntoIterator<Item = Address>) -> Vec<Address> {
        let now = (self.clock)();
        let mut state = self.lock();
        state.complete = true;
        let mut new = Vec::new();
        for address in used {
            let owner = unrecorded(address);
            if !state.allocator.hold(address, &owner) {
                continue;
            }
            let record = Record::used(address, owner, Details::default(), now);
            if let Err(error) = state.store.create(&record) {
                tracing::error!(%address, %error, "an address in use cannot be written down, it is held until the agent ends");
            }
            state.note(record);
            new.push(address);
        }
        new
    }

    /// Whether all that is in use is known: [`Pool::hold`] was called.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lock().complete
    }

    /// Takes all addresses of the owner back; they rest. Empty where it holds nothing.
    ///
    /// # Errors
    /// A file cannot be written; then the owner keeps that address and those after it.
    pub fn release(&self, owner: &Owner) -> Result<Vec<Address>, Error> {
        let now = (self.clock)();
        let mut state = self.lock();
        let mut released = Vec::new();
        for record in state.records_of(owner) {
            let address = record.address;
            state.store.replace(&record.resting(now))?;
            state.forget(owner, address);
            state.allocator.release(address, now);
            released.push(address);
        }
        Ok(released)
    }

    /// Takes back addresses that no packet has carried: they are free at once.
    ///
    /// # Errors
    /// A file cannot be removed; then the owner keeps that address and those after it.
    pub fn cancel(&self, owner: &Owner) -> Result<(), Error> {
        let mut state = self.lock();
        for record in state.records_of(owner) {
            state.cancel(owner, record.address)?;
        }
        Ok(())
    }

    /// Removes the files of addresses that have rested.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn wake(&self) -> Result<(), Error> {
        self.lock().wake((self.clock)())
    }

    /// The owner's first record: of IPv4, where it has such an address.
    #[must_use]
    pub fn record(&self, owner: &Owner) -> Option<Record> {
        self.lock().records.get(owner)?.first().cloned()
    }

    /// All records of the owner, IPv4 first.
    #[must_use]
    pub fn records_of(&self, owner: &Owner) -> Vec<Record> {
        self.lock().records_of(owner)
    }

    /// All addresses that pods hold.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.values().flatten().cloned().collect()
    }

    /// How full the blocks are.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.lock().allocator.usage((self.clock)())
    }

    /// Where pods wait for a block: CIDRs of pools, or single addresses. What nobody has asked for lately is forgotten.
    #[must_use]
    pub fn wanted(&self) -> Vec<IpNet> {
        self.lock().demand.list((self.clock)())
    }

    /// A pod was sent away because no address was free.
    pub fn sent_away(&self, exhausted: &Exhausted) {
        let now = (self.clock)();
        let mut state = self.lock();
        let since = state.shortage.as_ref().map_or(now, |shortage| shortage.since);
        let message = exhausted.to_string();
        state.shortage = Some(Shortage { since, last: now, family: exhausted.family, message });
        state.refusals += 1;
        self.changed.notify_one();
    }

    /// What pods lack: until one gets an address, the node another block, or nobody has asked for a while.
    #[must_use]
    pub fn shortage(&self) -> Option<Shortage> {
        let now = (self.clock)();
        let mut state = self.lock();
        state.shortage =
            state.shortage.take().filter(|shortage| now.saturating_sub(shortage.last) < PATIENCE);
        state.shortage.clone()
    }

    /// How many times a pod was sent away because no address was free.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.lock().refusals
    }

    /// How full each block is.
    #[must_use]
    pub fn usage_by_block(&self) -> Vec<BlockUse> {
        let now = (self.clock)();
        let mut state = self.lock();
        let all = state.allocator.usage_by_block(now);
        let before = std::mem::take(&mut state.empty);
        let use_of = |(block, usage): (IpNet, Usage)| {
            let since = (usage.used + usage.resting == 0).then(|| before.get(&block).copied().unwrap_or(now));
            state.empty.extend(since.map(|since| (block, since)));
            let idle = since.is_some_and(|since| now.saturating_sub(since) >= IDLE);
            BlockUse { block, usage, idle }
        };
        all.into_iter().map(use_of).collect()
    }

    /// The blocks to be given back that are empty. None before it is known what is in use.
    #[must_use]
    pub fn released(&self) -> Vec<Releasing> {
        let state = self.lock();
        if state.complete { state.allocator.released((self.clock)()) } else { Vec::new() }
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

    fn records_of(&self, owner: &Owner) -> Vec<Record> {
        self.records.get(owner).cloned().unwrap_or_default()
    }

    fn note(&mut self, record: Record) {
        let all = self.records.entry(record.owner.clone()).or_default();
        all.push(record);
        all.sort_by_key(|record| record.address.ip());
    }

    fn forget(&mut self, owner: &Owner, address: Address) {
        let Some(all) = self.records.get_mut(owner) else { return };
        all.retain(|record| record.address != address);
        if all.is_empty() {
            self.records.remove(owner);
        }
    }

    fn cancel(&mut self, owner: &Owner, address: Address) -> Result<(), Error> {
        self.store.remove(address)?;
        self.forget(owner, address);
        self.allocator.cancel(address);
        Ok(())
    }

    /// Undoes half an allocation. An address whose file cannot be removed stays the owner's, as the file says.
    fn take_back(&mut self, owner: &Owner, written: &[Address], unwritten: &[Address]) {
        for address in unwritten {
            self.allocator.cancel(*address);
        }
        for address in written {
            if let Err(error) = self.cancel(owner, *address) {
                tracing::error!(%address, %error, "half an allocation stays with its owner");
            }
        }
    }
}

/// Time since boot, sleep included: the same for every process, and it never runs backwards.
#[must_use]
pub fn since_boot() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}
