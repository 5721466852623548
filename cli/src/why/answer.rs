//! From objects and a question to what policy says, why, and what to do about it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::{
    core::v1::{Namespace, Node as KubeNode, Pod, Service},
    networking::v1::NetworkPolicy,
};
use kube::{ResourceExt, api::DynamicObject};
use netkeel_core::{
    address::{Address, Addresses, Family},
    name::ObjectName,
    policy::{self, Direction, Explanation, Numbers, Party, Side, World},
};
use netkeel_crds::NodeNetwork;
use netkeel_index::{Invalid, Policies, convert::policy::PodReader};
use serde::de::DeserializeOwned;

use super::{End, Target, source::Objects};
use crate::status::nodes_of;

/// What policy says of some traffic.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) target: Target,
    /// Where the families differ, one that is denied.
    pub(crate) explanation: Explanation,
    /// What each family has; nothing where it is the same in all that there are.
    pub(crate) families: Vec<(Family, Explanation)>,
    /// What makes the answer less than certain, or needs to be known beside it.
    pub(crate) notes: Vec<String>,
    /// What to do; nothing where the traffic passes.
    pub(crate) next: Vec<String>,
}

/// Answers a question.
pub(crate) fn answer(objects: &Objects, from: &End, target: &Target) -> Result<Answer> {
    let index = index(objects);
    let world = index.world();
    let mut families = explanations(objects, world, from, target)?;
    let worst = families.iter().position(|(_, explanation)| !explanation.allowed).unwrap_or(0);
    let explanation = families[worst].1.clone();
    let same = |(_, other): &(_, Explanation)| {
        (&other.egress, &other.ingress) == (&explanation.egress, &explanation.ingress)
    };
    if families.iter().all(same) {
        families.clear();
    }
    let mut notes = Vec::new();
    for party in [&explanation.from, &explanation.to] {
        notes.extend(enforcement(objects, world, party));
    }
    notes.dedup();
    notes.extend(doubts(&index, world, &explanation));
    if !objects.forbidden.is_empty() {
        notes.push(format!(
            "you may not list {}: they are not part of this answer",
            objects.forbidden.join(", ")
        ));
    }
    let next = next(&explanation, target);
    Ok(Answer { target: target.clone(), explanation, families, notes, next })
}

/// What policy says over each family in which the ends can meet; at least one.
fn explanations(
    objects: &Objects,
    world: &World,
    from: &End,
    target: &Target,
) -> Result<Vec<(Family, Explanation)>> {
    let (sources, destinations) = (parties(objects, world, from)?, parties(objects, world, &target.end)?);
    let (protocol, port) = target.port.map_or((0, 0), |(protocol, port)| (protocol as u8, port));
    let mut found = Vec::new();
    for (source, destination) in sources.iter().flat_map(|from| destinations.iter().map(move |to| (from, to)))
    {
        let over = policy::families(world, source, destination);
        found.extend(over.map(|family| {
            (family, policy::explain_over(world, source, destination, protocol, port, family))
        }));
    }
    if found.is_empty() {
        bail!("{from} and {} have no family of addresses in common: nothing passes between them", target.end);
    }
    Ok(found)
}

/// The objects as policy knows them.
fn index(objects: &Objects) -> Policies {
    let mut index = Policies::new("", Numbers::default());
    let mut invalid = Vec::new();
    let namespaces = read::<Namespace>("Namespace", &objects.namespaces, &mut invalid);
    let pods = read::<Pod>("Pod", &objects.pods, &mut invalid);
    let policies = read::<NetworkPolicy>("NetworkPolicy", &objects.policies, &mut invalid);
    index.reset_namespaces(&namespaces, &[]);
    let mut reader = PodReader::default();
    index.reset_pods(pods.iter().map(|pod| reader.read(pod)).collect(), &[]);
    index.reset_policies(&policies, &[]);
    index.set_nodes(node_addresses(objects));
    for object in invalid {
        index.undecodable(object);
    }
    index
}

/// Those that can be read.
fn read<K: DeserializeOwned + kube::Resource>(
    kind: &'static str,
    objects: &[DynamicObject],
    invalid: &mut Vec<Invalid>,
) -> Vec<K> {
    let mut good = Vec::new();
    for object in objects {
        match object.clone().try_parse() {
            Ok(object) => good.push(object),
            Err(error) => {
                let name = ObjectName::new(&object.namespace().unwrap_or_default(), &object.name_any());
                invalid.push(Invalid { kind, name, reason: error.to_string() });
            }
        }
    }
    good
}

/// Addresses of nodes, inside the overlay included, with the nodes' names.
fn node_addresses(objects: &Objects) -> BTreeMap<Address, Arc<str>> {
    let mut addresses = BTreeMap::new();
    for node in parsed::<KubeNode>(&objects.nodes) {
        let name: Arc<str> = node.name_any().into();
        addresses.extend(internal(&node).map(|address| (Address::from(address), name.clone())));
    }
    for network in parsed::<NodeNetwork>(&objects.node_networks) {
        let name: Arc<str> = network.name_any().into();
        let overlay = Addresses::of(network.spec.blocks.iter().map(ipnet::IpNet::network));
        let own = network.spec.node_addresses.iter().copied().chain(overlay.iter());
        addresses.extend(own.map(|address| (Address::from(address), name.clone())));
    }
    addresses
}

