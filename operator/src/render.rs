//! The objects that the operator applies, as JSON for server-side apply. Pure: the same input gives the same object.

pub mod agent;
pub mod dns;

#[cfg(test)]
mod tests;

use netkeel_crds::ClusterNetwork;
use serde_json::{Value, json};

use crate::plan::{Part, PartName};

/// Label that marks what is ours.
pub const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "netkeel");

/// Labels of one component.
fn labels(component: &str) -> Value {
    json!({
        "app.kubernetes.io/name": format!("netkeel-{component}"),
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": "netkeel-operator",
        PART_OF.0: PART_OF.1,
    })
}

/// Makes the garbage collector take the object away should the operator not be there any more.
fn owners(network: &ClusterNetwork) -> Value {
    json!([{
        "apiVersion": "netkeel.io/v1alpha1",
        "kind": "ClusterNetwork",
        "name": network.metadata.name,
        "uid": network.metadata.uid,
    }])
}

/// The object of that name. `metadata` is what it has besides its name and namespace.
fn part(name: PartName, mut metadata: Value, spec: &Value) -> Part {
    metadata["name"] = name.name.into();
    metadata["namespace"] = name.namespace.as_str().into();
    let body = json!({"apiVersion": name.api_version, "kind": name.kind, "metadata": metadata, "spec": spec});
    Part { name, body }
}
