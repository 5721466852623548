//! What the cluster's Services and endpoints say, as an immutable value: readers hold a snapshot,
//! the one writer applies changes to its own copy and publishes a clone. A change touches the entry of
//! its Service and the addresses that differ, whatever the size of the cluster.

mod entry;
mod external;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::BinEncodable;
use ipnet::IpNet;

pub(crate) use entry::Entry;
pub use entry::{Endpoint, Pointer, Port, Protocol, Service, Slice};
pub use external::External;

use crate::shards::Shards;

/// What the zone is told and no object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster domain, fully qualified.
    pub domain: Name,
    /// Time to live of answers, in seconds.
    pub ttl: u32,
    /// `name.namespace` of the Service in front of the DNS servers, lower case.
    pub dns_service: String,
    /// Ranges of Services whose reverse names are never asked elsewhere.
    pub service_ranges: Vec<IpNet>,
    /// Those of pods.
    pub pod_ranges: Vec<IpNet>,
}

impl Settings {
    /// Whether the address can only be one of the cluster's.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.service_ranges.iter().chain(&self.pod_ranges).any(|range| range.contains(&address))
    }
}

/// Identifies a Service or EndpointSlice: namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: String,
    /// Name within the namespace.
    pub name: String,
}

impl ObjectKey {
    /// The key of `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// `name.namespace`, as names in the zone end before `svc`.
    #[must_use]
    pub fn dotted(&self) -> String {
        format!("{}.{}", self.name, self.namespace).to_ascii_lowercase()
    }
}

/// The names of the cluster.
#[derive(Clone, Debug)]
pub struct Zone {
    settings: Arc<Settings>,
    /// The cluster domain as it is in packets, lower case.
    domain: Arc<[u8]>,
    /// Grows with every change; the serial number of the SOA record.
    serial: u32,
    services: usize,
    entries: Shards<String, Arc<Entry>>,
    /// Which Service (dotted) each slice counted for when it was last seen.
    slice_owners: Shards<ObjectKey, String>,
    /// How many Services each namespace has.
    namespaces: Shards<String, u32>,
    pointers: Shards<IpAddr, Arc<BTreeSet<Pointer>>>,
    /// By Service (dotted).
    externals: Shards<String, Arc<External>>,
}

impl Zone {
    /// A zone without Services. `serial` is where its SOA serial starts: take the time in seconds.
    #[must_use]
    pub fn new(settings: Settings, serial: u32) -> Self {
        let domain = settings.domain.to_lowercase().to_bytes().unwrap_or_default();
        Self {
            settings: Arc::new(settings),
            domain: domain.into(),
            serial,
            services: 0,
            entries: Shards::default(),
            slice_owners: Shards::default(),
            namespaces: Shards::default(),
            pointers: Shards::default(),
            externals: Shards::default(),
        }
    }

    /// Holds to `settings` from now on; the domain must be the same. Returns whether anything changed.
    pub fn set_settings(&mut self, settings: Settings) -> bool {
        if *self.settings == settings || self.settings.domain != settings.domain {
            return false;
        }
        let ttl = settings.ttl;
        if ttl != self.settings.ttl {
            self.entries.each(|entry| Arc::make_mut(entry).make_ready(ttl));
        }
        self.settings = Arc::new(settings);
        self.serial = self.serial.wrapping_add(1);
        true
    }

    /// What the zone is told.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The cluster domain as it is in packets, lower case.
    pub(crate) fn domain(&self) -> &[u8] {
        &self.domain
    }

    /// The current SOA serial.
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Number of Services known.
    #[must_use]
    pub fn services(&self) -> usize {
        self.services
    }

    /// The addresses of the Service in front of the DNS servers, as far as they are known.
    #[must_use]
    pub fn dns_addresses(&self) -> &[IpAddr] {
        match self.service(&self.settings.dns_service).and_then(|entry| entry.service()) {
            Some(Service::ClusterIp { addresses, .. }) => addresses,
            _ => &[],
        }
    }

