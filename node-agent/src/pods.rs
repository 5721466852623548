//! Pods as the agent watches them: all of the cluster, each with no more than policy needs.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Pod, PodIP, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use netkeel_core::{name::ObjectName, policy};
use netkeel_crds::{IP_ADDRESSES, POOL};
use netkeel_index::{Invalid, convert::policy::PodReader};
use serde::{Deserialize, Deserializer, Serialize};

/// Of the API's object for a static pod: the UID by which the kubelet and the runtime know the pod.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The annotations that mean something.
const KEPT: [&str; 3] = [MIRROR, POOL, IP_ADDRESSES];

/// A Pod without containers, volumes and history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlimPod {
    /// Name, namespace, UID, version and labels, and the few annotations that mean something.
    #[serde(deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    /// Where it runs.
    #[serde(default)]
    pub spec: SlimSpec,
    /// What became of it.
    #[serde(default)]
    pub status: SlimStatus,
}

/// Where a pod runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SlimSpec {
    /// Name of its node.
    pub node_name: Option<String>,
    /// It is in its node's network.
    pub host_network: Option<bool>,
}

/// What became of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SlimStatus {
    /// Its phase.
    pub phase: Option<String>,
    /// Its first address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// All its addresses.
    #[serde(rename = "podIPs")]
    pub pod_ips: Option<Vec<PodIP>>,
}

impl SlimPod {
    /// The UID by which the container runtime knows the pod.
    #[must_use]
    pub fn uid(&self) -> &str {
        let mirrored = self.metadata.annotations.as_ref().and_then(|annotations| annotations.get(MIRROR));
        mirrored.or(self.metadata.uid.as_ref()).map(String::as_str).unwrap_or_default()
    }

    fn own(&self) -> Own {
        let annotation = |key| self.metadata.annotations.as_ref()?.get(key).cloned();
        Own { uid: self.uid().into(), pools: annotation(POOL), addresses: annotation(IP_ADDRESSES) }
    }

    /// The object of the API, as far as it is known.
    #[must_use]
    pub fn object(self) -> Pod {
        let SlimSpec { node_name, host_network } = self.spec;
        let SlimStatus { phase, pod_ip, pod_ips } = self.status;
        Pod {
            metadata: self.metadata,
            spec: Some(PodSpec { node_name, host_network, ..PodSpec::default() }),
            status: Some(PodStatus { phase, pod_ip, pod_ips, ..PodStatus::default() }),
        }
    }
}

/// A pod that was read: a tenth of the object's size, so that of all pods of a cluster only this need be kept.
#[derive(Clone, Debug)]
pub struct SeenPod {
    /// What policy goes by, or why it cannot be used.
    pub policy: Result<policy::Pod, Invalid>,
    /// More of a pod of the own node.
    pub own: Option<Own>,
}

/// What only a pod's own node needs to know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// The UID by which the container runtime knows the pod.
    pub uid: Arc<str>,
    /// The pools that its annotation names.
    pub pools: Option<String>,
    /// The addresses that its annotation names.
    pub addresses: Option<String>,
}

impl SeenPod {
    /// Namespace and name.
    #[must_use]
    pub fn name(&self) -> &ObjectName {
        match &self.policy {
            Ok(pod) => &pod.name,
            Err(invalid) => &invalid.name,
        }
    }
}

/// Reads pods, with more of those of the own node.
#[derive(Debug)]
pub struct SeenPodReader {
    own_node: String,
    policy: PodReader,
}

impl SeenPodReader {
    /// For the agent of this node.
    #[must_use]
    pub fn new(own_node: &str) -> Self {
        Self { own_node: own_node.to_owned(), policy: PodReader::default() }
    }

    /// Reads a pod.
    #[must_use]
    pub fn read(&mut self, pod: SlimPod) -> SeenPod {
        let is_own = pod.spec.node_name.as_deref() == Some(&*self.own_node);
        let own = is_own.then(|| pod.own());
        SeenPod { policy: self.policy.read(&pod.object()), own }
    }
}

fn slim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let ObjectMeta { name, namespace, uid, resource_version, labels, annotations, .. } =
        ObjectMeta::deserialize(deserializer)?;
    let kept = annotations.map(|mut all| KEPT.iter().filter_map(|key| all.remove_entry(*key)).collect());
    let annotations = kept.filter(|kept: &BTreeMap<_, _>| !kept.is_empty());
    Ok(ObjectMeta { name, namespace, uid, resource_version, labels, annotations, ..ObjectMeta::default() })
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
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_read_without_what_policy_does_not_need() {
        let pod: SlimPod = serde_json::from_value(json!({
            "metadata": {"name": "cart-0", "namespace": "shop", "uid": "u1", "resourceVersion": "7", "labels": {"app": "cart"},
                "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
                "annotations": {"kubernetes.io/config.mirror": "static", "netkeel.io/pool": "fast", "big": "text"}},
            "spec": {"nodeName": "a", "containers": [{"name": "c", "image": "i"}], "volumes": []},
            "status": {"phase": "Running", "podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}], "conditions": []},
        }))
        .unwrap();
        assert!(pod.metadata.managed_fields.is_none());
        assert_eq!(pod.metadata.annotations.as_ref().map(std::collections::BTreeMap::len), Some(2));
        assert_eq!(pod.uid(), "static", "the runtime knows a static pod by its own UID");
        let object = pod.object();
        assert_eq!(object.metadata.labels.unwrap()["app"], "cart");
        assert_eq!(object.spec.unwrap().node_name.as_deref(), Some("a"));
        assert_eq!(object.status.unwrap().pod_ips.unwrap()[0].ip, "10.244.0.5");
    }

    #[test]
    fn labels_that_are_no_labels_are_refused() {
        let broken = json!({"metadata": {"name": "cart-0", "labels": ["app"]}});
        assert!(serde_json::from_value::<SlimPod>(broken).is_err());
    }
}
