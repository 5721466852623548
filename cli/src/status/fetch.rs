//! Asks the API server. An object that cannot be read is a problem of that object, not of the whole answer.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node as KubeNode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition as KubeCondition;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::{Client, Resource, ResourceExt};
use netkeel_crds::{ClusterNetwork, DEFAULT, NodeNetwork};
use serde::de::DeserializeOwned;

use super::{Condition, Installation, Node, Status};

/// The state of the cluster that kubectl would ask, or of `context`.
pub(crate) async fn fetch(context: Option<&str>) -> Result<Status> {
    let client = netkeel_client::connect_as_user(context).await?;
    let Some(networks) = list::<ClusterNetwork>(&client).await? else { return Ok(Status::default()) };
    let Some(network) = networks.into_iter().find(|object| object.name_any() == DEFAULT) else {
        return Ok(Status { installation: Installation::WithoutNetwork, ..Status::default() });
    };
    let (installation, conditions) = read_network(network);
    Ok(Status { installation, conditions, nodes: nodes(&client).await? })
}

/// All objects of a kind; none when the API server does not know the kind.
async fn list<K: Resource<DynamicType = ()>>(client: &Client) -> Result<Option<Vec<DynamicObject>>> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<K>(&()));
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(Some(list.items)),
        Err(kube::Error::Api(refused)) if refused.code == 404 => Ok(None),
        Err(error) => Err(error).with_context(|| format!("list {}", K::plural(&()))),
    }
}

async fn nodes(client: &Client) -> Result<Vec<Node>> {
    let known = Api::<KubeNode>::all(client.clone()).list_metadata(&ListParams::default()).await;
    let mut nodes: BTreeMap<String, Node> =
        known.context("list nodes")?.iter().map(|node| named(node.name_any())).collect();
    for object in list::<NodeNetwork>(client).await?.unwrap_or_default() {
        let (name, node) = named(object.name_any());
        nodes.insert(name, read_node(node, object));
    }
    Ok(nodes.into_values().collect())
}

fn named(name: String) -> (String, Node) {
    (name.clone(), Node { name, ..Node::default() })
}

fn read_network(object: DynamicObject) -> (Installation, Vec<Condition>) {
    let generation = object.metadata.generation;
    match read::<ClusterNetwork>(object) {
        Err(unreadable) => (Installation::Reported, vec![unreadable]),
        Ok(network) => {
            let status = network.status.unwrap_or_default();
            let reported = status.observed_generation.is_some() && status.observed_generation == generation;
            let installation = if reported { Installation::Reported } else { Installation::Unreported };
            (installation, status.conditions.into_iter().map(condition).collect())
        }
    }
}

fn read_node(node: Node, object: DynamicObject) -> Node {
    let network = match read::<NodeNetwork>(object) {
        Ok(network) => network,
        Err(unreadable) => return Node { revision: Some("?".into()), conditions: vec![unreadable], ..node },
    };
    let status = network.status.unwrap_or_default();
    Node {
        blocks: network.spec.blocks.iter().map(ToString::to_string).collect(),
        revision: Some(network.spec.revision),
        applied_revision: status.applied_revision,
        addresses: status.addresses.map(|usage| (usage.used.into(), usage.capacity.into())),
        conditions: status.conditions.into_iter().map(condition).collect(),
        ..node
    }
}

/// The object as its type, or a condition that says why not.
fn read<K: Resource + DeserializeOwned>(object: DynamicObject) -> Result<K, Condition> {
    object.try_parse().map_err(|error| Condition {
        kind: "Readable".into(),
        status: "False".into(),
        reason: "Undecodable".into(),
        message: error.to_string(),
    })
}

fn condition(condition: KubeCondition) -> Condition {
    let KubeCondition { type_: kind, status, reason, message, .. } = condition;
    Condition { kind, status, reason, message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: serde_json::Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_network_is_reported_only_for_its_present_generation() {
        let network = |observed: Option<i64>| {
            object(json!({
                "apiVersion": "netkeel.io/v1alpha1", "kind": "ClusterNetwork",
                "metadata": {"name": "default", "generation": 2}, "spec": {},
                "status": {"observedGeneration": observed, "conditions": [
                    {"type": "Available", "status": "True", "reason": "Ready", "message": "2 of 2 nodes",
                     "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
        };
        assert_eq!(read_network(network(Some(2))).0, Installation::Reported);
        assert_eq!(read_network(network(Some(1))).0, Installation::Unreported);
        assert_eq!(read_network(network(None)).0, Installation::Unreported);
        assert_eq!(read_network(network(Some(2))).1[0].message, "2 of 2 nodes");
    }

    #[test]
    fn an_object_that_cannot_be_read_is_named_and_hides_no_other() {
        let broken = object(json!({
            "apiVersion": "netkeel.io/v1alpha1", "kind": "NodeNetwork", "metadata": {"name": "node-1"},
            "spec": {"blocks": ["not a cidr"]},
        }));
        let node = read_node(named("node-1".into()).1, broken);
        let status = Status { installation: Installation::Reported, nodes: vec![node], ..Status::default() };
        assert!(
            status.problems()[0].what.starts_with("node node-1: Readable is False"),
            "{:?}",
            status.problems()
        );
    }

    #[test]
    fn a_node_tells_blocks_revision_and_use() {
        let node = read_node(
            named("node-1".into()).1,
            object(json!({
                "apiVersion": "netkeel.io/v1alpha1", "kind": "NodeNetwork", "metadata": {"name": "node-1"},
                "spec": {"blocks": ["10.244.0.0/26"], "revision": "abc"},
                "status": {"appliedRevision": "abc", "addresses": {"used": 3, "capacity": 62}},
            })),
        );
        assert_eq!((node.blocks[0].as_str(), node.addresses), ("10.244.0.0/26", Some((3, 62))));
        assert_eq!(node.problem(), None);
    }
}
