//! What the user reads: the status of the `ClusterNetwork`, from what was seen and planned.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use netkeel_crds::{
    ClusterNetwork, ClusterNetworkStatus, NodeNetwork,
    cluster_network::dns::Placement,
    cluster_network::{AddressPool, Effective, Ipam, PoolPhase, PoolState, PoolStatus, Rollout, Usage},
    condition::{self, kind},
    node_network::NodePool,
};

use serde_json::Value;

use crate::{
    observed::{Observed, Unreadable, Workload},
    plan::{Outcome, Placed, Step, dns::SETTINGS_REFUSED, has_applied, is_handed_over},
};

/// How many nodes a message names.
const NAMED: usize = 3;

/// What one condition says.
struct Says {
    kind: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

fn says(kind: &'static str, good: bool, reason: &'static str, message: impl Into<String>) -> Says {
    Says { kind, status: if good { "True" } else { "False" }, reason, message: message.into() }
}

/// The status after a pass. `failure` is what stopped it, if something did.
#[must_use]
pub fn status(
    network: &ClusterNetwork,
    seen: &Observed,
    outcome: &Outcome,
    failure: Option<&str>,
    now: &Time,
) -> ClusterNetworkStatus {
    let mut status = network.status.clone().unwrap_or_default();
    status.observed_generation = network.metadata.generation;
    status.pools = pools(network, seen, outcome);
    status.rollout = Some(rollout(seen, outcome));
    if outcome.config.is_some() {
        status.effective = Some(effective(network, seen, outcome));
    }
    let parts =
        [agents(seen, outcome), dns(network, seen, outcome), services(seen, outcome), conflicts(outcome)];
    let whole = whole(seen, outcome, failure, &parts);
    for part in parts.into_iter().chain(whole).chain(policy(seen)) {
        let mut new = condition::condition(part.kind, false, part.reason, part.message, now.clone());
        part.status.clone_into(&mut new.status);
        new.observed_generation = network.metadata.generation;
        condition::set(&mut status.conditions, new);
    }
    status.conditions.sort_by_key(order);
    status
}

/// The conditions of a network that cannot be read: those it has, as they are, and `Degraded` with the reason. Nothing when
/// they say so already.
#[must_use]
pub fn unreadable(network: &Unreadable, now: &Time) -> Option<Vec<Value>> {
    let present = network.object.pointer("/status/conditions").and_then(Value::as_array).cloned();
    let mut conditions = present.unwrap_or_default();
    let message = format!(
        "ClusterNetwork default cannot be read, what the nodes have stays in force: {}; correct it with kubectl edit \
         clusternetwork default, or install the version of Netkeel that it is written for",
        network.error
    );
    let mut new = condition::condition(kind::DEGRADED, true, "Undecodable", message, now.clone());
    new.observed_generation = network.object["metadata"]["generation"].as_i64();
    let position = conditions.iter().position(|condition| condition["type"] == kind::DEGRADED);
    let old: Option<Condition> =
        position.and_then(|position| serde_json::from_value(conditions[position].clone()).ok());
    let mut degraded: Vec<Condition> = old.into_iter().collect();
    if !condition::set(&mut degraded, new) {
        return None;
    }
    let degraded = serde_json::to_value(&degraded[0]).unwrap_or_default();
    match position {
        Some(position) => conditions[position] = degraded,
        None => conditions.push(degraded),
    }
    Some(conditions)
}

fn order(condition: &Condition) -> usize {
    const ORDER: [&str; 8] = [
        kind::AVAILABLE,
        kind::PROGRESSING,
        kind::DEGRADED,
        kind::AGENTS_READY,
        kind::DNS_READY,
        kind::SERVICE_NETWORK_READY,
        kind::POLICY_READY,
        kind::CONFLICTS,
    ];
    ORDER.iter().position(|kind| *kind == condition.type_).unwrap_or(ORDER.len())
}

fn problem<'a>(outcome: &'a Outcome, kind: &str) -> Option<&'a crate::plan::Problem> {
    outcome.problems.iter().find(|problem| problem.condition == kind)
}

/// Whether the node's agent has applied what it should, and serves.
pub(crate) fn is_updated(network: &NodeNetwork) -> bool {
    let ready = network.status.as_ref().is_some_and(|it| condition::is_true(&it.conditions, kind::READY));
    !network.spec.revision.is_empty() && has_applied(network) && ready
}

