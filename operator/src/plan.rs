//! What has to be done, from what is seen: values in, steps out, in the order in which they must be done.

mod blocks;
mod claims;
pub(crate) mod dns;
mod node_cidrs;
mod nodes;
mod pools;
mod release;
mod removal;
mod validate;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;
use netkeel_crds::{
    CLEANUP, ClusterNetwork, NodeNetworkSpec,
    cluster_network::AddressPool,
    node_network::{NodeConfig, NodePool},
};
use serde_json::Value;

use crate::{observed::Observed, render, settings::Settings};

pub(crate) use dns::{Placed, is_handed_over};
pub use nodes::{has_applied, revision};
pub use removal::{NODE_WAIT, unremoved};

/// One change to the cluster. Data, not code: tests compare it and logs print it.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Puts our finalizer on the `ClusterNetwork`.
    HoldNetwork,
    /// Takes it away.
    LetNetworkGo,
    /// Makes an empty NodeNetwork owned by the node.
    CreateNodeNetwork { node: String, node_uid: String },
    /// Deletes a NodeNetwork, if it still is the one that was seen.
    DeleteNodeNetwork { name: String, uid: String },
    /// Claims a block for a node.
    ClaimBlock { cidr: IpNet, node: String, node_uid: String },
    /// Gives a block back, if no NodeNetwork of that node is left.
    ReleaseBlock { name: String, uid: String, node: String, node_uid: String },
    /// Gives back a block that its node has emptied, if the claim still is as it was seen.
    ReturnBlock { name: String, uid: String, resource_version: String },
    /// Writes the spec of a NodeNetwork, if it still is as it was seen, after it has renewed the claims of the blocks that come into
    /// it: names and UIDs.
    WriteNodeNetwork {
        node: String,
        uid: String,
        resource_version: String,
        entering: Vec<(String, String)>,
        spec: Box<NodeNetworkSpec>,
    },
    /// Makes a Service that leads to servers of others lead to ours, and nowhere else, in one write. Its address stays.
    TakeOver(Box<Part>),
    /// Makes an object be as rendered.
    Apply(Box<Part>),
    /// Deletes a rendered object.
    Delete(PartName),
}

/// Which object of ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartName {
    /// `apiVersion`.
    pub api_version: &'static str,
    /// `kind`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: &'static str,
}

/// An object of ours as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Which object.
    pub name: PartName,
    /// All that we want of it, as JSON.
    pub body: Value,
}

/// Something that stands in the way; it becomes a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Type of the condition that tells it.
    pub condition: &'static str,
    /// One word for it.
    pub reason: &'static str,
    /// Names the object and says what to do.
    pub message: String,
}

/// The result of planning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What has to be done, in this order.
    pub steps: Vec<Step>,
    /// What cannot be done, and why.
    pub problems: Vec<Problem>,
    /// The configuration in force on the nodes; none before the first valid one.
    pub config: Option<NodeConfig>,
    /// Address of the Service `kube-dns`.
    pub dns_cluster_ip: Option<IpAddr>,
    /// Whether the network is on its way out.
    pub removing: bool,
}

/// What to do for `seen`. `age` is the time in seconds since the deletion of the `ClusterNetwork` was asked for, zero before.
#[must_use]
pub fn plan(seen: &Observed, settings: &Settings, age: u64) -> Outcome {
    match &seen.network {
        None => Outcome::default(),
        Some(network) if network.metadata.deletion_timestamp.is_some() => {
            removal::plan(network, seen, settings, age)
        }
        Some(network) => network_of(network, seen, settings),
    }
}

fn network_of(network: &ClusterNetwork, seen: &Observed, settings: &Settings) -> Outcome {
    let mut out = Outcome::default();
    if !has_finalizer(network) {
        out.steps.push(Step::HoldNetwork);
    }
    out.problems.extend(validate::problems(&network.spec, seen));
    let pools = &network.spec.pod_network.pools;
    let removed = pools::removed(pools, seen);
    out.config =
        if out.problems.is_empty() { Some(config(network, &removed, seen)) } else { last_good(seen) };
    out.problems.extend(validate::removed(&removed, seen));
    out.problems.extend(validate::last_of_family(pools, seen));
    if let Some(config) = out.config.clone() {
        nodes::plan(&config, &network.spec.pod_network, seen, &mut out);
        agents(seen, settings, &mut out);
        dns::plan(network, seen, settings, &mut out);
    }
    out
}

/// The agents, unless another CNI serves the nodes and ours has not begun to.
fn agents(seen: &Observed, settings: &Settings, out: &mut Outcome) {
    let conflicts = validate::conflicts(seen);
    if seen.agents.is_some() || !seen.rivals.iter().any(|rival| rival.cni) {
        out.steps.push(Step::Apply(Box::new(render::agent::daemon_set(settings))));
    }
    out.problems.extend(conflicts);
}

/// What the spec says to every node, and of the pools that are gone from it.
fn config(network: &ClusterNetwork, removed: &[NodePool], seen: &Observed) -> NodeConfig {
    let pods = &network.spec.pod_network;
    let gone = removed.iter().flat_map(|pool| pool.cidrs.iter().copied());
    let known = pods.pools.iter().filter(|pool| !validate::is_stillborn(pool, seen));
    let known: Vec<AddressPool> = known.cloned().collect();
    NodeConfig {
        pod_cidrs: known.iter().flat_map(|pool| pool.cidrs.iter().copied()).chain(gone).collect(),
        pools: pools::for_nodes(&known).into_iter().chain(removed.iter().cloned()).collect(),
        encapsulation: pods.encapsulation,
        vxlan_port: pods.vxlan.port,
        mtu: match pods.mtu {
            netkeel_crds::cluster_network::Mtu::Auto => 0,
            netkeel_crds::cluster_network::Mtu::Bytes(bytes) => bytes,
        },
        masquerade: pods.masquerade.clone(),
        traces_endpoint: seen.collector.clone(),
    }
}

/// The configuration that the nodes have: it stays while the spec is not possible.
fn last_good(seen: &Observed) -> Option<NodeConfig> {
    let configured = |config: &&NodeConfig| !config.pod_cidrs.is_empty();
    seen.node_networks.iter().map(|node| &node.spec.config).find(configured).cloned()
}

fn has_finalizer(network: &ClusterNetwork) -> bool {
    network.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == CLEANUP)
}
