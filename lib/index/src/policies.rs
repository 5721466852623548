//! Pods, namespaces and policies, and what they mean to this node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::{core::v1::Namespace as NamespaceObject, networking::v1::NetworkPolicy};
use netkeel_core::{
    address::Address,
    few::Few,
    name::ObjectName,
    policy::{Compiled, Compiler, Numbers, Pod, Policy, Work, World},
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
    compiler: Compiler,
    /// Addresses that this node gave to its pods.
    placed: BTreeMap<ObjectName, Few<Address>>,
    /// Policies that are deleted while their namespace is on its way out, where they stay in force as long as it exists.
    outlived: BTreeSet<ObjectName>,
    unsupported: BTreeMap<ObjectName, Vec<Unsupported>>,
    problems: Problems,
}

impl Policies {
    /// Nothing yet. `numbers` are those of the agent's last run, or none.
    #[must_use]
    pub fn new(own_node: &str, numbers: Numbers) -> Self {
        Self {
            compiler: Compiler::new(own_node, numbers),
            placed: BTreeMap::new(),
            outlived: BTreeSet::new(),
            unsupported: BTreeMap::new(),
            problems: Problems::default(),
        }
    }

    /// Gives no numbers up to these to classes and rules: see [`Numbers::skip`].
    pub fn skip_numbers(&mut self, class: u32, rule: u32) {
        self.compiler.skip_numbers(class, rule);
    }

    /// A pod was made or changed, as a [`PodReader`](convert::policy::PodReader) read it.
    pub fn apply_pod(&mut self, read: Result<Pod, Invalid>) -> bool {
        match read {
            Ok(pod) => {
                self.problems.clear(POD, &pod.name);
                self.put_pod(pod)
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
        self.compiler.remove_pod(name)
    }

    /// These are all pods that there are, as they were read. `unread` are names of pods that exist but could not be decoded.
    pub fn reset_pods(&mut self, read: Vec<Result<Pod, Invalid>>, unread: &[ObjectName]) -> bool {
        let name = |read: &Result<Pod, Invalid>| match read {
            Ok(pod) => pod.name.clone(),
            Err(invalid) => invalid.name.clone(),
        };
        let present = present(read.iter().map(name), unread);
        self.problems.retain(POD, |name| present.contains(name));
        let gone: Vec<_> = self.world().pods.keys().filter(|name| !present.contains(name)).cloned().collect();
        let changed = gone.iter().fold(false, |changed, name| self.delete_pod(name) | changed);
        read.into_iter().fold(changed, |changed, read| self.apply_pod(read) | changed)
    }

    /// A namespace was made or changed.
    pub fn apply_namespace(&mut self, object: &NamespaceObject) -> bool {
        let namespace = convert::policy::namespace(object);
        self.problems.clear(NAMESPACE, &ObjectName::new("", &namespace.name));
        self.compiler.put_namespace(namespace)
    }

    /// A namespace is gone.
    pub fn delete_namespace(&mut self, name: &ObjectName) -> bool {
        self.problems.clear(NAMESPACE, name);
        let outlived = self.outlived.extract_if(.., |policy| policy.namespace == name.name);
        let policies = outlived.fold(false, |changed, policy| self.compiler.remove_policy(&policy) | changed);
        self.compiler.remove_namespace(&name.name) | policies
    }

    /// These are all namespaces that there are. `unread` are names of namespaces that exist but could not be decoded.
    pub fn reset_namespaces(&mut self, objects: &[NamespaceObject], unread: &[ObjectName]) -> bool {
        let present = present(objects.iter().map(|object| convert::name(&object.metadata)), unread);
        self.problems.retain(NAMESPACE, |name| present.contains(name));
        let known = self.world().namespaces.keys().map(|name| ObjectName::new("", name));
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
                self.outlived.remove(&policy.name);
                self.compiler.put_policy(policy)
            }
            Err(invalid) => self.unreadable(invalid),
        }
    }

    /// A policy is gone. One that goes with its namespace stays in force until the namespace is gone: pods may live longer than their policies.
    pub fn delete_policy(&mut self, name: &ObjectName) -> bool {
        self.problems.clear(POLICY, name);
        self.unsupported.remove(name);
        let namespace = self.world().namespaces.get(&name.namespace);
        if namespace.is_some_and(|namespace| namespace.terminating)
            && self.world().policies.contains_key(name)
        {
            self.outlived.insert(name.clone());
            return false;
        }
        self.compiler.remove_policy(name)
    }

    /// These are all policies that there are. `unread` are names of policies that exist but could not be decoded.
    pub fn reset_policies(&mut self, objects: &[NetworkPolicy], unread: &[ObjectName]) -> bool {
        let present = present(objects.iter().map(|object| convert::name(&object.metadata)), unread);
        self.problems.retain(POLICY, |name| present.contains(name));
        let gone: Vec<_> =
            self.world().policies.keys().filter(|name| !present.contains(name)).cloned().collect();
        let mut changed = gone.iter().fold(false, |changed, name| self.delete_policy(name) | changed);
        for name in unread {
            changed |= self.close(name);
        }
        objects.iter().fold(changed, |changed, object| self.apply_policy(object) | changed)
    }

    /// These are all addresses of nodes, those inside the overlay included, with the nodes' names.
    pub fn set_nodes(&mut self, nodes: impl IntoIterator<Item = (Address, Arc<str>)>) -> bool {
        self.compiler.set_nodes(nodes.into_iter().collect())
    }

    /// This node gave a pod these addresses, or took its addresses away: then there are none. What the API says of its addresses counts
    /// only while this node says nothing: its news is older.
    pub fn place(&mut self, name: &ObjectName, addresses: Few<Address>) -> bool {
        let before = if addresses.is_empty() {
            self.placed.remove(name)
        } else {
            self.placed.insert(name.clone(), addresses.clone())
        };
        if before.unwrap_or_default() == addresses {
            return false;
        }
        let Some(mut pod) = self.pod(name).cloned() else { return false };
        pod.addresses = addresses;
        self.compiler.put_pod(pod)
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
        self.compiler.compile()
    }

    /// A pod by name.
    #[must_use]
    pub fn pod(&self, name: &ObjectName) -> Option<&Pod> {
        self.world().pods.get(name)
    }

    /// The numbers of classes and rules, as of the last [`Policies::compile`].
    #[must_use]
    pub fn numbers(&self) -> &Numbers {
        self.compiler.numbers()
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
        self.compiler.world()
    }

    /// What was done so far, for tests and metrics.
    #[must_use]
    pub fn work(&self) -> Work {
        self.compiler.work()
    }

    fn put_pod(&mut self, mut pod: Pod) -> bool {
        if let Some(placed) = self.placed.get(&pod.name) {
            pod.addresses.clone_from(placed);
        }
        self.compiler.put_pod(pod)
    }

    fn unreadable(&mut self, invalid: Invalid) -> bool {
        let name = invalid.name.clone();
        self.problems.add(invalid);
        self.close(&name)
    }

    /// A policy exists, who knows which: unless an earlier version is in force, its namespace's pods are isolated.
    fn close(&mut self, name: &ObjectName) -> bool {
        if self.world().policies.contains_key(name) {
            return false;
        }
        self.compiler.put_policy(Policy::closed(name.clone()))
    }
}

fn present(objects: impl Iterator<Item = ObjectName>, unread: &[ObjectName]) -> BTreeSet<ObjectName> {
    objects.chain(unread.iter().cloned()).collect()
}

#[cfg(test)]
mod tests;
