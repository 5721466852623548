//! What the cluster's Services and endpoints say, as an immutable value: readers hold a snapshot,
//! the one writer applies changes to its own copy and publishes a clone. A change touches the entry of
//! its Service and the addresses that differ, whatever the size of the cluster.

mod endpoints;
mod entry;
mod external;
mod pods;
mod settings;
mod slice;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::serialize::binary::BinEncodable;

pub use endpoints::Endpoint;
pub(crate) use entry::Entry;
pub use entry::{Pointer, Port, Protocol, Service};
pub use external::External;
pub(crate) use pods::Pods;
pub use pods::{Pod, PodKey};
pub use settings::Settings;
pub use slice::{Label, PackedSlice, Slice};

use crate::pairs::Pairs;
use crate::shards::Shards;

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

    /// `namespace/name`.
    fn path(&self) -> Arc<str> {
        format!("{}/{}", self.namespace, self.name).into()
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
    /// By Service (dotted).
    entries: Shards<Arc<str>, Arc<Entry>>,
    /// Which Service (dotted) each slice (`namespace/name`) counted for when it was last seen.
    slice_owners: Shards<Arc<str>, Arc<str>>,
    /// How many Services each namespace has.
    namespaces: Shards<String, u32>,
    /// The Services (dotted) that an address belongs to, as a cluster address or as one of an endpoint.
    pointers: Pairs<IpAddr, Arc<str>>,
    pods: Pods,
    /// The namespaces that exist as objects, with Services or without.
    namespace_objects: Shards<String, ()>,
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
            pointers: Pairs::default(),
            pods: Pods::default(),
            namespace_objects: Shards::default(),
            externals: Shards::default(),
        }
    }

    /// Holds to `settings` from now on; the domain must be the same. Returns whether anything changed.
    pub fn set_settings(&mut self, settings: Settings) -> bool {
        if *self.settings == settings || self.settings.domain != settings.domain {
            return false;
        }
        let concerns_entries = |settings: &Settings| (settings.ttl, settings.endpoint_pod_names);
        if concerns_entries(&settings) != concerns_entries(&self.settings) {
            self.entries.each(|entry| Arc::make_mut(entry).make_ready(&settings));
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
        self.namespace_objects.get(namespace).is_some() || self.namespaces.get(namespace).is_some()
    }

    /// The names that an address points back to, where there are any.
    pub(crate) fn pointers(&self, address: IpAddr) -> Option<BTreeSet<Pointer>> {
        let named = self.pointers.of(&address).iter();
        let entries = named.filter_map(|(_, dotted)| Some((dotted, self.entries.get(dotted)?)));
        let all: BTreeSet<Pointer> =
            entries.flat_map(|(dotted, entry)| entry.pointers(dotted, address)).collect();
        (!all.is_empty()).then_some(all)
    }

    /// What the objects say that the zone is made of: each Service (dotted), where it is there, and its slices by `namespace/name`.
    pub fn objects(
        &self,
    ) -> impl Iterator<Item = (&str, Option<&Service>, impl Iterator<Item = (&str, &PackedSlice)>)> {
        self.entries.iter().map(|(dotted, entry)| (&**dotted, entry.service(), entry.slices()))
    }

    /// Takes note of a namespace. Returns whether that is new.
    pub fn put_namespace(&mut self, name: &str) -> bool {
        let new = self.namespace_objects.get(name).is_none();
        if new {
            self.namespace_objects.insert(name.to_owned(), ());
            self.serial = self.serial.wrapping_add(1);
        }
        new
    }

    /// Forgets a namespace, which is there nevertheless as long as a Service is in it.
    pub fn remove_namespace(&mut self, name: &str) -> bool {
        let known = self.namespace_objects.get(name).is_some();
        if known {
            self.namespace_objects.remove(name);
            self.serial = self.serial.wrapping_add(1);
        }
        known
    }

    /// Makes `names` all the namespaces there are.
    pub fn reset_namespaces(&mut self, names: &BTreeSet<String>) -> bool {
        let known = self.namespace_objects.iter().map(|(name, ())| name);
        let gone: Vec<String> = known.filter(|name| !names.contains(*name)).cloned().collect();
        let mut changed = false;
        for name in &gone {
            changed |= self.remove_namespace(name);
        }
        for name in names {
            changed |= self.put_namespace(name);
        }
        changed
    }

    /// The Services (dotted) that are found from outside.
    pub(crate) fn externals(&self) -> impl Iterator<Item = (&str, &External)> {
        self.externals.iter().map(|(dotted, external)| (dotted.as_str(), external.as_ref()))
    }

    /// The namespaces that exist as objects.
    pub(crate) fn namespace_objects(&self) -> impl Iterator<Item = &str> {
        self.namespace_objects.iter().map(|(name, ())| name.as_str())
    }

    /// Takes a new or changed Service. Returns whether anything changed.
    pub fn put_service(&mut self, key: &ObjectKey, service: Service) -> bool {
        self.change(&key.dotted(), |entry| entry.set_service(Some(service)))
    }

    /// Takes note of a Service that exists and cannot be read: what is known of it stays; a name of
    /// which nothing is known is answered with a failure, not with its absence.
    pub fn put_unreadable_service(&mut self, key: &ObjectKey) -> bool {
        let dotted = key.dotted();
        self.service(&dotted).is_none()
            && self.change(&dotted, |entry| entry.set_service(Some(Service::Unreadable)))
    }

    /// Forgets a Service.
    pub fn remove_service(&mut self, key: &ObjectKey) -> bool {
        self.change(&key.dotted(), |entry| entry.set_service(None))
    }

    /// Takes a new or changed slice of the endpoints of `service`, a Service in the same namespace.
    pub fn put_slice(&mut self, key: &ObjectKey, service: &str, slice: impl Into<PackedSlice>) -> bool {
        let owner = ObjectKey::new(&key.namespace, service).dotted();
        let path = key.path();
        let before = self.slice_owners.get(&*path);
        let moved = before.is_some_and(|before| **before != *owner) && self.remove_path(&path);
        let changed = self.change(&owner, |entry| entry.set_slice(&path, Some(slice.into())));
        if self.slice_owners.get(&*path).is_none() {
            let owner = self.entries.key(&*owner).cloned().unwrap_or_else(|| owner.into());
            self.slice_owners.insert(path, owner);
        }
        changed || moved
    }

    /// Forgets a slice.
    pub fn remove_slice(&mut self, key: &ObjectKey) -> bool {
        self.remove_path(&key.path())
    }

    fn remove_path(&mut self, path: &Arc<str>) -> bool {
        let Some(owner) = self.slice_owners.get(&**path).cloned() else { return false };
        self.slice_owners.remove(&**path);
        self.change(&owner, |entry| entry.set_slice(path, None))
    }

    /// Makes `services` all the Services there are. `unreadable` ones exist too.
    pub fn reset_services(&mut self, services: Vec<(ObjectKey, Service)>, unreadable: &[ObjectKey]) -> bool {
        let exist: BTreeSet<String> =
            services.iter().map(|(key, _)| key).chain(unreadable).map(ObjectKey::dotted).collect();
        let gone: Vec<Arc<str>> = self
            .entries
            .iter()
            .filter(|(dotted, entry)| entry.service().is_some() && !exist.contains(&***dotted))
            .map(|(dotted, _)| dotted.clone())
            .collect();
        let mut changed = false;
        for dotted in gone {
            changed |= self.change(&dotted, |entry| entry.set_service(None));
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
        slices: Vec<(ObjectKey, String, impl Into<PackedSlice>)>,
        unreadable: &[ObjectKey],
    ) -> bool {
        let exist: BTreeSet<Arc<str>> =
            slices.iter().map(|(key, _, _)| key).chain(unreadable).map(ObjectKey::path).collect();
        let known = self.slice_owners.iter().map(|(path, _)| path);
        let gone: Vec<Arc<str>> = known.filter(|path| !exist.contains(*path)).cloned().collect();
        let mut changed = false;
        for path in gone {
            changed |= self.remove_path(&path);
        }
        for (key, service, slice) in slices {
            changed |= self.put_slice(&key, &service, slice);
        }
        changed
    }

    /// The pods that are known; none where none are followed.
    pub(crate) fn pods(&self) -> &Pods {
        &self.pods
    }

    /// Takes a new or changed pod. Returns whether anything changed.
    pub fn put_pod(&mut self, pod: &Pod) -> bool {
        self.pods.put(pod) && self.changed()
    }

    /// Forgets a pod.
    pub fn remove_pod(&mut self, key: PodKey) -> bool {
        self.pods.remove(key) && self.changed()
    }

    /// Makes `pods` all the pods there are. `unreadable` ones stay as they were last seen.
    pub fn reset_pods(&mut self, pods: impl IntoIterator<Item = Pod>, unreadable: &[PodKey]) -> bool {
        self.pods.reset(pods, unreadable);
        self.changed()
    }

    /// Knows of no pods any more, which is not to know that there are none.
    pub fn forget_pods(&mut self) -> bool {
        self.pods = Pods::default();
        self.changed()
    }

    fn changed(&mut self) -> bool {
        self.serial = self.serial.wrapping_add(1);
        true
    }

    /// Everything the zone holds, in order and without its serial: equal for equal zones.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<String, String> {
        let entries = self.entries.iter().map(|(key, entry)| (format!("entry {key}"), format!("{entry:?}")));
        let namespaces =
            self.namespaces.iter().map(|(key, count)| (format!("namespace {key}"), count.to_string()));
        let pointers = self
            .pointers
            .iter()
            .map(|(key, _)| (format!("pointer {key}"), format!("{:?}", self.pointers(*key))));
        let owners = self.slice_owners.iter().map(|(key, owner)| (format!("slice {key}"), owner.to_string()));
        let objects = self.namespace_objects.iter().map(|(key, ())| (format!("object {key}"), String::new()));
        let externals =
            self.externals.iter().map(|(key, found)| (format!("external {key}"), format!("{found:?}")));
        entries.chain(namespaces).chain(objects).chain(pointers).chain(owners).chain(externals).collect()
    }

    fn change(&mut self, dotted: &str, edit: impl FnOnce(&mut Entry) -> bool) -> bool {
        let before = self.entries.get(dotted).cloned().unwrap_or_default();
        let mut after = Entry::clone(&before);
        if !edit(&mut after) {
            return false;
        }
        after.make_ready(&self.settings);
        self.serial = self.serial.wrapping_add(1);
        self.count(dotted, before.service().is_some(), after.service().is_some());
        let name = self.entries.key(dotted).cloned().unwrap_or_else(|| dotted.into());
        self.repoint(&name, &before.pointed(), &after.pointed());
        if after.is_empty() {
            self.entries.remove(dotted);
        } else {
            self.entries.insert(name, Arc::new(after));
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

    /// Both in order.
    fn repoint(&mut self, name: &Arc<str>, before: &[IpAddr], after: &[IpAddr]) {
        for address in before.iter().filter(|address| after.binary_search(address).is_err()) {
            self.pointers.remove(address, name);
        }
        for address in after.iter().filter(|address| before.binary_search(address).is_err()) {
            self.pointers.insert(*address, name.clone());
        }
    }
}

#[cfg(test)]
mod tests;