fn agents(seen: &Observed, outcome: &Outcome) -> Says {
    if outcome.removing {
        return says(kind::AGENTS_READY, false, "Removing", "the network is being removed");
    }
    if let Some(problem) = problem(outcome, kind::CONFLICTS).filter(|_| seen.agents.is_none()) {
        return says(kind::AGENTS_READY, false, problem.reason, problem.message.clone());
    }
    if seen.nodes.is_empty() {
        return says(kind::AGENTS_READY, false, "NoNodes", "no node has joined the cluster yet");
    }
    let behind: Vec<String> = seen.nodes.iter().filter_map(|node| trouble(node, seen)).collect();
    if behind.is_empty() {
        return says(kind::AGENTS_READY, true, "AllReady", format!("all {} nodes", seen.nodes.len()));
    }
    let named = behind[..behind.len().min(NAMED)].join("; ");
    let more = behind.len().saturating_sub(NAMED);
    let rest =
        if more > 0 { format!("; and {more} more, see kubectl get nodenetworks") } else { String::new() };
    says(kind::AGENTS_READY, false, "NodesNotReady", format!("{named}{rest}"))
}

/// What keeps one node, named.
fn trouble(node: &crate::observed::Node, seen: &Observed) -> Option<String> {
    let name = &node.name;
    let networks = &seen.node_networks;
    let Some(network) = networks.iter().find(|network| network.metadata.name.as_deref() == Some(name)) else {
        return Some(format!("node {name}: no NodeNetwork yet"));
    };
    if is_updated(network) {
        return None;
    }
    let ready = network.status.as_ref().and_then(|status| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind::READY && condition.status != "True")
    });
    Some(match ready {
        Some(condition) => format!("node {name}: {}", condition.message),
        None if network.status.is_none() => {
            format!(
                "node {name}: its agent has not reported yet, see kubectl -n netkeel-system get pods -o wide"
            )
        }
        None => format!("node {name}: its agent has not applied the present configuration yet"),
    })
}

fn dns(network: &ClusterNetwork, seen: &Observed, outcome: &Outcome) -> Says {
    if let Some(problem) = problem(outcome, kind::DNS_READY) {
        let status = if problem.reason == "ForeignService" { "Unknown" } else { "False" };
        return Says {
            kind: kind::DNS_READY,
            status,
            reason: problem.reason,
            message: problem.message.clone(),
        };
    }
    let Placed { present, former } = Placed::of(network, seen);
    let Workload { ready, wanted, .. } = present.unwrap_or_default();
    let (object, counted) = match network.spec.dns.placement {
        Placement::Replicas => ("Deployment", format!("{ready} of {wanted} servers ready")),
        Placement::EveryNode => ("DaemonSet", format!("{ready} of {wanted} nodes have a ready server")),
    };
    let former = former.map_or(0, |former| former.ready);
    let refused = outcome.problems.iter().find(|problem| problem.reason == SETTINGS_REFUSED);
    if is_handed_over(seen) {
        let until = "Service kube-system/kube-dns leads to its former servers until all are";
        let message = format!("{counted}; {until}");
        return Says { kind: kind::DNS_READY, status: "Unknown", reason: "TakingOver", message };
    }
    let (good, reason, message) = if let Some(problem) = refused.filter(|_| former + ready > 0) {
        (true, SETTINGS_REFUSED, format!("{counted}; {}", problem.message))
    } else if former > 0 {
        let placement = network.spec.dns.placement;
        (
            true,
            "Moving",
            format!(
                "{counted} of placement {placement:?}; {former} of the former placement stay until all are"
            ),
        )
    } else if ready > 0 {
        (true, "Serving", counted)
    } else if present.is_some() {
        let look = "kubectl -n kube-system describe pods -l k8s-app=kube-dns";
        (false, "NotServing", format!("none of {wanted} servers is ready: {look}"))
    } else {
        (false, "Missing", format!("{object} kube-system/netkeel-dns is not there"))
    };
    says(kind::DNS_READY, good, reason, message)
}

fn services(seen: &Observed, outcome: &Outcome) -> Says {
    if let Some(problem) = problem(outcome, kind::SERVICE_NETWORK_READY) {
        return says(kind::SERVICE_NETWORK_READY, false, problem.reason, problem.message.clone());
    }
    let cidrs: Vec<String> = seen.service_cidrs.iter().map(IpNet::to_string).collect();
    says(kind::SERVICE_NETWORK_READY, true, "Known", format!("Services are in {}", cidrs.join(", ")))
}