    pub(crate) fn service(&self, dotted: &str) -> Option<&Entry> {
        self.entries.get(dotted).map(Arc::as_ref).filter(|entry| entry.service().is_some())
    }

    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some()
    }

    pub(crate) fn pointers(&self, address: IpAddr) -> Option<&BTreeSet<Pointer>> {
        self.pointers.get(&address).map(Arc::as_ref)
    }

    /// Takes a new or changed Service. Returns whether anything changed.
    pub fn put_service(&mut self, key: &ObjectKey, service: Service) -> bool {
        self.change(key.dotted(), |entry| entry.set_service(Some(service)))
    }

    /// Takes note of a Service that exists and cannot be read: what is known of it stays; a name of
    /// which nothing is known is answered with a failure, not with its absence.
    pub fn put_unreadable_service(&mut self, key: &ObjectKey) -> bool {
        let dotted = key.dotted();
        self.service(&dotted).is_none()
            && self.change(dotted, |entry| entry.set_service(Some(Service::Unreadable)))
    }

    /// Forgets a Service.
    pub fn remove_service(&mut self, key: &ObjectKey) -> bool {
        self.change(key.dotted(), |entry| entry.set_service(None))
    }

    /// Takes a new or changed slice of the endpoints of `service`, a Service in the same namespace.
    pub fn put_slice(&mut self, key: &ObjectKey, service: &str, slice: Slice) -> bool {
        let owner = ObjectKey::new(&key.namespace, service).dotted();
        let moved =
            self.slice_owners.get(key).is_some_and(|before| *before != owner) && self.remove_slice(key);
        self.slice_owners.insert(key.clone(), owner.clone());
        self.change(owner, |entry| entry.set_slice(&key.name, Some(slice))) || moved
    }

    /// Forgets a slice.
    pub fn remove_slice(&mut self, key: &ObjectKey) -> bool {
        let Some(owner) = self.slice_owners.get(key).cloned() else { return false };
        self.slice_owners.remove(key);
        self.change(owner, |entry| entry.set_slice(&key.name, None))
    }

    /// Makes `services` all the Services there are. `unreadable` ones exist too.
    pub fn reset_services(&mut self, services: Vec<(ObjectKey, Service)>, unreadable: &[ObjectKey]) -> bool {
        let exist: BTreeSet<String> =
            services.iter().map(|(key, _)| key).chain(unreadable).map(ObjectKey::dotted).collect();
        let gone: Vec<String> = self
            .entries
            .iter()
            .filter(|(dotted, entry)| entry.service().is_some() && !exist.contains(*dotted))
            .map(|(dotted, _)| dotted.clone())
            .collect();
        let mut changed = false;
        for dotted in gone {
            changed |= self.change(dotted, |entry| entry.set_service(None));
        }
        for (key, service) in services {
            changed |= self.put_service(&key, service);
        }
        unreadable.iter().fold(changed, |changed, key| self.put_unreadable_service(key) || changed)
    }

    /// Makes `slices` all the slices there are; the string names their Service. `unreadable` ones stay
    /// as they were last seen.
    pub fn reset_slices(
        &mut self,
        slices: Vec<(ObjectKey, String, Slice)>,
        unreadable: &[ObjectKey],
    ) -> bool {
        let exist: BTreeSet<&ObjectKey> = slices.iter().map(|(key, _, _)| key).chain(unreadable).collect();
        let gone: Vec<ObjectKey> = self
            .slice_owners
            .iter()
            .map(|(key, _)| key)
            .filter(|key| !exist.contains(key))
            .cloned()
            .collect();
        let mut changed = false;
        for key in gone {
            changed |= self.remove_slice(&key);
        }
        for (key, service, slice) in slices {
            changed |= self.put_slice(&key, &service, slice);
        }
        changed
    }

    /// Everything the zone holds, in order and without its serial: equal for equal zones.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<String, String> {
        let entries = self.entries.iter().map(|(key, entry)| (format!("entry {key}"), format!("{entry:?}")));
        let namespaces =
            self.namespaces.iter().map(|(key, count)| (format!("namespace {key}"), count.to_string()));
        let pointers = self.pointers.iter().map(|(key, set)| (format!("pointer {key}"), format!("{set:?}")));
        let owners = self.slice_owners.iter().map(|(key, owner)| (format!("slice {key:?}"), owner.clone()));
        let externals =
            self.externals.iter().map(|(key, found)| (format!("external {key}"), format!("{found:?}")));
        entries.chain(namespaces).chain(pointers).chain(owners).chain(externals).collect()
    }

    fn change(&mut self, dotted: String, edit: impl FnOnce(&mut Entry) -> bool) -> bool {
        let before = self.entries.get(&dotted).cloned().unwrap_or_default();
        let mut after = Entry::clone(&before);
        if !edit(&mut after) {
            return false;
        }
        after.make_ready(self.settings.ttl);
        self.serial = self.serial.wrapping_add(1);
        self.count(&dotted, before.service().is_some(), after.service().is_some());
        self.repoint(&before.pointers(&dotted), &after.pointers(&dotted));
        if after.is_empty() {
            self.entries.remove(&dotted);
        } else {
            self.entries.insert(dotted, Arc::new(after));
        }
        true
    }

    fn count(&mut self, dotted: &str, before: bool, after: bool) {
        let Some((_, namespace)) = dotted.split_once('.') else { return };
        let count = self.namespaces.get(namespace).copied().unwrap_or(0);
        match (before, after, count) {
            (false, true, _) => self.namespaces.insert(namespace.to_owned(), count + 1),
            (true, false, ..=1) => self.namespaces.remove(namespace),
            (true, false, _) => self.namespaces.insert(namespace.to_owned(), count - 1),
            _ => return,
        }
        self.services = if after { self.services + 1 } else { self.services - 1 };
    }

    fn repoint(&mut self, before: &BTreeSet<(IpAddr, Pointer)>, after: &BTreeSet<(IpAddr, Pointer)>) {
        for (address, pointer) in before.difference(after) {
            let mut set = self.pointers.get(address).cloned().unwrap_or_default();
            Arc::make_mut(&mut set).remove(pointer);
            if set.is_empty() {
                self.pointers.remove(address);
            } else {
                self.pointers.insert(*address, set);
            }
        }
        for (address, pointer) in after.difference(before) {
            let mut set = self.pointers.get(address).cloned().unwrap_or_default();
            Arc::make_mut(&mut set).insert(pointer.clone());
            self.pointers.insert(*address, set);
        }
    }
}

#[cfg(test)]
mod tests;