fn internal(node: &KubeNode) -> impl Iterator<Item = IpAddr> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse().ok())
}

fn parsed<K: DeserializeOwned + kube::Resource>(objects: &[DynamicObject]) -> impl Iterator<Item = K> {
    objects.iter().filter_map(|object| object.clone().try_parse().ok())
}

/// Whom an end means: a node by its first address of each family.
fn parties(objects: &Objects, world: &World, end: &End) -> Result<Vec<Party>> {
    match end {
        End::Pod { namespace, name } => {
            let name = ObjectName::new(namespace, name);
            if !world.pods.contains_key(&name) {
                bail!("there is no pod {name}: kubectl -n {namespace} get pods");
            }
            Ok(vec![Party::Pod(name)])
        }
        End::Node(name) => {
            let network = parsed::<NodeNetwork>(&objects.node_networks).find(|node| node.name_any() == *name);
            let node = parsed::<KubeNode>(&objects.nodes).find(|node| node.name_any() == *name);
            let own = network.into_iter().flat_map(|network| network.spec.node_addresses);
            let known = Addresses::of(own.chain(node.iter().flat_map(internal)));
            known
                .first()
                .with_context(|| format!("no address of node {name} is known: kubectl get nodes"))?;
            Ok(known.iter().map(|address| Party::Address(address.into())).collect())
        }
        End::Address(address) => {
            let has = |service: &Service| {
                let spec = service.spec.iter();
                let mut ips = spec.flat_map(|spec| spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip));
                ips.any(|ip| ip.parse() == Ok(*address))
            };
            if let Some(service) = parsed::<Service>(&objects.services).find(has) {
                let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
                bail!(
                    "{address} is the address of Service {namespace}/{name}; policy sees the pod behind it, so ask for one: \
                     kubectl -n {namespace} get endpointslices -l kubernetes.io/service-name={name}"
                );
            }
            Ok(vec![Party::Address(Address::from(*address))])
        }
    }
}

/// Whether the node of a pod enforces what the objects say now.
fn enforcement(objects: &Objects, world: &World, party: &Party) -> Option<String> {
    let Party::Pod(name) = party else { return None };
    let pod = world.pods.get(name).filter(|pod| pod.is_subject())?;
    let Some(node) = pod.node.as_deref() else {
        return Some(format!("pod {name} has no node yet: nothing is enforced for it"));
    };
    if pod.addresses.is_empty() {
        return Some(format!("pod {name} has no address yet"));
    }
    let nodes = nodes_of(objects.nodes.clone(), objects.node_networks.clone(), objects.pods.clone());
    let problem = nodes.iter().find(|one| one.name == node)?.problem()?;
    Some(format!(
        "{}; what is enforced for pod {name} may be older than this answer: {}",
        problem.what, problem.next
    ))
}

/// Policies that matter here and are not in force as they are written.
fn doubts(index: &Policies, world: &World, explanation: &Explanation) -> Vec<String> {
    let isolating = [&explanation.egress, &explanation.ingress].into_iter().flat_map(isolated_by);
    let isolating: Vec<&ObjectName> = isolating.collect();
    let namespaces: Vec<&str> = [&explanation.from, &explanation.to]
        .into_iter()
        .filter_map(|party| match party {
            Party::Pod(name) => world.pods.get(name).map(|pod| &*pod.name.namespace),
            Party::Address(_) => None,
        })
        .collect();
    let invalid = index.problems().iter().filter(|invalid| namespaces.contains(&&*invalid.name.namespace));
    let left_out = index.unsupported().filter(|part| isolating.contains(&&part.policy));
    invalid.map(ToString::to_string).chain(left_out.map(ToString::to_string)).collect()
}

/// The policies that isolate a side.
pub(super) fn isolated_by(side: &Side) -> &[ObjectName] {
    match side {
        Side::Allowed { isolated_by, .. } | Side::Denied { isolated_by } => isolated_by,
        _ => &[],
    }
}

/// What to do about each side that denies.
fn next(explanation: &Explanation, target: &Target) -> Vec<String> {
    let sides = [
        (Direction::Egress, &explanation.egress, &explanation.from, "to", &explanation.to),
        (Direction::Ingress, &explanation.ingress, &explanation.to, "from", &explanation.from),
    ];
    let advice = sides.into_iter().filter_map(|(direction, side, own, word, other)| match (side, own) {
        (Side::Denied { isolated_by }, Party::Pod(pod)) => {
            let namespace = &pod.namespace;
            let names: Vec<&str> = isolated_by.iter().map(|policy| &*policy.name).collect();
            Some(format!(
                "give {own} an {direction} rule {word} {other} for {} in one of these policies or in one more: \
                 kubectl -n {namespace} describe networkpolicy {}",
                target.traffic(),
                names.join(" ")
            ))
        }
        (Side::Unknown, Party::Pod(pod)) => {
            Some(format!("see whether it runs: kubectl -n {} get pod {}", pod.namespace, pod.name))
        }
        _ => None,
    });
    advice.collect()
}
