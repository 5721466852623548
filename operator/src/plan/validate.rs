//! What one object cannot know: overlaps with Services and nodes, and other networks in the cluster.

use std::net::IpAddr;

use ipnet::IpNet;
use netkeel_crds::{
    AddressBlock, ClusterNetworkSpec,
    cluster_network::Encapsulation,
    condition::kind::{CONFLICTS, DEGRADED, SERVICE_NETWORK_READY},
    node_network::NodePool,
};

use super::Problem;
use crate::observed::{Observed, Rival};

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
    for (pool, cidr) in pools.iter().flat_map(|pool| pool.cidrs.iter().map(move |cidr| (pool, cidr))) {
        problems.extend(seen.service_cidrs.iter().filter(|services| overlap(cidr, services)).map(|services| Problem {
            condition: DEGRADED,
            reason: "PoolOverlapsServices",
            message: format!("pool {} ({cidr}) overlaps the service addresses {services}: give it another CIDR in spec.podNetwork.pools", pool.name),
        }));
        problems.extend(seen.nodes.iter().filter_map(|node| {
            let address = node.addresses.iter().find(|address| cidr.contains(*address))?;
            Some(Problem {
                condition: DEGRADED,
                reason: "PoolOverlapsNode",
                message: format!("pool {} ({cidr}) contains {address}, the address of node {}: give it another CIDR in spec.podNetwork.pools", pool.name, node.name),
            })
        }));
    }
    problems.extend(unroutable(spec, seen));
    problems
}

/// Without a tunnel a node is the next hop to its pods in each of their families.
fn unroutable(spec: &ClusterNetworkSpec, seen: &Observed) -> Option<Problem> {
    if spec.pod_network.encapsulation != Encapsulation::None {
        return None;
    }
    let cidrs =
        spec.pod_network.pools.iter().flat_map(|pool| pool.cidrs.iter().map(move |cidr| (pool, cidr)));
    cidrs.into_iter().find_map(|(pool, cidr)| {
        let lacks = |addresses: &[IpAddr]| {
            !addresses.is_empty() && !addresses.iter().any(|address| address.is_ipv4() == cidr.addr().is_ipv4())
        };
        let node = seen.nodes.iter().find(|node| lacks(&node.addresses))?;
        let family = if cidr.addr().is_ipv4() { "IPv4" } else { "IPv6" };
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