/// Policies on all nodes: what one agent says of a policy all say, so each thing is told once. `None` before any agent has spoken.
fn policy(seen: &Observed) -> Option<Says> {
    let told = seen.node_networks.iter().filter_map(|network| {
        let conditions = &network.status.as_ref()?.conditions;
        let found = conditions.iter().find(|condition| condition.type_ == kind::POLICY_READY)?;
        Some((network.metadata.name.as_deref().unwrap_or_default(), found))
    });
    let told: Vec<_> = told.collect();
    let first = told.first()?;
    let bad: Vec<_> = told.iter().filter(|(_, condition)| condition.status != "True").collect();
    let Some((_, worst)) = bad.first() else {
        return Some(says(kind::POLICY_READY, true, "InForce", first.1.message.clone()));
    };
    let mut by_message: Vec<(&str, Vec<&str>)> = Vec::new();
    for (node, condition) in &bad {
        match by_message.iter_mut().find(|(message, _)| *message == condition.message) {
            Some((_, nodes)) => nodes.push(node),
            None => by_message.push((&condition.message, vec![node])),
        }
    }
    let line = |(message, nodes): &(&str, Vec<&str>)| match nodes.as_slice() {
        [node] => format!("node {node}: {message}"),
        nodes => format!("{} nodes: {message}", nodes.len()),
    };
    let message = by_message.iter().take(NAMED).map(line).collect::<Vec<_>>().join("; ");
    let reason = REASONS.iter().copied().find(|reason| *reason == worst.reason).unwrap_or("NotInForce");
    Some(says(kind::POLICY_READY, false, reason, message))
}

/// What agents give as reasons for policies that are not in force.
const REASONS: [&str; 5] = ["ProgrammingFailed", "Invalid", "Unsupported", "PodsUnknown", "Starting"];

fn conflicts(outcome: &Outcome) -> Says {
    match problem(outcome, kind::CONFLICTS) {
        Some(problem) => says(kind::CONFLICTS, true, problem.reason, problem.message.clone()),
        None => says(kind::CONFLICTS, false, "None", "no other network was found"),
    }
}

/// Available, Progressing and Degraded.
fn whole(seen: &Observed, outcome: &Outcome, failure: Option<&str>, parts: &[Says; 4]) -> [Says; 3] {
    let [agents, dns, services, _] = parts;
    let bad = [agents, services, dns].into_iter().find(|part| part.status == "False");
    let available = match bad {
        None => says(kind::AVAILABLE, true, "Ready", "pods, Services and names work on every node"),
        Some(part) => says(kind::AVAILABLE, false, part.reason, part.message.clone()),
    };
    let rollout = rollout(seen, outcome);
    let progressing = if outcome.removing {
        says(kind::PROGRESSING, true, "Removing", "the network is being removed")
    } else if rollout.updated < rollout.total {
        says(
            kind::PROGRESSING,
            true,
            "RollingOut",
            format!("{} nodes have the present configuration", rollout.summary),
        )
    } else {
        says(
            kind::PROGRESSING,
            false,
            "RolledOut",
            format!("{} nodes have the present configuration", rollout.summary),
        )
    };
    let unreadable = (!seen.undecodable.is_empty()).then(|| {
        format!(
            "cannot be read and is left out: {}; look at it with kubectl get -o yaml",
            seen.undecodable.join(", ")
        )
    });
    let degraded = match (failure, problem(outcome, kind::DEGRADED), unreadable) {
        (Some(failure), _, _) => says(kind::DEGRADED, true, "ApplyFailed", failure),
        (None, Some(problem), _) => says(kind::DEGRADED, true, problem.reason, problem.message.clone()),
        (None, None, Some(message)) => says(kind::DEGRADED, true, "Undecodable", message),
        (None, None, None) => says(kind::DEGRADED, false, "AsExpected", "nothing stands in the way"),
    };
    [available, progressing, degraded]
}

fn effective(network: &ClusterNetwork, seen: &Observed, outcome: &Outcome) -> Effective {
    let mtus =
        seen.node_networks.iter().filter_map(|node| Some(node.status.as_ref()?.datapath.as_ref()?.mtu));
    Effective {
        pod_cidrs: outcome.config.as_ref().map(|config| config.pod_cidrs.clone()).unwrap_or_default(),
        service_cidrs: seen.service_cidrs.clone(),
        dns_cluster_ip: outcome.dns_cluster_ip,
        cluster_domain: network.spec.dns.cluster_domain.clone(),
        mtu: mtus.filter(|mtu| *mtu > 0).min(),
    }
}

