//! What one interface holds: its addresses, which the node's allocations keep one by one, taken together. Values only.

use std::collections::{BTreeMap, HashMap};

use netkeel_core::{address::Addresses, ipam::Owner};

use super::{datapath::PodLink, server::datapath_link};
use crate::{
    bandwidth::Bandwidth,
    ipam::record::Record,
    link::veth::{PodVeth, seen},
    policy::PodRef,
};

/// An interface and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    /// Whose it is.
    pub(super) owner: Owner,
    /// The pod, as far as it is known.
    pub(super) pod: PodRef,
    /// What it holds, one address at least.
    pub(super) addresses: Addresses,
    /// Limits on its rates.
    pub(super) bandwidth: Bandwidth,
}

impl Holding {
    /// What records of one owner say; `None` without any.
    pub(super) fn of(records: &[Record]) -> Option<Self> {
        let first = records.first()?;
        let addresses = Addresses::of(records.iter().map(|record| record.address.ip()));
        let bandwidth = first.details.bandwidth;
        Some(Self { owner: first.owner.clone(), pod: first.pod(), addresses, bandwidth })
    }

    /// What records of many owners say, in the order of their owners.
    pub(super) fn all(records: &[Record]) -> Vec<Self> {
        let mut owners: BTreeMap<_, Vec<Record>> = BTreeMap::new();
        for record in records {
            let owner = (&record.owner.container_id, &record.owner.interface);
            owners.entry(owner).or_default().push(record.clone());
        }
        owners.values().filter_map(|records| Self::of(records)).collect()
    }

    /// Its link as ADD makes it; the MTU is not kept.
    pub(super) fn veth(&self) -> PodVeth {
        PodVeth { bandwidth: self.bandwidth, ..PodVeth::new(&self.owner, self.addresses, 0) }
    }

    /// Its link in the tables, where it has one.
    pub(super) fn link(&self, links: &HashMap<String, seen::Link>) -> Option<PodLink> {
        let veth = self.veth();
        links.get(&veth.host_name).map(|link| datapath_link(&veth, link.index, self.pod.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ipam::Details;

    fn record(container: &str, address: &str) -> Record {
        Record {
            address: address.parse::<std::net::IpAddr>().unwrap().into(),
            owner: Owner { container_id: container.to_owned(), interface: "eth0".to_owned() },
            details: Details::default(),
            since: Duration::ZERO,
            freed: None,
        }
    }

    #[test]
    fn the_addresses_of_an_interface_are_one_holding() {
        let records = [record("b", "fd00::2"), record("a", "10.0.0.1"), record("b", "10.0.0.2")];
        let all = Holding::all(&records);
        let texts: Vec<_> =
            all.iter().map(|held| format!("{} {}", held.owner.container_id, held.addresses)).collect();
        assert_eq!(texts, ["a 10.0.0.1", "b 10.0.0.2, fd00::2"]);
        assert_eq!(Holding::of(&[]), None);
    }
}
