//! Which blocks a node is to get: of each family from the best pool, and of others when its pods ask for them.

use ipnet::IpNet;
use netkeel_crds::{cluster_network::AddressPool, condition::kind::DEGRADED};

use super::{
    Outcome, Problem, Step,
    blocks::Free,
    pools::{Holdings, active_cidrs, cidr_of, family, in_order, is_v4, selects},
};
use crate::observed::Node;

/// Planning the claims of one node.
pub(super) struct Claims<'a, 'b, 'c> {
    /// The node.
    pub(super) node: &'a Node,
    /// What it has.
    pub(super) holdings: Holdings<'a>,
    /// Blocks that it was to give back and keeps.
    pub(super) kept: &'b [IpNet],
    /// All pools.
    pub(super) pools: &'a [AddressPool],
    /// What is left.
    pub(super) free: &'b mut Free<'c>,
    /// Where the steps go.
    pub(super) out: &'b mut Outcome,
}

impl Claims<'_, '_, '_> {
    /// Plans at most one claim for each CIDR of a pool, and one for each address that a pod asks for.
    pub(super) fn plan(mut self) {
        let labels = &self.node.labels;
        let selected: Vec<&AddressPool> = in_order(self.pools)
            .into_iter()
            .filter(|pool| pool.state.is_active() && selects(pool.node_selector.as_ref(), labels))
            .collect();
        let mut done = Vec::new();
        for v4 in [true, false] {
            if active_cidrs(self.pools).any(|(_, cidr)| is_v4(cidr) == v4) {
                done.extend(self.for_everybody(&selected, v4));
            }
        }
        let wanted = self.holdings.wanted();
        for (pool, cidr) in selected.iter().flat_map(|pool| pool.cidrs.iter().map(move |cidr| (*pool, *cidr)))
        {
            let special = pool.namespace_selector.is_some() && self.holdings.runs_out(&cidr);
            let kept = self.kept.iter().any(|block| cidr.contains(block));
            if (special || wanted.contains(&cidr)) && !kept && !done.contains(&cidr) && !self.claim(&cidr) {
                self.exhausted(&[&pool.name]);
            }
        }
        for address in wanted.iter().filter(|net| net.prefix_len() == net.max_prefix_len()) {
            let pool = selected.iter().find(|pool| pool.cidrs.iter().any(|cidr| cidr.contains(address)));
            if let Some(block) = pool.and_then(|pool| self.free.take_with(address, pool)) {
                self.push(block);
            }
        }
    }

    /// A block of one family that pods of all namespaces may use, where the node needs one: of the best pool, or of the next while that
    /// has none left. Gives the CIDR that it is of.
    fn for_everybody(&mut self, selected: &[&AddressPool], v4: bool) -> Option<IpNet> {
        let mut without: Vec<&str> = Vec::new();
        let open = selected.iter().filter(|pool| pool.namespace_selector.is_none());
        for (pool, cidr) in open.filter_map(|pool| Some((pool, cidr_of(pool, v4)?))) {
            if !self.holdings.none_of(cidr) && !self.holdings.runs_out(cidr) {
                return None;
            }
            if self.claim(cidr) {
                return Some(*cidr);
            }
            without.push(&pool.name);
        }
        if without.is_empty() {
            let message = format!(
                "no pool has {} addresses for node {}: let the nodeSelector of one in spec.podNetwork.pools select it",
                family(v4),
                self.node.name
            );
            self.out.problems.push(Problem { condition: DEGRADED, reason: "NoPool", message });
        } else {
            self.exhausted(&without);
        }
        None
    }

    /// Whether there was a block left in this CIDR of a pool.
    fn claim(&mut self, cidr: &IpNet) -> bool {
        let block = self.free.take(cidr);
        block.is_some_and(|block| {
            self.push(block);
            true
        })
    }

    fn push(&mut self, cidr: IpNet) {
        let (node, node_uid) = (self.node.name.clone(), self.node.uid.clone());
        self.out.steps.push(Step::ClaimBlock { cidr, node, node_uid });
    }

    fn exhausted(&mut self, pools: &[&str]) {
        let message = format!(
            "no free block left for node {} in pool {}: enlarge its CIDR in spec.podNetwork.pools, or add a pool",
            self.node.name,
            pools.join(", ")
        );
        self.out.problems.push(Problem { condition: DEGRADED, reason: "PoolExhausted", message });
    }
}
