//! Names of Kubernetes objects, cheap to copy: every value of an index carries one.

use std::{fmt, sync::Arc};

/// Namespace and name of an object. Prints as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ObjectName {
    /// Empty for an object that belongs to no namespace.
    pub namespace: Arc<str>,
    /// The object's own name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// The name of an object of a namespace.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}
