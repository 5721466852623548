//! What one object cannot know: overlaps with Services and nodes, and other networks in the cluster.

use std::net::IpAddr;

use ipnet::IpNet;
use netkeel_crds::{
    AddressBlock, ClusterNetworkSpec,
    cluster_network::{AddressPool, Encapsulation},
    condition::kind::{CONFLICTS, DEGRADED, SERVICE_NETWORK_READY},
    node_network::NodePool,
};

use super::{
    Problem,
    pools::{active_cidrs, family, is_v4},
};
use crate::observed::{Observed, Rival};

/// What to do about a pool that has addresses of others.
const AWAY: &str = "add a pool with another CIDR, set the state of this one to Draining, and remove it when status.pools says Removable";

/// Whether a pool on its way out has addresses of others, and no node a block of it: then no node needs to know of it.
pub(super) fn is_stillborn(pool: &AddressPool, seen: &Observed) -> bool {
    let of_others = |cidr: &IpNet| {
        seen.service_cidrs.iter().any(|services| overlap(cidr, services))
            || seen.nodes.iter().flat_map(|node| &node.addresses).any(|address| cidr.contains(address))
    };
    !pool.state.is_active() && !seen.has_blocks_in(&pool.cidrs) && pool.cidrs.iter().any(of_others)
}

/// Why the spec cannot be brought to the nodes.
pub(super) fn problems(spec: &ClusterNetworkSpec, seen: &Observed) -> Vec<Problem> {
    let mut problems = Vec::new();
    if seen.service_cidrs.is_empty() {
        problems.push(Problem {
            condition: SERVICE_NETWORK_READY,
            reason: "NoServiceCIDR",
            message: "the cluster has no ServiceCIDR: create one, kubectl explain servicecidr".to_owned(),
        });
    }
    let pools = &spec.pod_network.pools;
    problems.extend(strangers(pools, &seen.service_cidrs));
    // what is wrong with a pool on its way out keeps nobody
    for (pool, cidr) in active_cidrs(pools) {
        problems.extend(seen.service_cidrs.iter().filter(|services| overlap(cidr, services)).map(
            |services| Problem {
                condition: DEGRADED,
                reason: "PoolOverlapsServices",
                message: format!(
                    "pool {} ({cidr}) overlaps the service addresses {services}: {AWAY}",
                    pool.name
                ),
            },
        ));
        problems.extend(seen.nodes.iter().filter_map(|node| {
            let address = node.addresses.iter().find(|address| cidr.contains(*address))?;
            Some(Problem {
                condition: DEGRADED,
                reason: "PoolOverlapsNode",
                message: format!(
                    "pool {} ({cidr}) contains {address}, the address of node {}: {AWAY}",
                    pool.name, node.name
                ),
            })
        }));
    }
    problems.extend(unroutable(spec, seen));
    problems
}

/// Without a tunnel a node is the next hop to its pods in each of their families, also to those of a pool on its way out.
fn unroutable(spec: &ClusterNetworkSpec, seen: &Observed) -> Option<Problem> {
    if spec.pod_network.encapsulation != Encapsulation::None {
        return None;
    }
    let pools = spec.pod_network.pools.iter();
    let pools = pools.filter(|pool| pool.state.is_active() || seen.has_blocks_in(&pool.cidrs));
    let mut cidrs = pools.flat_map(|pool| pool.cidrs.iter().map(move |cidr| (pool, cidr)));
    cidrs.find_map(|(pool, cidr)| {
        let lacks = |addresses: &[IpAddr]| {
            !addresses.is_empty() && !addresses.iter().any(|address| address.is_ipv4() == is_v4(cidr))
        };
        let node = seen.nodes.iter().find(|node| lacks(&node.addresses))?;
        let family = family(is_v4(cidr));
        Some(Problem {
            condition: DEGRADED,
            reason: "NodeWithoutFamily",
            message: format!(
                "node {} has no {family} address, and pool {} ({cidr}) cannot be routed to it: set spec.podNetwork.encapsulation to \
                 VXLANCrossSubnet or VXLAN, or give the node an {family} address",
                node.name, pool.name
            ),
        })
    })
}

