//! The maps of policy, in the kernel or in memory.

use netkeel_core::address::Address;
use netkeel_dataplane_common::{
    endpoints::Endpoint,
    links::Link,
    policies::{Match, Verdict},
    tunnels::Block,
};
use netkeel_dataplane_loader::{Datapath, Error, Table};

/// A map, whatever it is made of.
pub type Map<K, V> = Box<dyn Table<K, V> + Send>;

/// The maps that policy is in.
pub struct Maps {
    /// Who has an address.
    pub identities: Map<Address, u32>,
    /// Leaves of CIDRs.
    pub cidrs: Map<Block, u32>,
    /// Entries of all tables.
    pub policies: Map<Match, Verdict>,
    /// Pods of the node, with their tables of ingress.
    pub endpoints: Map<Address, Endpoint>,
    /// Links of pods, with their tables of egress.
    pub links: Map<u32, Link>,
    /// The epoch, at key 0.
    pub epoch: Map<u32, u32>,
}

impl Maps {
    /// Those of the loaded programs.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn of(datapath: &Datapath) -> Result<Self, Error> {
        Ok(Self {
            identities: Box::new(datapath.identities()?),
            cidrs: Box::new(datapath.cidrs()?),
            policies: Box::new(datapath.policies()?),
            endpoints: Box::new(datapath.endpoints()?),
            links: Box::new(datapath.links()?),
            epoch: Box::new(datapath.epoch()?),
        })
    }
}
