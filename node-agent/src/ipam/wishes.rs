//! What the API says of the addresses that pods of this node want: annotations of the pod and its namespace, labels of the namespace.
//! CNI calls wait here, shortly, for a pod that the watch has not told of yet.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use netkeel_client::Event;
use netkeel_core::{ipam::Wish, labels::Labels, name::ObjectName};
use netkeel_crds::POOL;

use crate::{
    agent::events::object_name,
    pods::{Own, SeenPod},
    policy::PodRef,
};

/// Wishes of the node's pods.
#[derive(Debug, Default)]
pub struct Wishes {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The pods have been listed: one that is not known is about to be.
    listed: bool,
    pods: HashMap<ObjectName, Own>,
    namespaces: HashMap<Arc<str>, Labelled>,
}

#[derive(Debug)]
struct Labelled {
    labels: Labels,
    pools: Option<String>,
}

impl Wishes {
    /// An event of the pods, of which those of the own node are kept.
    pub fn pod_event(&self, event: &Event<SeenPod>) {
        let mut state = self.lock();
        match event {
            Event::Reset { objects, .. } => {
                state.listed = true;
                state.pods.clear();
                for pod in objects {
                    state.note(pod);
                }
            }
            Event::Apply(pod) => state.note(pod),
            Event::Delete { namespace, name } => {
                state.pods.remove(&object_name(namespace.as_deref(), name));
            }
            Event::Undecodable(_) => {}
        }
        self.changed.notify_all();
    }

    /// An event of the namespaces.
    pub fn namespace_event(&self, event: &Event<Namespace>) {
        let mut state = self.lock();
        match event {
            Event::Reset { objects, .. } => {
                state.namespaces = objects.iter().map(|namespace| labelled(&namespace.metadata)).collect();
            }
            Event::Apply(namespace) => state.namespaces.extend([labelled(&namespace.metadata)]),
            Event::Delete { name, .. } => drop(state.namespaces.remove(name.as_str())),
            Event::Undecodable(_) => {}
        }
    }

    /// What a pod wants, waited for where the API server has been heard but has not told of the pod. Of a pod that stays unknown
    /// only what is known of its namespace counts.
    #[must_use]
    pub fn of(&self, pod: &PodRef, wait: Duration) -> Wish {
        let unknown = |state: &mut State| pod.is_named() && state.listed && state.pod(pod).is_none();
        let waited = self.changed.wait_timeout_while(self.lock(), wait, unknown);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let namespace = state.namespaces.get(&pod.name.namespace);
        let known = state.pod(pod);
        let pools = known.and_then(|known| known.pools.clone());
        Wish {
            namespace: namespace.map(|namespace| namespace.labels.clone()),
            pools: pools.or_else(|| namespace.and_then(|namespace| namespace.pools.clone())),
            addresses: known.and_then(|known| known.addresses.clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, pod: &SeenPod) {
        if let Some(own) = &pod.own {
            self.pods.insert(pod.name().clone(), own.clone());
        }
    }

    fn pod(&self, pod: &PodRef) -> Option<&Own> {
        let known = self.pods.get(&pod.name)?;
        let same = PodRef { name: pod.name.clone(), uid: known.uid.clone() };
        pod.is(&same).then_some(known)
    }
}

fn annotation(metadata: &ObjectMeta, key: &str) -> Option<String> {
    metadata.annotations.as_ref()?.get(key).cloned()
}

fn labelled(metadata: &ObjectMeta) -> (Arc<str>, Labelled) {
    let labels = netkeel_index::convert::policy::labels(metadata);
    let name = metadata.name.as_deref().unwrap_or_default().into();
    (name, Labelled { labels, pools: annotation(metadata, POOL) })
}

#[cfg(test)]
mod tests {
    use netkeel_crds::IP_ADDRESSES;
    use serde_json::json;

    use super::*;
    use crate::pods::SeenPodReader;

    const WAIT: Duration = Duration::from_millis(20);

    fn pod(node: &str, uid: &str, annotations: &serde_json::Value) -> Event<SeenPod> {
        let object = json!({
            "metadata": {"name": "cart", "namespace": "shop", "uid": uid, "annotations": annotations},
            "spec": {"nodeName": node},
        });
        Event::Apply(SeenPodReader::new("n1").read(serde_json::from_value(object).unwrap()))
    }

    fn namespace() -> Event<Namespace> {
        let object =
            json!({"metadata": {"name": "shop", "labels": {"team": "pay"}, "annotations": {POOL: "fast"}}});
        Event::Apply(serde_json::from_value(object).unwrap())
    }

    fn cart(uid: &str) -> PodRef {
        PodRef::new("shop/cart", uid)
    }

    #[test]
    fn the_pods_annotation_counts_before_that_of_its_namespace() {
        let wishes = Wishes::default();
        wishes.namespace_event(&namespace());
        wishes.pod_event(&pod("n1", "u1", &json!({})));
        assert_eq!(wishes.of(&cart("u1"), WAIT).pools.as_deref(), Some("fast"));
        wishes.pod_event(&pod("n1", "u1", &json!({POOL: "slow", IP_ADDRESSES: "10.1.0.7"})));
        let wish = wishes.of(&cart("u1"), WAIT);
        assert_eq!((wish.pools.as_deref(), wish.addresses.as_deref()), (Some("slow"), Some("10.1.0.7")));
        assert_eq!(wish.namespace.unwrap().get("team"), Some("pay"));
    }

    #[test]
    fn another_pod_of_that_name_or_node_says_nothing() {
        let wishes = Wishes::default();
        wishes.pod_event(&pod("n1", "old", &json!({IP_ADDRESSES: "10.1.0.7"})));
        assert_eq!(wishes.of(&cart("new"), WAIT), Wish::default());
        wishes.pod_event(&pod("n2", "new", &json!({IP_ADDRESSES: "10.1.0.8"})));
        assert_eq!(wishes.of(&cart("new"), WAIT), Wish::default());
    }

    #[test]
    fn a_pod_that_is_not_known_is_waited_for_only_where_the_api_server_has_been_heard() {
        let wishes = Arc::new(Wishes::default());
        assert_eq!(wishes.of(&cart("u1"), Duration::from_mins(10)), Wish::default(), "nobody would tell");
        wishes.pod_event(&Event::Reset { objects: Vec::new(), undecodable: Vec::new() });
        assert_eq!(wishes.of(&cart("u1"), WAIT), Wish::default());
        let asking = wishes.clone();
        let asked = std::thread::spawn(move || asking.of(&cart("u1"), Duration::from_mins(10)));
        wishes.pod_event(&pod("n1", "u1", &json!({IP_ADDRESSES: "10.1.0.7"})));
        assert_eq!(asked.join().unwrap().addresses.as_deref(), Some("10.1.0.7"));
    }
}
