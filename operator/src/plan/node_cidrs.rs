//! Blocks that somebody else gives to nodes: `spec.podCIDRs` of each Node, from kube-controller-manager or a cloud's controller.

use ipnet::IpNet;
use netkeel_crds::{AddressBlock, cluster_network::AddressPool, condition::kind::DEGRADED};

use super::{Outcome, Problem, Step, validate::overlap};
use crate::observed::Node;

/// Claims what the Node object says, so that no two nodes have it, whoever gave it to both.
pub(super) fn plan(node: &Node, claims: &[AddressBlock], pools: &[AddressPool], out: &mut Outcome) {
    let mut problem = |reason, message| out.problems.push(Problem { condition: DEGRADED, reason, message });
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
        match claims.iter().find(|claim| overlap(&claim.spec.cidr, cidr)) {
            None => new.push(*cidr),
            Some(claim) if claim.spec.node_uid == node.uid && claim.spec.cidr == *cidr => {}
            Some(claim) => problem(
                "PodCIDRTaken",
                format!(
                    "{cidr} of node {} overlaps {} of node {}: delete the Node that should not have it",
                    node.name, claim.spec.cidr, claim.spec.node
                ),
            ),
        }
    }
    out.steps.extend(new.into_iter().map(|cidr: IpNet| Step::ClaimBlock {
        cidr,
        node: node.name.clone(),
        node_uid: node.uid.clone(),
    }));
}
