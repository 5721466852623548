//! The maps in memory, read as the programs in the kernel read them, after every single write.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard},
};

use netkeel_core::address::Address;
use netkeel_dataplane_common::{
    endpoints::Endpoint,
    identities::{ANY, WORLD},
    links::Link,
    policies::{ALLOW, CLOSED, Match, OPEN, Traffic, Verdict},
    tunnels::Block,
};
use netkeel_dataplane_loader::{FakeTable, Table, TableError};

use super::super::maps::Maps;

/// Direction, the pod's address, the other's address, and whether traffic passes, for every combination that is looked at.
pub(crate) type Passes = Vec<bool>;

/// What is looked at after each write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probes {
    pub(crate) pods: Vec<Address>,
    pub(crate) others: Vec<Address>,
    pub(crate) ports: Vec<(u8, u16)>,
}

/// All maps.
pub(crate) struct Kernel {
    pub(crate) identities: FakeTable<Address, u32>,
    pub(crate) cidrs: FakeTable<Block, u32>,
    pub(crate) policies: FakeTable<Match, Verdict>,
    pub(crate) endpoints: FakeTable<Address, Endpoint>,
    pub(crate) links: FakeTable<u32, Link>,
    pub(crate) epoch: FakeTable<u32, u32>,
    pub(crate) probes: Probes,
    /// What passed after each write.
    pub(crate) history: Vec<Passes>,
    /// Writes that the agent lives to do.
    life: usize,
}

/// The maps, shared with a test that looks on.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Kernel>>);

struct Part<K, V> {
    kernel: Shared,
    table: fn(&mut Kernel) -> &mut FakeTable<K, V>,
}

impl Shared {
    /// Maps with room for so many entries of policies and leaves.
    pub(crate) fn new(entries: u32, leaves: u32, probes: Probes) -> Self {
        Self(Arc::new(Mutex::new(Kernel {
            identities: FakeTable::new("IDENTITIES"),
            cidrs: FakeTable::with_capacity("CIDRS", leaves),
            policies: FakeTable::with_capacity("POLICIES", entries),
            endpoints: FakeTable::new("ENDPOINTS"),
            links: FakeTable::new("LINKS"),
            epoch: FakeTable::new("EPOCH"),
            probes,
            history: Vec::new(),
            life: usize::MAX,
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Kernel> {
        self.0.lock().unwrap()
    }

    pub(crate) fn maps(&self) -> Maps {
        Maps {
            identities: self.part(|kernel| &mut kernel.identities),
            cidrs: self.part(|kernel| &mut kernel.cidrs),
            policies: self.part(|kernel| &mut kernel.policies),
            endpoints: self.part(|kernel| &mut kernel.endpoints),
            links: self.part(|kernel| &mut kernel.links),
            epoch: self.part(|kernel| &mut kernel.epoch),
        }
    }

    fn part<K: Clone + Eq + Hash + 'static, V: Clone + 'static>(
        &self,
        table: fn(&mut Kernel) -> &mut FakeTable<K, V>,
    ) -> Box<dyn Table<K, V> + Send> {
        Box::new(Part { kernel: self.clone(), table })
    }

    pub(crate) fn writes(&self) -> usize {
        self.lock().history.len()
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Table<K, V> for Part<K, V> {
    fn dump(&self) -> Result<HashMap<K, V>, TableError> {
        (self.table)(&mut self.kernel.lock()).dump()
    }

    fn get(&self, key: &K) -> Result<Option<V>, TableError> {
        (self.table)(&mut self.kernel.lock()).get(key)
    }

    fn put(&mut self, key: &K, value: &V) -> Result<(), TableError> {
        let mut kernel = self.kernel.lock();
        kernel.live()?;
        (self.table)(&mut kernel).put(key, value)?;
        kernel.look();
        Ok(())
    }

    fn remove(&mut self, key: &K) -> Result<(), TableError> {
        let mut kernel = self.kernel.lock();
        kernel.live()?;
        (self.table)(&mut kernel).remove(key)?;
        kernel.look();
        Ok(())
    }
}

impl Kernel {
    fn look(&mut self) {
        let passes = self.passes();
        self.history.push(passes);
    }

    /// The agent's writes have no effect any more after so many.
    pub(crate) fn dies_after(&mut self, writes: usize) {
        self.life = writes;
    }

    fn live(&mut self) -> Result<(), TableError> {
        let left = self.life.checked_sub(1);
        self.life = left.unwrap_or(0);
        let dead = || TableError::Write { table: "ANY", source: std::io::Error::other("the agent is dead") };
        left.map(drop).ok_or_else(dead)
    }

    /// What passes now.
    pub(crate) fn passes(&self) -> Passes {
        let Probes { pods, others, ports } = &self.probes;
        let tables = pods.iter().flat_map(|pod| [self.ingress(*pod), self.egress(*pod)]);
        let traffic = tables.flat_map(|table| others.iter().map(move |other| (table, *other)));
        traffic
            .flat_map(|(table, other)| ports.iter().map(move |port| (table, other, *port)))
            .map(|(table, other, (protocol, port))| self.allows(table, other, protocol, port))
            .collect()
    }

    pub(crate) fn ingress(&self, pod: Address) -> u32 {
        self.endpoints.entries().get(&pod).map_or(CLOSED, |endpoint| endpoint.ingress)
    }

    pub(crate) fn egress(&self, pod: Address) -> u32 {
        let endpoint = self.endpoints.entries().get(&pod);
        let link = endpoint.and_then(|endpoint| self.links.entries().get(&endpoint.side.ifindex()));
        link.filter(|link| link.owns(&pod)).map_or(CLOSED, |link| link.egress)
    }

    /// Whether TCP to port 80 comes in.
    pub(crate) fn lets_in(&self, pod: Address, from: Address) -> bool {
        self.allows(self.ingress(pod), from, 6, 80)
    }

    fn allows(&self, table: u32, other: Address, protocol: u8, port: u16) -> bool {
        match table {
            CLOSED => false,
            OPEN => true,
            table => [self.identity(other), ANY]
                .into_iter()
                .any(|identity| self.longest(Traffic::from_wire(table, identity, protocol, port.to_be()))),
        }
    }

    fn identity(&self, address: Address) -> u32 {
        let bits = |address: Address| u128::from_be_bytes(address.0);
        let around = |block: &Block| {
            let behind = 128 - block.prefix_len;
            (bits(address) ^ bits(block.address)).checked_shr(behind).unwrap_or(0) == 0
        };
        let leaf = self.cidrs.entries().iter().filter(|(block, _)| around(block));
        let leaf = leaf.max_by_key(|(block, _)| block.prefix_len).map(|(_, identity)| *identity);
        self.identities.entries().get(&address).copied().or(leaf).unwrap_or(WORLD)
    }

    fn longest(&self, traffic: Traffic) -> bool {
        let matches = |entry: &Match| {
            let there = entry.traffic;
            let head = (there.table, there.identity) == (traffic.table, traffic.identity);
            let protocol = entry.prefix_len < 80 || there.protocol == traffic.protocol;
            let bits = entry.prefix_len.saturating_sub(80);
            let mask = u16::MAX.checked_shl(16 - bits).unwrap_or(0);
            head && protocol && (u16::from_be(there.port) ^ u16::from_be(traffic.port)) & mask == 0
        };
        let found = self.policies.entries().iter().filter(|(entry, _)| matches(entry));
        let found = found.max_by_key(|(entry, _)| entry.prefix_len);
        found.is_some_and(|(_, verdict)| verdict.action == ALLOW)
    }
}
