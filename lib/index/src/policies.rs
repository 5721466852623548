//! Pods, namespaces and policies, and what they mean to this node.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Namespace as NamespaceObject, Pod as PodObject},
    networking::v1::NetworkPolicy,
};
use netkeel_core::{
    address::Address,
    name::ObjectName,
    policy::{Compiled, Numbers, Pod, Policy, World, compile},
};

use crate::{Invalid, Problems, convert, convert::policy::Unsupported};

/// Kind of an [`Invalid`] pod.
pub const POD: &str = "Pod";
/// Kind of an [`Invalid`] namespace.
pub const NAMESPACE: &str = "Namespace";
/// Kind of an [`Invalid`] policy.
pub const POLICY: &str = "NetworkPolicy";

/// All pods, namespaces and policies, and the addresses of the nodes. A change answers whether it may mean something new for the kernel.
#[derive(Debug)]
pub struct Policies {
    own_node: Arc<str>,
    world: World,
    numbers: Numbers,
    compiled: Option<Compiled>,
    unsupported: std::collections::BTreeMap<ObjectName, Vec<Unsupported>>,
    problems: Problems,
}

impl Policies {
    /// Nothing yet. `numbers` are those of the agent's last run, or none.
    #[must_use]
    pub fn new(own_node: &str, numbers: Numbers) -> Self {
        Self {
            own_node: own_node.into(),
            world: World::default(),
            numbers,
            compiled: None,
            unsupported: std::collections::BTreeMap::new(),
            problems: Problems::default(),
        }
    }

    /// A pod was made or changed.
    pub fn apply_pod(&mut self, object: &PodObject) -> bool {
        match convert::policy::pod(object) {
            Ok(pod) => {
                self.problems.clear(POD, &pod.name);
                let old = self.world.pods.insert(pod.name.clone(), pod.clone());
                self.changed(old.as_ref() != Some(&pod))
            }
            Err(invalid) => {
                self.problems.add(invalid);
                false
            }
        }
    }

    /// A pod is gone.
    pub fn delete_pod(&mut self, name: &ObjectName) -> bool {
        self.problems.clear(POD, name);
        let known = self.world.pods.remove(name).is_some();
        self.changed(known)
    }

    /// These are all pods that there are. `unread` are names of pods that exist but could not be decoded.
    pub fn reset_pods(&mut self, objects: &[PodObject], unread: &[ObjectName]) -> bool {
        let present = present(objects.iter().map(|object| convert::name(&object.metadata)), unread);
        self.problems.retain(POD, |name| present.contains(name));
        let gone: Vec<_> = self.world.pods.keys().filter(|name| !present.contains(name)).cloned().collect();
        let changed = gone.iter().fold(false, |changed, name| self.delete_pod(name) | changed);
        objects.iter().fold(changed, |changed, object| self.apply_pod(object) | changed)
    }

    /// A namespace was made or changed.
    pub fn apply_namespace(&mut self, object: &NamespaceObject) -> bool {
        let namespace = convert::policy::namespace(object);
        self.problems.clear(NAMESPACE, &ObjectName::new("", &namespace.name));
        let old = self.world.namespaces.insert(Arc::clone(&namespace.name), namespace.clone());
        self.changed(old.as_ref() != Some(&namespace))
    }

    /// A namespace is gone.
    pub fn delete_namespace(&mut self, name: &ObjectName) -> bool {
        self.problems.clear(NAMESPACE, name);
        let known = self.world.namespaces.remove(&name.name).is_some();
        self.changed(known)
    }

    /// These are all namespaces that there are. `unread` are names of namespaces that exist but could not be decoded.
    pub fn reset_namespaces(&mut self, objects: &[NamespaceObject], unread: &[ObjectName]) -> bool {
        let present = present(objects.iter().map(|object| convert::name(&object.metadata)), unread);
        self.problems.retain(NAMESPACE, |name| present.contains(name));
        let known = self.world.namespaces.keys().map(|name| ObjectName::new("", name));
        let gone: Vec<_> = known.filter(|name| !present.contains(name)).collect();
        let changed = gone.iter().fold(false, |changed, name| self.delete_namespace(name) | changed);
        objects.iter().fold(changed, |changed, object| self.apply_namespace(object) | changed)
    }

