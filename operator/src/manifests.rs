//! The objects that run Netkeel's programs, as values: pure, so that a test and a reader see what is applied.

pub mod agent;
pub mod dns;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

/// What every program is started with.
#[derive(Clone, Debug)]
pub struct Release {
    /// Image that holds all programs.
    pub image: String,
    /// `IfNotPresent`, `Always` or `Never`.
    pub pull_policy: String,
    /// Namespace of operator and agents.
    pub namespace: String,
    /// The ClusterNetwork, which takes its objects with it.
    pub owner: OwnerReference,
}

/// Label of everything the operator makes.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "netkeel-operator");

/// Metadata of an object named `name` in `namespace`.
fn metadata(release: &Release, namespace: &str, name: &str, labels: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<String, Value> =
        labels.iter().chain([&MANAGED_BY]).map(|&(key, value)| (key.to_owned(), value.into())).collect();
    json!({"name": name, "namespace": namespace, "labels": labels, "ownerReferences": [release.owner]})
}

/// A probe of the admin server of a program.
fn probe(path: &str, port: u16, period_seconds: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period_seconds,
        "failureThreshold": failures,
        "timeoutSeconds": 3,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn release() -> Release {
        Release {
            image: "example/netkeel:1".into(),
            pull_policy: "IfNotPresent".into(),
            namespace: "netkeel-system".into(),
            owner: OwnerReference { name: "default".into(), uid: "1".into(), ..OwnerReference::default() },
        }
    }
}
