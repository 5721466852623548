//! Claims and `NodeNetworks`. Safe with several operators at once (docs/adr/0002): a NodeNetwork gets a block only
//! in a version that was seen before its node was, and a block is given back only after both are gone for good.

use std::collections::HashMap;

use ipnet::IpNet;
use netkeel_crds::{
    AddressBlock, NodeNetwork, NodeNetworkSpec,
    cluster_network::{Ipam, PodNetwork},
    node_network::{NodeConfig, State},
};
use sha2::{Digest, Sha256};

use super::{
    Outcome, Step,
    blocks::Free,
    claims::Claims,
    node_cidrs,
    pools::Holdings,
    release::{self, Returns},
};
use crate::observed::{Node, Observed};

pub(super) fn plan(config: &NodeConfig, spec: &PodNetwork, seen: &Observed, out: &mut Outcome) {
    let (pools, given) = (spec.pools.as_slice(), spec.ipam == Ipam::NodePodCIDRs);
    let networks: HashMap<&str, &NodeNetwork> = seen.node_networks.iter().map(|n| (name_of(n), n)).collect();
    let claims = claims_by_node(seen);
    let mut free = Free::new(pools, &config.pod_cidrs, &seen.blocks, seen.unreadable("AddressBlock"));
    let all_known = seen.unreadable("AddressBlock").next().is_none();
    for node in &seen.nodes {
        if seen.unreadable("NodeNetwork").any(|name| name == node.name) {
            continue; // what it has is not known
        }
        let owned = claims.get(node.uid.as_str()).map_or(&[][..], Vec::as_slice);
        let network = networks.get(node.name.as_str()).copied();
        let own = network.filter(|network| owner_uid(network) == Some(&node.uid));
        // what others give is not ours to give back
        let returns = release::plan(node, own, (owned, all_known && !given), (pools, &config.pools));
        // a claim that cannot be read may be the node's
        let has_some = !owned.is_empty() || network.is_some_and(|n| !n.spec.blocks.is_empty());
        if given && all_known {
            node_cidrs::plan(node, &seen.blocks, pools, out);
        } else if !given && (all_known || !has_some) {
            let active: Vec<_> =
                owned.iter().copied().filter(|claim| !returns.has(&claim.spec.cidr)).collect();
            let holdings = Holdings { owned: &active, network };
            Claims { node, holdings, kept: &returns.kept, pools, free: &mut free, out }.plan();
        }
        match (own, network) {
            (Some(own), _) => {
                out.steps.extend(write(own, node, (owned, all_known), &returns, config));
                out.steps.extend(returns.steps);
            }
            // of an older node of this name: its block is not inherited
            (None, Some(older)) => out.steps.extend(delete(older)),
            (None, None) => out.steps.push(create(node)),
        }
    }
    gone(seen, out);
}

/// What is left of nodes that are gone.
pub(super) fn gone(seen: &Observed, out: &mut Outcome) {
    let alive = |uid: Option<&str>| uid.is_some_and(|uid| seen.nodes.iter().any(|node| node.uid == uid));
    let named = |network: &NodeNetwork| seen.nodes.iter().any(|node| node.name == name_of(network));
    for network in &seen.node_networks {
        if !alive(owner_uid(network).map(String::as_str)) && !named(network) {
            out.steps.extend(delete(network));
        }
    }
    for block in &seen.blocks {
        if !alive(Some(&block.spec.node_uid)) {
            out.steps.extend(release(block));
        }
    }
}

fn claims_by_node(seen: &Observed) -> HashMap<&str, Vec<&AddressBlock>> {
    let mut claims: HashMap<&str, Vec<&AddressBlock>> = HashMap::new();
    for block in &seen.blocks {
        claims.entry(&block.spec.node_uid).or_default().push(block);
    }
    claims
}

fn create(node: &Node) -> Step {
    Step::CreateNodeNetwork { node: node.name.clone(), node_uid: node.uid.clone() }
}

