//! What a Service and its slices mean for the data path: frontends, and the backends of each.

use std::collections::{BTreeMap, BTreeSet};

use super::{Backend, Endpoint, Frontend, Port, Protocol, Reach, Service, Slice, SlicePort};
use crate::address::Address;

/// Every frontend of a Service with the backends that take its connections; a frontend without any refuses them.
pub type Frontends = BTreeMap<Frontend, BTreeSet<Backend>>;

/// The frontends of a Service. A Service that the data path ignores has none. Endpoints with a `silent` address are said to be ready
/// and do not answer: others are taken while there are any.
pub fn frontends<'a>(
    service: &Service,
    slices: &(impl Iterator<Item = &'a Slice> + Clone),
    silent: &BTreeSet<Address>,
) -> Frontends {
    let Reach::Cluster(addresses) = &service.reach else { return Frontends::new() };
    let mut frontends = Frontends::new();
    for port in service.ports.iter().filter(|_| service.proxied) {
        for &address in addresses {
            let frontend = Frontend::new(address, port.number, port.protocol);
            let found = Found::of(port, address.is_v4(), slices.clone());
            let backends = found.usable(service.prefers_own_node, silent);
            frontends.entry(frontend).or_default().extend(backends);
        }
    }
    frontends
}

/// The ready backends of one protocol that clients of this node are served by before all others, whether they answer or not.
pub fn preferred<'a>(
    service: &Service,
    slices: &(impl Iterator<Item = &'a Slice> + Clone),
    protocol: Protocol,
) -> BTreeSet<Backend> {
    let Reach::Cluster(addresses) = &service.reach else { return BTreeSet::new() };
    let ports = service.ports.iter().filter(|port| service.proxied && port.protocol == protocol);
    let pairs = ports.flat_map(|port| addresses.iter().map(move |address| (port, address.is_v4())));
    let found = pairs.map(|(port, v4)| Found::of(port, v4, slices.clone()));
    found.filter(|found| found.prefers(service.prefers_own_node)).flat_map(|found| found.own).collect()
}

/// The backends of one port and one family over all slices.
struct Found {
    ready: BTreeSet<Backend>,
    /// Those of the ready ones that are for this node.
    own: BTreeSet<Backend>,
    /// Those that terminate but still serve.
    leaving: BTreeSet<Backend>,
    /// Every ready one is for certain nodes.
    hinted: bool,
}

impl Found {
    /// A slice has addresses of one family. An endpoint that is moved from slice to slice is in both for a moment and counts once.
    fn of<'a>(port: &Port, v4: bool, slices: impl Iterator<Item = &'a Slice>) -> Self {
        let mut found =
            Self { ready: BTreeSet::new(), own: BTreeSet::new(), leaving: BTreeSet::new(), hinted: true };
        for slice in slices.filter(|slice| slice.proxied) {
            let is_port = |p: &&SlicePort| p.name == port.name && p.protocol == port.protocol;
            for slice_port in slice.ports.iter().filter(is_port) {
                for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.address.is_v4() == v4) {
                    found.add(endpoint, slice_port.number);
                }
            }
        }
        found
    }

    fn add(&mut self, endpoint: &Endpoint, port: u16) {
        let backend = Backend::new(endpoint.address, port);
        if endpoint.ready {
            self.ready.insert(backend);
            self.hinted &= endpoint.place.is_hinted();
            if endpoint.place.is_here() {
                self.own.insert(backend);
            }
        } else if endpoint.serving && endpoint.terminating {
            self.leaving.insert(backend);
        }
    }

    /// Whether this node's come first: the Service says so, or the slices do of every ready endpoint, as kube-proxy has it.
    fn prefers(&self, service: bool) -> bool {
        service || self.hinted
    }

    /// Those that take connections: this node's where they come first, then all that answer, then all that are ready, then those that
    /// terminate but still serve.
    fn usable(self, prefers_own_node: bool, silent: &BTreeSet<Address>) -> BTreeSet<Backend> {
        let answering = |backends: &BTreeSet<Backend>| -> BTreeSet<Backend> {
            backends.iter().filter(|backend| !silent.contains(&backend.address)).copied().collect()
        };
        if self.prefers(prefers_own_node) {
            let own = answering(&self.own);
            if !own.is_empty() {
                return own;
            }
        }
        let all = answering(&self.ready);
        [all, self.ready, self.leaving].into_iter().find(|backends| !backends.is_empty()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
