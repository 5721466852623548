//! From objects to what is told of them. One that cannot be read is a problem of that object, not of the whole answer.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{Node as KubeNode, Pod as KubePod, PodSpec},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition as KubeCondition;
use kube::{Resource, ResourceExt, api::DynamicObject};
use netkeel_crds::{ClusterNetwork, DEFAULT, NodeNetwork, cluster_network::PoolPhase};
use serde::de::DeserializeOwned;

use super::{
    Agent, Component, Condition, Installation, Node, Pool, Status, Usage, component, fetch::Objects,
};

pub(super) fn status(found: Objects) -> Status {
    let pods_known = !found.forbidden.iter().any(|kind| kind == "pods");
    let agents = pods_known.then(|| agents(found.pods));
    let networks: Vec<NodeNetwork> =
        found.node_networks.iter().filter_map(|object| object.clone().try_parse().ok()).collect();
    let network = found.networks.into_iter().find(|object| object.name_any() == DEFAULT);
    let pools = network.clone().and_then(|object| object.try_parse().ok());
    let pools = pools.map(|network: ClusterNetwork| pools_of(&network, &networks)).unwrap_or_default();
    let (installation, conditions) = match network {
        Some(network) => read_network(network),
        None => (Installation::WithoutNetwork, Vec::new()),
    };
    Status {
        installation,
        components: components(found.deployments, found.daemon_sets),
        conditions,
        pools,
        nodes: nodes(found.nodes, found.node_networks, agents.as_ref()),
        forbidden: found.forbidden,
    }
}

fn components(deployments: Vec<DynamicObject>, daemon_sets: Vec<DynamicObject>) -> Vec<Component> {
    let deployments = deployments.into_iter().filter_map(|object| {
        let deployment: Deployment = object.try_parse().ok()?;
        let spec = deployment.spec.clone().unwrap_or_default();
        let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas);
        let pod = spec.template.spec.unwrap_or_default();
        component(&deployment, "deployment", ready.unwrap_or(0), spec.replicas.unwrap_or(1), &pod)
    });
    let daemon_sets = daemon_sets.into_iter().filter_map(|object| {
        let set: DaemonSet = object.try_parse().ok()?;
        let status = set.status.clone().unwrap_or_default();
        let pod = set.spec.clone().unwrap_or_default().template.spec.unwrap_or_default();
        component(&set, "daemonset", status.number_ready, status.desired_number_scheduled, &pod)
    });
    let all: Vec<Component> = deployments.chain(daemon_sets).collect();
    // DNS has two workloads while its servers move from one to the other.
    let of = |name: &&str| {
        all.iter().filter(|component| component.name == **name).max_by_key(|one| one.ready).cloned()
    };
    component::NAMES.iter().filter_map(of).collect()
}

/// The component that a workload is, if it is ours: other projects have operators and agents too.
fn component<K: Resource>(
    object: &K,
    kind: &str,
    ready: i32,
    wanted: i32,
    pod: &PodSpec,
) -> Option<Component> {
    let name = object.labels().get(component::LABEL)?.clone();
    (object.name_any() == format!("netkeel-{name}")).then(|| Component {
        owner: format!("{kind}/{}", object.name_any()),
        namespace: object.namespace().unwrap_or_default(),
        ready: ready.try_into().unwrap_or(0),
        wanted: wanted.try_into().unwrap_or(0),
        version: version(pod),
        name,
    })
}

/// The tag of the first container's image.
fn version(pod: &PodSpec) -> Option<String> {
    let image = pod.containers.first()?.image.as_deref()?;
    let last = image.rsplit('/').next()?;
    let name = last.split('@').next()?;
    name.split_once(':').map(|(_, tag)| tag.to_owned())
}

/// The agents, by node.
fn agents(pods: Vec<DynamicObject>) -> BTreeMap<String, Agent> {
    let pods = pods.into_iter().filter_map(|object| object.try_parse::<KubePod>().ok());
    let ours = |pod: &KubePod| pod.labels().get(component::LABEL).is_some_and(|label| label == "agent");
    let ours = pods.filter(|pod| ours(pod) && pod.name_any().starts_with("netkeel-agent-"));
    let mut agents = BTreeMap::new();
    for pod in ours {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { continue };
        let agent = agent(&pod);
        // An old pod may still be ending beside the new one.
        let better = matches!(agent, Agent::Pod { ready: true, .. }) || !agents.contains_key(&node);
        if better {
            agents.insert(node, agent);
        }
    }
    agents
}

fn agent(pod: &KubePod) -> Agent {
    let status = pod.status.clone().unwrap_or_default();
    let container = status.container_statuses.iter().flatten().next().cloned().unwrap_or_default();
    let current = container.state.unwrap_or_default();
    let stopped = current.terminated.map(|terminated| terminated.reason.unwrap_or_default());
    let waits = current.waiting.map(|waiting| waiting.reason.unwrap_or_default());
    let phase = status.phase.unwrap_or_default();
    Agent::Pod {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        ready: container.ready,
        state: stopped.or(waits).filter(|reason| !reason.is_empty()).unwrap_or(phase),
        restarts: container.restart_count.try_into().unwrap_or(0),
        version: pod.spec.as_ref().and_then(version),
    }
}