/// Use of each CIDR of the pools in force, in the spec's order, of those on their way out that no node knows, and of those that are
/// not in the spec any more.
fn pools(network: &ClusterNetwork, seen: &Observed, outcome: &Outcome) -> Vec<PoolStatus> {
    let Some(config) = &outcome.config else { return Vec::new() };
    let spec = &network.spec.pod_network.pools;
    let unknown = |pool: &AddressPool| NodePool {
        name: pool.name.clone(),
        cidrs: pool.cidrs.clone(),
        state: pool.state,
        ..NodePool::default()
    };
    let known = spec.iter().filter_map(|pool| {
        let in_force = config.pools.iter().find(|in_force| in_force.name == pool.name).cloned();
        let in_force = in_force.or_else(|| (!pool.state.is_active()).then(|| unknown(pool)))?;
        Some((in_force, Some(pool)))
    });
    let removed = config.pools.iter().filter(|pool| spec.iter().all(|other| other.name != pool.name));
    let all: Vec<_> = known.chain(removed.map(|pool| (pool.clone(), None))).collect();
    let ipam = network.spec.pod_network.ipam;
    let of_cidrs = all.iter().flat_map(|(pool, of_spec)| {
        pool.cidrs.iter().map(move |cidr| pool_status((pool, *of_spec), *cidr, ipam, seen))
    });
    of_cidrs.collect()
}

/// How far a pool is on its way out.
fn phase(pool: &NodePool, seen: &Observed) -> PoolPhase {
    let unknown = seen.unreadable("AddressBlock").chain(seen.unreadable("NodeNetwork")).next().is_some();
    match pool.state {
        PoolState::Active => PoolPhase::Active,
        PoolState::Draining if unknown || seen.has_blocks_in(&pool.cidrs) => PoolPhase::Draining,
        PoolState::Draining => PoolPhase::Removable,
    }
}

fn pool_status(
    (in_force, pool): (&NodePool, Option<&AddressPool>),
    cidr: IpNet,
    ipam: Ipam,
    seen: &Observed,
) -> PoolStatus {
    let blocks = count(seen.blocks.iter().filter(|block| cidr.contains(&block.spec.cidr)).count());
    let given = seen.nodes.iter().flat_map(|node| &node.pod_cidrs).find(|given| cidr.contains(*given));
    let given = given.filter(|_| ipam == Ipam::NodePodCIDRs).map(IpNet::prefix_len);
    let size = |pool: &AddressPool| given.unwrap_or_else(|| pool.block_sizes.of(&cidr));
    let bits = |pool: &AddressPool| u32::from(size(pool).saturating_sub(cidr.prefix_len()));
    let capacity = pool.map_or(blocks, |pool| 1_u32.checked_shl(bits(pool)).unwrap_or(u32::MAX));
    let told = seen.node_networks.iter().filter_map(|node| node.status.as_ref());
    let told = told.flat_map(|status| &status.blocks).filter(|usage| cidr.contains(&usage.cidr));
    let addresses = told.fold(Usage::default(), |sum, usage| Usage {
        used: sum.used.saturating_add(usage.used),
        capacity: sum.capacity.saturating_add(usage.capacity),
    });
    let (name, state) = (in_force.name.clone(), phase(in_force, seen));
    PoolStatus { name, cidr: cidr.to_string(), state, blocks: Usage { used: blocks, capacity }, addresses }
}

/// A node that was written to after it was seen has still to apply that.
fn rollout(seen: &Observed, outcome: &Outcome) -> Rollout {
    let written: HashSet<&str> = outcome
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::WriteNodeNetwork { node, .. } => Some(node.as_str()),
            _ => None,
        })
        .collect();
    let told =
        |network: &NodeNetwork| network.metadata.name.as_deref().is_some_and(|name| written.contains(name));
    let updated = seen.node_networks.iter().filter(|network| is_updated(network) && !told(network));
    let updated = count(updated.count());
    let total = count(seen.nodes.len());
    let revision = outcome.config.as_ref().map(|config| {
        crate::plan::revision(&netkeel_crds::NodeNetworkSpec { config: config.clone(), ..Default::default() })
    });
    Rollout { revision: revision.unwrap_or_default(), updated, total, summary: format!("{updated}/{total}") }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