    /// A policy was made or changed.
    pub fn apply_policy(&mut self, object: &NetworkPolicy) -> bool {
        match convert::policy::policy(object) {
            Ok((policy, unsupported)) => {
                self.problems.clear(POLICY, &policy.name);
                self.unsupported.remove(&policy.name);
                if !unsupported.is_empty() {
                    self.unsupported.insert(policy.name.clone(), unsupported);
                }
                self.put_policy(policy)
            }
            Err(invalid) => self.unreadable(invalid),
        }
    }

    /// A policy is gone.
    pub fn delete_policy(&mut self, name: &ObjectName) -> bool {
        self.problems.clear(POLICY, name);
        self.unsupported.remove(name);
        let known = self.world.policies.remove(name).is_some();
        self.changed(known)
    }

    /// These are all policies that there are. `unread` are names of policies that exist but could not be decoded.
    pub fn reset_policies(&mut self, objects: &[NetworkPolicy], unread: &[ObjectName]) -> bool {
        let present = present(objects.iter().map(|object| convert::name(&object.metadata)), unread);
        self.problems.retain(POLICY, |name| present.contains(name));
        let gone: Vec<_> =
            self.world.policies.keys().filter(|name| !present.contains(name)).cloned().collect();
        let mut changed = gone.iter().fold(false, |changed, name| self.delete_policy(name) | changed);
        for name in unread {
            changed |= self.close(name);
        }
        objects.iter().fold(changed, |changed, object| self.apply_policy(object) | changed)
    }

    /// These are all addresses of nodes, those inside the overlay included, with the nodes' names.
    pub fn set_nodes(&mut self, nodes: impl IntoIterator<Item = (Address, Arc<str>)>) -> bool {
        let nodes = nodes.into_iter().collect();
        let changed = self.world.nodes != nodes;
        self.world.nodes = nodes;
        self.changed(changed)
    }

    /// An object could not be decoded: what was known of it stays in force. A policy that was never known closes its namespace.
    pub fn undecodable(&mut self, invalid: Invalid) -> bool {
        if invalid.kind == POLICY {
            return self.unreadable(invalid);
        }
        self.problems.add(invalid);
        false
    }

    /// What all this means to this node. Call it once pods, namespaces, policies and nodes have been read.
    pub fn compile(&mut self) -> &Compiled {
        let (world, numbers) = (&self.world, &mut self.numbers);
        self.compiled.get_or_insert_with(|| compile(world, &self.own_node, numbers))
    }

    /// A pod by name.
    #[must_use]
    pub fn pod(&self, name: &ObjectName) -> Option<&Pod> {
        self.world.pods.get(name)
    }

    /// The numbers of classes and rules, as of the last [`Policies::compile`].
    #[must_use]
    pub fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// What policies ask for that is not implemented. It allows nothing.
    pub fn unsupported(&self) -> impl Iterator<Item = &Unsupported> {
        self.unsupported.values().flatten()
    }

    /// The objects that cannot be used now.
    #[must_use]
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// All that is known, for [`netkeel_core::policy::explain`].
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    fn put_policy(&mut self, policy: Policy) -> bool {
        let old = self.world.policies.insert(policy.name.clone(), policy.clone());
        self.changed(old.as_ref() != Some(&policy))
    }

    fn unreadable(&mut self, invalid: Invalid) -> bool {
        let name = invalid.name.clone();
        self.problems.add(invalid);
        self.close(&name)
    }

    /// A policy exists, who knows which: unless an earlier version is in force, its namespace's pods are isolated.
    fn close(&mut self, name: &ObjectName) -> bool {
        if self.world.policies.contains_key(name) {
            return false;
        }
        self.put_policy(Policy::closed(name.clone()))
    }

    fn changed(&mut self, changed: bool) -> bool {
        if changed {
            self.compiled = None;
        }
        changed
    }
}

fn present(objects: impl Iterator<Item = ObjectName>, unread: &[ObjectName]) -> BTreeSet<ObjectName> {
    objects.chain(unread.iter().cloned()).collect()
}

#[cfg(test)]
mod tests;