/// The nodes with what is known of their agents.
pub(crate) fn nodes_of(
    nodes_seen: Vec<DynamicObject>,
    networks: Vec<DynamicObject>,
    pods: Vec<DynamicObject>,
) -> Vec<Node> {
    nodes(nodes_seen, networks, Some(&agents(pods)))
}

fn nodes(
    nodes: Vec<DynamicObject>,
    networks: Vec<DynamicObject>,
    agents: Option<&BTreeMap<String, Agent>>,
) -> Vec<Node> {
    let mut all: BTreeMap<String, Node> = BTreeMap::new();
    for object in nodes {
        let name = object.name_any();
        let not_ready = object.try_parse().ok().and_then(|node| not_ready(&node));
        all.insert(name.clone(), Node { name, not_ready, ..Node::default() });
    }
    for object in networks {
        let name = object.name_any();
        let node = all.remove(&name).unwrap_or_else(|| Node { name: name.clone(), ..Node::default() });
        all.insert(name, read_node(node, object));
    }
    if let Some(agents) = agents {
        for node in all.values_mut() {
            node.agent = agents.get(&node.name).cloned().unwrap_or(Agent::Missing);
        }
    }
    all.into_values().collect()
}

/// Why the node is not Ready.
fn not_ready(node: &KubeNode) -> Option<String> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready =
        conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status != "True")?;
    Some(ready.message.clone().filter(|message| !message.is_empty()).unwrap_or_else(|| ready.status.clone()))
}

pub(super) fn read_network(object: DynamicObject) -> (Installation, Vec<Condition>) {
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

/// Use of each CIDR of the pools as the nodes tell it, which is true without the operator as well. State and size are as the operator
/// says, who also knows pools that are not in the spec any more.
fn pools_of(network: &ClusterNetwork, nodes: &[NodeNetwork]) -> Vec<Pool> {
    let spec = &network.spec.pod_network.pools;
    let told = network.status.as_ref().map_or(&[][..], |status| &status.pools);
    let cidrs = spec.iter().flat_map(|pool| pool.cidrs.iter().map(move |cidr| (pool, *cidr)));
    let known = cidrs.map(|(pool, cidr)| {
        let text = cidr.to_string();
        let told = told.iter().find(|told| told.name == pool.name && told.cidr == text);
        let bits = u32::from(pool.block_sizes.of(&cidr).saturating_sub(cidr.prefix_len()));
        let total = told.map_or_else(
            || 1_u64.checked_shl(bits).unwrap_or(u64::MAX),
            |told| u64::from(told.blocks.capacity),
        );
        pool_of(&pool.name, cidr, told.map(|told| told.state), total, nodes)
    });
    let gone = told.iter().filter(|told| spec.iter().all(|pool| pool.name != told.name));
    let gone = gone.filter_map(|told| {
        let cidr = told.cidr.parse().ok()?;
        let pool = pool_of(&told.name, cidr, Some(told.state), u64::from(told.blocks.capacity), nodes);
        (pool.blocks.used > 0).then_some(pool)
    });
    known.chain(gone).collect()
}

fn pool_of(name: &str, cidr: IpNet, state: Option<PoolPhase>, total: u64, nodes: &[NodeNetwork]) -> Pool {
    let blocks = nodes.iter().flat_map(|node| &node.spec.blocks);
    let told = nodes.iter().filter_map(|node| node.status.as_ref()).flat_map(|status| &status.blocks);
    let told = told.filter(|usage| cidr.contains(&usage.cidr));
    Pool {
        name: name.to_owned(),
        cidr: cidr.to_string(),
        state: state.map(|state| format!("{state:?}")),
        blocks: Usage { used: blocks.filter(|block| cidr.contains(*block)).count() as u64, total },
        addresses: told.fold(Usage::default(), |sum, usage| Usage {
            used: sum.used + u64::from(usage.used),
            total: sum.total + u64::from(usage.capacity),
        }),
    }
}

pub(super) fn read_node(node: Node, object: DynamicObject) -> Node {
    let network = match read::<NodeNetwork>(object) {
        Ok(network) => network,
        Err(unreadable) => return Node { revision: Some("?".into()), conditions: vec![unreadable], ..node },
    };
    let status = network.status.unwrap_or_default();
    let facts = status.datapath.unwrap_or_default();
    Node {
        addresses: network.spec.node_addresses.iter().map(ToString::to_string).collect(),
        mtu: Some(facts.mtu).filter(|mtu| *mtu > 0),
        kernel: Some(facts.kernel).filter(|kernel| !kernel.is_empty()),
        blocks: network.spec.blocks.iter().map(ToString::to_string).collect(),
        revision: Some(network.spec.revision),
        applied_revision: status.applied_revision,
        pod_addresses: status
            .addresses
            .map(|usage| Usage { used: usage.used.into(), total: usage.capacity.into() }),
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
