//! Objects that could not be read, and why.

use std::collections::BTreeMap;

use netkeel_core::name::ObjectName;

/// Why an object cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name} is ignored: {reason}")]
pub struct Invalid {
    /// Kind of the object.
    pub kind: &'static str,
    /// Its namespace and name.
    pub name: ObjectName,
    /// What is wrong with it.
    pub reason: String,
}

/// All objects that cannot be used now.
#[derive(Debug, Default)]
pub struct Problems(BTreeMap<(&'static str, ObjectName), Invalid>);

impl Problems {
    /// Takes note of an object that cannot be used.
    pub fn add(&mut self, invalid: Invalid) {
        self.0.insert((invalid.kind, invalid.name.clone()), invalid);
    }

    /// Forgets an object, because it is in order again or gone.
    pub fn clear(&mut self, kind: &'static str, name: &ObjectName) {
        self.0.remove(&(kind, name.clone()));
    }

    /// Forgets the objects of a kind that `keep` refuses.
    pub fn retain(&mut self, kind: &'static str, keep: impl Fn(&ObjectName) -> bool) {
        self.0.retain(|(of, name), _| *of != kind || keep(name));
    }

    /// The objects, ordered by kind and name.
    pub fn iter(&self) -> impl Iterator<Item = &Invalid> {
        self.0.values()
    }

    /// Whether all objects can be used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
