//! The way out: DNS while pods still have a network, then every node, then what is left in the API.

use netkeel_crds::{
    ClusterNetwork, NodeNetwork, NodeNetworkSpec,
    condition::{
        is_true,
        kind::{DEGRADED, REMOVED},
    },
    node_network::State,
};

use super::{Outcome, Problem, Step, has_finalizer, nodes};
use crate::{observed::Observed, render, settings::Settings};

/// Seconds that a node has to clean up: after that it is left as it is, and named.
pub const NODE_WAIT: u64 = 150;
/// Seconds that a node has whose kubelet does not report any more.
const UNREACHABLE_WAIT: u64 = 30;

pub(super) fn plan(network: &ClusterNetwork, seen: &Observed, settings: &Settings, age: u64) -> Outcome {
    let mut out = Outcome { removing: true, config: super::last_good(seen), ..Outcome::default() };
    if !has_finalizer(network) {
        return out;
    }
    if remove_dns(seen, &mut out) || remove_from_nodes(seen, settings, age, &mut out) {
        return out;
    }
    if let Some(agents) = seen.agents {
        if !agents.deleted {
            out.steps.push(Step::Delete(render::agent::name(settings)));
        }
        return out;
    }
    out.steps.extend(seen.node_networks.iter().filter_map(|network| {
        let uid = network.metadata.uid.clone()?;
        Some(Step::DeleteNodeNetwork { name: nodes::name_of(network).to_owned(), uid })
    }));
    if seen.node_networks.is_empty() {
        out.steps.extend(seen.blocks.iter().filter_map(nodes::release));
        if seen.blocks.is_empty() {
            out.steps.push(Step::LetNetworkGo);
        }
    }
    out
}

/// Takes DNS away; true while something of it is there.
fn remove_dns(seen: &Observed, out: &mut Outcome) -> bool {
    let service = seen.dns.service.as_ref().is_some_and(|service| service.ours && service.leads_to_us);
    if service {
        out.steps.push(Step::Delete(render::dns::service_name()));
    }
    let (replicas, nodes) = (seen.dns.servers, seen.dns.node_servers);
    let servers = replicas.or(nodes);
    if seen.dns.policy && servers.is_none() {
        out.steps.push(Step::Delete(render::dns::policy_name()));
    }
    for (servers, name) in
        [(replicas, render::dns::deployment_name()), (nodes, render::dns::daemon_set_name())]
    {
        if servers.is_some_and(|servers| !servers.deleted) {
            out.steps.push(Step::Delete(name));
        }
    }
    service || servers.is_some() || seen.dns.policy
}

/// Asks the agents to clean up, made anew should somebody have deleted them; true while one still has to.
fn remove_from_nodes(seen: &Observed, settings: &Settings, age: u64, out: &mut Outcome) -> bool {
    let rolled_out = seen.agents.is_some_and(|agents| !agents.deleted);
    // without agents only nodes that had one are dirty
    let dirty: Vec<&NodeNetwork> =
        unremoved(seen).filter(|network| rolled_out || network.status.is_some()).collect();
    if !rolled_out && dirty.is_empty() {
        return false;
    }
    for network in &seen.node_networks {
        let mut wanted = NodeNetworkSpec { state: State::Removing, ..network.spec.clone() };
        wanted.revision = nodes::revision(&wanted);
        out.steps.extend(nodes::rewrite(network, wanted, Vec::new()));
    }
    let waiting = dirty.iter().any(|network| age < patience(network, seen));
    if waiting && !rolled_out {
        out.steps.push(Step::Apply(Box::new(render::agent::daemon_set(settings))));
    }
    let late: Vec<&str> = dirty.into_iter().map(nodes::name_of).collect();
    if !late.is_empty() {
        let reason = if waiting { "Removing" } else { "NodesNotCleaned" };
        let message = format!("not cleaned up yet: node {}", late.join(", "));
        out.problems.push(Problem { condition: DEGRADED, reason, message });
    }
    waiting
}

/// Nodes whose agent has not reported that it has cleaned up.
pub fn unremoved(seen: &Observed) -> impl Iterator<Item = &NodeNetwork> {
    seen.node_networks
        .iter()
        .filter(|network| !network.status.as_ref().is_some_and(|status| is_true(&status.conditions, REMOVED)))
}

/// Seconds from the deletion for which `network`'s node is waited for.
fn patience(network: &NodeNetwork, seen: &Observed) -> u64 {
    let node = seen.nodes.iter().find(|node| node.name == nodes::name_of(network));
    match node {
        None => 0,
        Some(node) if node.reachable => NODE_WAIT,
        Some(_) => UNREACHABLE_WAIT,
    }
}
