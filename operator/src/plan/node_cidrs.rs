//! Blocks that somebody else gives to nodes: `spec.podCIDRs` of each Node, from kube-controller-manager or a cloud's controller.

use ipnet::IpNet;
use netkeel_crds::{AddressBlock, cluster_network::AddressPool, condition::kind::DEGRADED};

use super::{Outcome, Problem, Step, validate::overlap};
use crate::observed::Node;

/// Claims what the Node object says, so that no two nodes have it, whoever gave it to both.
pub(super) fn plan(node: &Node, claims: &[AddressBlock], pools: &[AddressPool], out: &mut Outcome) {
    let Outcome { steps, problems, .. } = out;
    let mut problem = |reason, message| problems.push(Problem { condition: DEGRADED, reason, message });
    let planned = steps.iter().filter_map(|step| match step {
        Step::ClaimBlock { cidr, node, node_uid } => Some((cidr, node, node_uid)),
        _ => None,
    });
    if node.pod_cidrs.is_empty() {
        problem(
            "NoPodCIDR",
            format!(
                "node {} has no spec.podCIDRs: let kube-controller-manager give it some with --allocate-node-cidrs=true and --cluster-cidr",
                node.name
            ),
        );
    }
    let mut new = Vec::new();
    for cidr in &node.pod_cidrs {
        if !pools.iter().flat_map(|pool| &pool.cidrs).any(|pool| pool.contains(cidr)) {
            problem(
                "PodCIDROutside",
                format!(
                    "{cidr} of node {} lies in no pool: make the CIDR in spec.podNetwork.pools the --cluster-cidr of kube-controller-manager",
                    node.name
                ),
            );
            continue;
        }
        let claimed = claims.iter().map(|claim| (&claim.spec.cidr, &claim.spec.node, &claim.spec.node_uid));
        match claimed.chain(planned.clone()).find(|(claim, ..)| overlap(claim, cidr)) {
            None if pools.iter().flat_map(|pool| &pool.reserved).any(|net| net.contains(&cidr.network())) => {
                problem(
                    "PodCIDRReserved",
                    format!(
                        "{} would be the own address of node {} and is reserved: take it out of reserved in spec.podNetwork.pools, \
                         or make the Node anew, so that it gets another spec.podCIDRs",
                        cidr.network(),
                        node.name
                    ),
                );
            }
            None => new.push(*cidr),
            Some((claim, _, uid)) if *uid == node.uid && claim == cidr => {}
            Some((claim, other, _)) => problem(
                "PodCIDRTaken",
                format!(
                    "{cidr} of node {} overlaps {claim} of node {other}: delete the Node that should not have it",
                    node.name
                ),
            ),
        }
    }
    steps.extend(new.into_iter().map(|cidr: IpNet| Step::ClaimBlock {
        cidr,
        node: node.name.clone(),
        node_uid: node.uid.clone(),
    }));
}
