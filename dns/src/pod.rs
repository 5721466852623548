//! Pods as they are watched: all of the cluster, each with no more than whose its addresses are.

use std::borrow::Cow;
use std::net::IpAddr;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};

use crate::zone::{Pod, PodKey};

/// A Pod without containers, volumes and labels.
#[derive(Deserialize, Clone, Debug)]
pub struct SlimPod {
    #[serde(deserialize_with = "slim")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimSpec,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct SlimSpec {
    host_network: Option<bool>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct SlimStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<SlimAddress>>,
}

#[derive(Deserialize, Clone, Debug)]
struct SlimAddress {
    ip: Option<String>,
}

fn slim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let ObjectMeta { name, namespace, resource_version, creation_timestamp, deletion_timestamp, .. } =
        ObjectMeta::deserialize(deserializer)?;
    let kept = ObjectMeta {
        name,
        namespace,
        resource_version,
        creation_timestamp,
        deletion_timestamp,
        ..ObjectMeta::default()
    };
    Ok(kept)
}

impl SlimPod {
    /// What it means for the zone. A pod that has ended keeps no address, and one in its node's network has none of its own.
    pub(crate) fn read(&self) -> Option<Pod> {
        let meta = &self.metadata;
        let key = PodKey::new(meta.namespace.as_deref()?, meta.name.as_deref()?);
        let created = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        let ended = matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let status = (!ended && self.spec.host_network != Some(true)).then_some(&self.status);
        let addresses: Vec<IpAddr> = status.map(SlimStatus::addresses).unwrap_or_default();
        Some(Pod::new(key, u32::try_from(created).unwrap_or(0), meta.deletion_timestamp.is_some(), addresses))
    }
}

impl SlimStatus {
    fn addresses(&self) -> Vec<IpAddr> {
        let all = self.pod_ips.iter().flatten().filter_map(|address| address.ip.as_ref()).chain(&self.pod_ip);
        let mut all: Vec<IpAddr> = all.filter_map(|text| text.parse().ok()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Resource for SlimPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(metadata: &Value, spec: &Value, status: &Value) -> Option<Pod> {
        let mut metadata = metadata.clone();
        metadata["namespace"] = "shop".into();
        metadata["labels"] = json!({"app": "web"});
        let object = json!({"metadata": metadata, "spec": spec, "status": status});
        serde_json::from_value::<SlimPod>(object).unwrap().read()
    }

    #[test]
    fn a_pod_has_its_addresses_while_it_runs_in_a_network_of_its_own() {
        let meta = json!({"name": "web", "creationTimestamp": "1970-01-01T00:01:00Z"});
        let ending = json!({"name": "web", "creationTimestamp": "1970-01-01T00:01:00Z", "deletionTimestamp": "1970-01-01T00:02:00Z"});
        let both = json!({"phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]});
        let pod = |created, ending, addresses: &[&str]| {
            let addresses = addresses.iter().map(|text| text.parse().unwrap());
            Some(Pod::new(PodKey::new("shop", "web"), created, ending, addresses))
        };
        let own = json!({});
        for (metadata, spec, status, expected) in [
            (&meta, &own, both.clone(), pod(60, false, &["10.1.0.1", "fd00::1"])),
            (&ending, &own, both.clone(), pod(60, true, &["10.1.0.1", "fd00::1"])),
            (&meta, &own, json!({"podIP": "10.1.0.1"}), pod(60, false, &["10.1.0.1"])),
            (&meta, &own, json!({"phase": "Pending"}), pod(60, false, &[])),
            (&meta, &own, json!({"podIP": "nonsense", "podIPs": [{}]}), pod(60, false, &[])),
            (&meta, &own, json!({"phase": "Succeeded", "podIP": "10.1.0.1"}), pod(60, false, &[])),
            (&meta, &own, json!({"phase": "Failed", "podIP": "10.1.0.1"}), pod(60, false, &[])),
            (&meta, &json!({"hostNetwork": true}), both, pod(60, false, &[])),
            (&json!({}), &own, json!({}), None),
        ] {
            assert_eq!(read(metadata, spec, &status), expected, "{status}");
        }
    }
}