fn delete(network: &NodeNetwork) -> Option<Step> {
    let uid = network.metadata.uid.clone()?;
    Some(Step::DeleteNodeNetwork { name: name_of(network).to_owned(), uid })
}

pub(super) fn release(block: &AddressBlock) -> Option<Step> {
    Some(Step::ReleaseBlock {
        name: block.metadata.name.clone()?,
        uid: block.metadata.uid.clone()?,
        node: block.spec.node.clone(),
        node_uid: block.spec.node_uid.clone(),
    })
}

/// Without knowing all claims no block is taken from the node.
fn write(
    network: &NodeNetwork,
    node: &Node,
    (owned, all_known): (&[&AddressBlock], bool),
    returns: &Returns,
    config: &NodeConfig,
) -> Option<Step> {
    let owned: Vec<_> =
        owned.iter().copied().filter(|claim| !returns.out.contains(&claim.spec.cidr)).collect();
    let blocks = ordered(&network.spec.blocks, &owned, all_known, returns);
    if blocks.is_empty() {
        return None;
    }
    let mut wanted = NodeNetworkSpec {
        node_addresses: node.addresses.clone(),
        blocks,
        releasing: returns.releasing.clone(),
        config: config.clone(),
        state: State::Active,
        ..NodeNetworkSpec::default()
    };
    wanted.revision = revision(&wanted);
    let new = owned.iter().filter(|claim| !network.spec.blocks.contains(&claim.spec.cidr));
    let entering = new.filter_map(|claim| Some((claim.metadata.name.clone()?, claim.metadata.uid.clone()?)));
    rewrite(network, wanted, entering.collect())
}

/// The step that brings `wanted` to the node, if it is not there, with the claims of the blocks that are new in it. Its trace is that
/// of the pass that does it.
pub(super) fn rewrite(
    network: &NodeNetwork,
    mut wanted: NodeNetworkSpec,
    entering: Vec<(String, String)>,
) -> Option<Step> {
    wanted.traceparent.clone_from(&network.spec.traceparent);
    if wanted == network.spec {
        return None;
    }
    wanted.traceparent = None;
    Some(Step::WriteNodeNetwork {
        node: name_of(network).to_owned(),
        uid: network.metadata.uid.clone()?,
        resource_version: network.metadata.resource_version.clone()?,
        entering,
        spec: Box::new(wanted),
    })
}

/// Blocks that the node has stay where they are: the first one of a family gives it its address on the overlay. Those that it gives
/// back come last, so that the node talks from its new address before the old one goes.
fn ordered(present: &[IpNet], owned: &[&AddressBlock], all_known: bool, returns: &Returns) -> Vec<IpNet> {
    let mut wanted: Vec<IpNet> = owned.iter().map(|block| block.spec.cidr).collect();
    wanted.sort_unstable();
    let kept = present.iter().copied().filter(|block| !all_known || wanted.contains(block));
    let added = wanted.iter().copied().filter(|block| !present.contains(block));
    let (last, first): (Vec<_>, Vec<_>) = kept.chain(added).partition(|block| returns.has(block));
    first.into_iter().chain(last).collect()
}

/// Hash of all that an agent acts on; the trace is not part of it.
#[must_use]
pub fn revision(spec: &NodeNetworkSpec) -> String {
    let acted_on = NodeNetworkSpec { revision: String::new(), traceparent: None, ..spec.clone() };
    let text = serde_json::to_vec(&acted_on).unwrap_or_default();
    let digest = Sha256::digest(text);
    digest[..8].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Whether the agent has applied what the object says.
#[must_use]
pub fn has_applied(network: &NodeNetwork) -> bool {
    let applied = network.status.as_ref().and_then(|status| status.applied_revision.as_deref());
    applied == Some(network.spec.revision.as_str())
}

pub(super) fn name_of(network: &NodeNetwork) -> &str {
    network.metadata.name.as_deref().unwrap_or_default()
}

fn owner_uid(network: &NodeNetwork) -> Option<&String> {
    let owners = network.metadata.owner_references.iter().flatten();
    owners.filter(|owner| owner.kind == "Node").map(|owner| &owner.uid).next()
}
