//! Watches that wake the next pass. A pass reads the cluster itself; what a watch says is only that something changed.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
    pin::pin,
};

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{Node, Service},
    networking::v1::ServiceCIDR,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{DeserializeGuard, NamespaceResourceScope},
    runtime::watcher::Config,
};
use netkeel_client::{Event, watch};
use netkeel_crds::{AddressBlock, ClusterNetwork, NodeNetwork};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Notify;

use crate::render::{
    PART_OF,
    dns::{NAMESPACE, service_name},
};

/// Watches everything that a pass reads, for ever.
pub(super) async fn watch_all(client: &Client, wake: &Notify) {
    let ours = Config::default().labels(&format!("{}={}", PART_OF.0, PART_OF.1));
    let of_name = Config::default().fields(&format!("metadata.name={}", service_name().name));
    tokio::join!(
        on_change(every::<ClusterNetwork>(client), Config::default(), wake),
        on_change(every::<NodeNetwork>(client), Config::default(), wake),
        on_change(every::<AddressBlock>(client), Config::default(), wake),
        on_change(every::<Node>(client), Config::default(), wake),
        on_change(every::<ServiceCIDR>(client), Config::default(), wake),
        on_change(every::<DaemonSet>(client), Config::default(), wake),
        on_change(dns::<Deployment>(client), ours, wake),
        on_change(dns::<Service>(client), of_name, wake),
    );
}

fn every<K: Resource<DynamicType = ()>>(client: &Client) -> Api<DeserializeGuard<K>> {
    Api::all(client.clone())
}

fn dns<K>(client: &Client) -> Api<DeserializeGuard<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), NAMESPACE)
}

/// Wakes on every change that is one: a node's heartbeat, a condition's time and managed fields are not.
async fn on_change<K>(api: Api<DeserializeGuard<K>>, config: Config, wake: &Notify)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
{
    let mut known: HashMap<(Option<String>, String), u64> = HashMap::new();
    let mut events = pin!(watch::<K>(api, config));
    while let Some(event) = events.next().await {
        let news = match event {
            Event::Reset { objects, .. } => {
                known = objects.iter().map(|object| (key(object), fingerprint(object))).collect();
                true
            }
            Event::Apply(object) => {
                let print = fingerprint(&object);
                known.insert(key(&object), print) != Some(print)
            }
            Event::Delete { namespace, name } => {
                known.remove(&(namespace, name));
                true
            }
            Event::Undecodable(_) => true,
        };
        if news {
            wake.notify_one();
        }
    }
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> (Option<String>, String) {
    (object.namespace(), object.name_any())
}

/// Hash of the object without what changes by itself.
fn fingerprint<K: Serialize>(object: &K) -> u64 {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    let ours =
        value.pointer("/metadata/labels").and_then(|labels| labels.get(PART_OF.0)) == Some(&PART_OF.1.into());
    if value["kind"] == "DaemonSet" && !ours {
        return 0; // another's DaemonSet is told by its name, how its pods are is nothing to us
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(|metadata| metadata.as_object_mut()) {
        metadata.remove("managedFields");
        metadata.remove("resourceVersion");
    }
    let conditions = value.pointer_mut("/status/conditions").and_then(|conditions| conditions.as_array_mut());
    for condition in conditions.into_iter().flatten().filter_map(|condition| condition.as_object_mut()) {
        condition.remove("lastHeartbeatTime");
    }
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(version: &str, heartbeat: &str, ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "resourceVersion": version},
            "status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}]},
        }))
        .expect("a node")
    }

    #[test]
    fn how_pods_of_others_are_is_no_change() {
        let set = |part: &str, ready: i32| -> DaemonSet {
            serde_json::from_value(json!({
                "metadata": {"name": "a", "labels": {PART_OF.0: part}},
                "status": {"numberReady": ready, "currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberMisscheduled": 0},
            }))
            .expect("a DaemonSet")
        };
        for (part, change) in [(PART_OF.1, true), ("another", false)] {
            assert_eq!(fingerprint(&set(part, 1)) != fingerprint(&set(part, 2)), change, "{part}");
        }
    }

    #[test]
    fn a_heartbeat_is_no_change() {
        let before = node("1", "2026-01-01T00:00:00Z", "True");
        assert_eq!(fingerprint(&before), fingerprint(&node("2", "2026-01-01T00:00:10Z", "True")));
        assert_ne!(fingerprint(&before), fingerprint(&node("2", "2026-01-01T00:00:10Z", "False")));
    }
}
