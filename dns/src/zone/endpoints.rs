//! The endpoints that the slices of a Service name, by label.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::entry::Held;
use super::{PackedSlice, Port};

/// One name below a Service, and what answers there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint<'a> {
    /// Addresses, in order.
    pub addresses: BTreeSet<IpAddr>,
    /// Ports, in order.
    pub ports: BTreeSet<&'a Port>,
}

/// The ready endpoints of a Service. They are put together for each question: a label is looked for in every slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoints<'a> {
    pub(super) slices: &'a [Held],
    /// Whether endpoints without a host name are called as their pods are.
    pub(super) pod_names: bool,
}

impl<'a> Endpoints<'a> {
    /// Whether no endpoint is ready.
    pub(crate) fn is_empty(self) -> bool {
        self.slices().all(PackedSlice::is_empty)
    }

    /// The addresses at a label, in order; none where there is no such label.
    pub(crate) fn addresses(self, label: &str) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> =
            self.slices().flat_map(|slice| slice.find(label, self.pod_names)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What answers at a label.
    pub(crate) fn get(self, label: &str) -> Option<Endpoint<'a>> {
        let mut endpoint = Endpoint::default();
        for slice in self.slices() {
            let mut found = slice.find(label, self.pod_names).peekable();
            if found.peek().is_some() {
                endpoint.addresses.extend(found);
                endpoint.ports.extend(slice.ports());
            }
        }
        (!endpoint.addresses.is_empty()).then_some(endpoint)
    }

    /// All of them, by label.
    pub(crate) fn iter(self) -> impl Iterator<Item = (String, Endpoint<'a>)> {
        let mut all: BTreeMap<String, Endpoint<'a>> = BTreeMap::new();
        for slice in self.slices() {
            for (label, address) in slice.labelled(self.pod_names) {
                let endpoint = all.entry(label).or_default();
                endpoint.addresses.insert(address);
                endpoint.ports.extend(slice.ports());
            }
        }
        all.into_iter()
    }

    /// Where more than `most` of them have a port that is `wanted`: so many and one, and not all that they have.
    pub(crate) fn beyond(
        self,
        most: usize,
        wanted: impl Fn(&Port) -> bool,
    ) -> Option<BTreeMap<String, Endpoint<'a>>> {
        if self.slices().map(PackedSlice::len).sum::<usize>() <= most {
            return None;
        }
        let mut some: BTreeMap<String, Endpoint<'a>> = BTreeMap::new();
        for slice in self.slices().filter(|slice| slice.ports().iter().any(&wanted)) {
            for (label, address) in slice.labelled(self.pod_names) {
                let endpoint = some.entry(label).or_default();
                endpoint.addresses.insert(address);
                endpoint.ports.extend(slice.ports());
                if some.len() > most {
                    return Some(some);
                }
            }
        }
        None
    }

    /// The ports of all of them; one may come twice.
    pub(crate) fn ports(self) -> impl Iterator<Item = &'a Port> {
        self.slices().filter(|slice| !slice.is_empty()).flat_map(PackedSlice::ports)
    }

    /// The labels of an address.
    pub(super) fn labels(self, address: IpAddr) -> impl Iterator<Item = String> {
        self.slices().flat_map(move |slice| slice.labels(address, self.pod_names))
    }

    /// Every address once, in order.
    pub(crate) fn all_addresses(self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = self.slices().flat_map(PackedSlice::addresses).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn slices(self) -> impl Iterator<Item = &'a PackedSlice> {
        self.slices.iter().map(|held| &*held.slice)
    }
}
