//! Services and their slices, joined.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::api::{core::v1::Service as ServiceObject, discovery::v1::EndpointSlice};
use netkeel_core::{
    address::Address,
    name::ObjectName,
    service::{
        Backend, Protocol, Service, Slice,
        endpoints::{Frontends, frontends, preferred},
    },
};

use crate::{Invalid, Problems, convert};

const SERVICE: &str = "Service";
const SLICE: &str = "EndpointSlice";

/// The Services whose meaning may have changed, by name.
pub type Changed = BTreeSet<ObjectName>;

/// A slice that was read: a tenth of the object's size, so that of many only this need be kept.
#[derive(Clone, Debug)]
pub struct SeenSlice {
    /// Namespace and name.
    pub name: ObjectName,
    /// What it says: see [`convert::slice`].
    pub slice: Result<Option<Slice>, Invalid>,
}

impl SeenSlice {
    /// Reads a slice on the node of this name.
    #[must_use]
    pub fn read(object: &EndpointSlice, own_node: &str) -> Self {
        Self { name: convert::name(&object.metadata), slice: convert::slice(object, own_node) }
    }
}

/// All Services and slices, by name. Every change answers which Services it concerns; an object sent again unchanged concerns none.
#[derive(Debug, Default)]
pub struct Services {
    by_name: HashMap<ObjectName, Service>,
    slices: HashMap<ObjectName, Slice>,
    slices_of_service: HashMap<ObjectName, BTreeSet<ObjectName>>,
    /// Addresses of endpoints that do not answer, by Service.
    silent: HashMap<ObjectName, BTreeSet<Address>>,
    problems: Problems,
}

impl Services {
    /// A Service was made or changed.
    pub fn apply_service(&mut self, object: &ServiceObject) -> Changed {
        let name = convert::name(&object.metadata);
        match convert::service(object) {
            Ok(service) => {
                self.problems.clear(SERVICE, &name);
                let same = self.by_name.insert(name.clone(), service.clone()).as_ref() == Some(&service);
                if same { Changed::new() } else { Changed::from([name]) }
            }
            Err(invalid) => {
                self.problems.add(invalid);
                Changed::new()
            }
        }
    }

    /// A Service is gone.
    pub fn delete_service(&mut self, name: &ObjectName) -> Changed {
        self.problems.clear(SERVICE, name);
        self.by_name.remove(name).map(|service| service.name).into_iter().collect()
    }

    /// These are all Services that there are. `unread` are names of Services that exist but could not be decoded.
    pub fn reset_services(&mut self, objects: &[ServiceObject], unread: &[ObjectName]) -> Changed {
        let mut present: BTreeSet<_> = objects.iter().map(|object| convert::name(&object.metadata)).collect();
        present.extend(unread.iter().cloned());
        self.problems.retain(SERVICE, |name| present.contains(name));
        let gone: Vec<_> = self.by_name.keys().filter(|name| !present.contains(name)).cloned().collect();
        let mut changed: Changed = gone.iter().flat_map(|name| self.delete_service(name)).collect();
        changed.extend(objects.iter().flat_map(|object| self.apply_service(object)));
        changed
    }

    /// A slice was made or changed.
    pub fn apply_slice(&mut self, SeenSlice { name, slice }: SeenSlice) -> Changed {
        match slice {
            Ok(Some(slice)) => self.put_slice(slice),
            // The label that joined it to a Service may have been taken off.
            Ok(None) => self.delete_slice(&name),
            Err(invalid) => {
                self.problems.add(invalid);
                Changed::new()
            }
        }
    }

    /// A slice is gone.
    pub fn delete_slice(&mut self, name: &ObjectName) -> Changed {
        self.problems.clear(SLICE, name);
        let Some(slice) = self.slices.remove(name) else { return Changed::new() };
        if let Some(slices) = self.slices_of_service.get_mut(&slice.service) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices_of_service.remove(&slice.service);
            }
        }
        Changed::from([slice.service])
    }

    /// These are all slices that there are. `unread` are names of slices that exist but could not be decoded.
    pub fn reset_slices(&mut self, read: Vec<SeenSlice>, unread: &[ObjectName]) -> Changed {
        let mut present: BTreeSet<_> = read.iter().map(|slice| slice.name.clone()).collect();
        present.extend(unread.iter().cloned());
        self.problems.retain(SLICE, |name| present.contains(name));
        let gone: Vec<_> = self.slices.keys().filter(|name| !present.contains(name)).cloned().collect();
        let mut changed: Changed = gone.iter().flat_map(|name| self.delete_slice(name)).collect();
        changed.extend(read.into_iter().flat_map(|slice| self.apply_slice(slice)));
        changed
    }

    /// An object could not be decoded: what was known of it stays in force.
    pub fn undecodable(&mut self, invalid: Invalid) {
        self.problems.add(invalid);
    }

    /// What a Service means for the data path; nothing when there is no such Service.
    #[must_use]
    pub fn frontends(&self, name: &ObjectName) -> Frontends {
        const NONE: &BTreeSet<Address> = &BTreeSet::new();
        let silent = self.silent.get(name).unwrap_or(NONE);
        self.by_name.get(name).map(|s| frontends(s, &self.slices_of(name), silent)).unwrap_or_default()
    }

    /// These endpoints of a Service, and no others, were found not to answer.
    pub fn set_silent(&mut self, name: &ObjectName, silent: &BTreeSet<Address>) -> Changed {
        let before = if silent.is_empty() {
            self.silent.remove(name).unwrap_or_default()
        } else {
            self.silent.insert(name.clone(), silent.clone()).unwrap_or_default()
        };
        if before == *silent { Changed::new() } else { Changed::from([name.clone()]) }
    }

    /// The ready endpoints of a Service that clients of this node are served by before all others, whether they answer or not.
    #[must_use]
    pub fn preferred(&self, name: &ObjectName, protocol: Protocol) -> BTreeSet<Backend> {
        self.by_name.get(name).map(|s| preferred(s, &self.slices_of(name), protocol)).unwrap_or_default()
    }

    /// A Service by name.
    #[must_use]
    pub fn get(&self, name: &ObjectName) -> Option<&Service> {
        self.by_name.get(name)
    }

    /// All Services, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.by_name.values()
    }

    /// The slices of a Service, whether it exists or not.
    pub fn slices_of(&self, name: &ObjectName) -> impl Iterator<Item = &Slice> + Clone {
        self.slices_of_service.get(name).into_iter().flatten().filter_map(|slice| self.slices.get(slice))
    }

    /// The objects that cannot be used now.
    #[must_use]
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    fn put_slice(&mut self, slice: Slice) -> Changed {
        self.problems.clear(SLICE, &slice.name);
        let old = self.slices.insert(slice.name.clone(), slice.clone());
        if old.as_ref() == Some(&slice) {
            return Changed::new();
        }
        let mut changed = Changed::from([slice.service.clone()]);
        if let Some(old) = old.filter(|old| old.service != slice.service) {
            self.slices_of_service.entry(old.service.clone()).or_default().remove(&slice.name);
            changed.insert(old.service);
        }
        self.slices_of_service.entry(slice.service).or_default().insert(slice.name);
        changed
    }
}

#[cfg(test)]
mod tests;