/// Pools that are gone from the spec and not from the nodes.
pub(super) fn removed<'a>(
    pools: &'a [NodePool],
    seen: &'a Observed,
) -> impl Iterator<Item = Problem> + use<'a> {
    pools.iter().map(|pool| {
        let of_pool = |block: &&AddressBlock| pool.cidrs.iter().any(|cidr| cidr.contains(&block.spec.cidr));
        let blocks = seen.blocks.iter().filter(of_pool).count();
        let cidrs: Vec<String> = pool.cidrs.iter().map(ToString::to_string).collect();
        Problem {
            condition: DEGRADED,
            reason: "PoolRemoved",
            message: format!(
                "pool {} of {} is not in spec.podNetwork.pools, and nodes have {blocks} blocks of it, which stay in force until \
                 their pods are gone: delete or restart those pods, or add the pool again",
                pool.name, cidrs.join(", ")
            ),
        }
    })
}

/// Pools that cannot be drained, since no other has addresses of a family of which nodes have blocks.
pub(super) fn last_of_family(pools: &[AddressPool], seen: &Observed) -> impl Iterator<Item = Problem> {
    let held = |cidr: &IpNet| {
        let blocks = seen.node_networks.iter().flat_map(|network| &network.spec.blocks);
        blocks.into_iter().any(|block| cidr.contains(block))
    };
    let draining = pools.iter().filter(|pool| !pool.state.is_active());
    let cidrs = draining.flat_map(|pool| pool.cidrs.iter().map(move |cidr| (pool, cidr)));
    let last = cidrs.filter(move |(_, cidr)| {
        held(cidr) && !active_cidrs(pools).any(|(_, other)| is_v4(other) == is_v4(cidr))
    });
    last.map(|(pool, cidr)| {
        let family = family(is_v4(cidr));
        Problem {
            condition: DEGRADED,
            reason: "LastOfFamily",
            message: format!(
                "pool {} cannot be drained of {family}: no Active pool has {family} addresses, and each node keeps one block of a family; \
                 add a pool with an {family} CIDR, or set its state to Active",
                pool.name
            ),
        }
    })
}

/// Services and pods that have no family in common: no Service could have an endpoint.
fn strangers(pools: &[AddressPool], services: &[IpNet]) -> Option<Problem> {
    let first = services.first()?;
    let mut of_pools = active_cidrs(pools).map(|(_, cidr)| cidr).peekable();
    if of_pools.peek().is_none()
        || of_pools.any(|cidr| services.iter().any(|services| is_v4(services) == is_v4(cidr)))
    {
        return None;
    }
    let (has, lacks) = (family(is_v4(first)), family(!is_v4(first)));
    let example = if is_v4(first) { "10.244.0.0/16" } else { "fd00:10:244::/56" };
    Some(Problem {
        condition: DEGRADED,
        reason: "NoCommonFamily",
        message: format!(
            "the cluster's Services have {has} addresses alone ({first}), pods only {lacks} ones: add an {has} CIDR, for example {example}, \
             to a pool with kubectl edit clusternetwork default; for pods with {has} alone uninstall, and install with a pool of \
             {has} as docs/install.md shows"
        ),
    })
}

/// Other networks in the cluster.
pub(super) fn conflicts(seen: &Observed) -> Option<Problem> {
    let names = |cni: bool| {
        let some: Vec<&str> = seen.rivals.iter().filter(|rival| rival.cni == cni).map(rival_name).collect();
        some.join(", ")
    };
    let (cnis, proxies) = (names(true), names(false));
    if !cnis.is_empty() {
        let message = if seen.agents.is_some() {
            format!("another CNI runs beside Netkeel: delete DaemonSet {cnis}")
        } else {
            format!(
                "another CNI serves the nodes, agents are held back: delete DaemonSet {cnis}, then restart its pods"
            )
        };
        return Some(Problem { condition: CONFLICTS, reason: "RivalCNI", message });
    }
    (!proxies.is_empty()).then(|| Problem {
        condition: CONFLICTS,
        reason: "KubeProxy",
        message: format!(
            "Netkeel serves Services itself, another proxy is not needed: delete DaemonSet {proxies}"
        ),
    })
}

fn rival_name(rival: &Rival) -> &str {
    &rival.name
}

/// Whether two networks have an address in common.
pub(super) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}
