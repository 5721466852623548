//! The pools as plans use them: which gives a node its blocks, in which order, and whether the node needs one more.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use netkeel_crds::{
    AddressBlock, NodeNetwork, NodeNetworkStatus,
    cluster_network::{AddressPool, PoolState},
    node_network::{BlockUsage, NodePool},
};

use super::{nodes::has_applied, validate::overlap};
use crate::observed::Observed;

/// A node asks for one more block of a pool when fewer than one in this many of its addresses are left.
pub(super) const RESERVE: u32 = 8;
/// It gives a block back when without it one in this many is left. That is more than [`RESERVE`] asks for, so that no block goes
/// back and forth.
pub(super) const PLENTY: u32 = 4;

/// What the name of a pool ends with that is not in the spec any more. No name in the spec does.
const REMOVED: &str = " (removed)";

/// Labels of an object.
pub(super) type Labels = BTreeMap<String, String>;

/// The pools in the order in which they are used: by priority, then by name.
pub(super) fn in_order(pools: &[AddressPool]) -> Vec<&AddressPool> {
    let mut pools: Vec<&AddressPool> = pools.iter().collect();
    pools.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.name.cmp(&b.name)));
    pools
}

/// What every agent has to know of them.
pub(super) fn for_nodes(pools: &[AddressPool]) -> Vec<NodePool> {
    let known = |pool: &&AddressPool| NodePool {
        name: pool.name.clone(),
        cidrs: pool.cidrs.clone(),
        reserved: pool.reserved.clone(),
        namespace_selector: pool.namespace_selector.clone(),
        masquerade: pool.masquerade,
        state: pool.state,
    };
    in_order(pools).iter().map(known).collect()
}

/// The CIDRs that blocks are still given of, with their pools.
pub(super) fn active_cidrs(pools: &[AddressPool]) -> impl Iterator<Item = (&AddressPool, &IpNet)> {
    let active = pools.iter().filter(|pool| pool.state.is_active());
    active.flat_map(|pool| pool.cidrs.iter().map(move |cidr| (pool, cidr)))
}

/// Pools that the nodes know and the spec does not, though some node has a block of them: they stay in force, drained.
pub(super) fn removed(pools: &[AddressPool], seen: &Observed) -> Vec<NodePool> {
    let known = seen.node_networks.iter().flat_map(|network| &network.spec.config.pools);
    let mut removed: Vec<NodePool> = Vec::new();
    for pool in known {
        let name = format!("{}{REMOVED}", pool.name.trim_end_matches(REMOVED));
        for cidr in &pool.cidrs {
            let others =
                pools.iter().flat_map(|pool| &pool.cidrs).chain(removed.iter().flat_map(|p| &p.cidrs));
            let free = !others.into_iter().any(|other| overlap(other, cidr));
            if free && seen.blocks.iter().any(|block| cidr.contains(&block.spec.cidr)) {
                match removed.iter_mut().find(|other| other.name == name) {
                    Some(other) => other.cidrs.push(*cidr),
                    None => removed.push(NodePool {
                        name: name.clone(),
                        cidrs: vec![*cidr],
                        masquerade: pool.masquerade,
                        state: PoolState::Draining,
                        ..NodePool::default()
                    }),
                }
            }
        }
    }
    removed
}

/// Whether the labels are selected; no selector selects everything, an operator that is not known selects nothing.
pub(super) fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return true };
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|expression| {
            let value = labels.get(&expression.key);
            let among = || expression.values.iter().flatten().any(|one| Some(one) == value);
            match expression.operator.as_str() {
                "In" => among(),
                "NotIn" => !among(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// Whether a network is of IPv4.
pub(super) fn is_v4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

/// What users call the family.
pub(super) fn family(v4: bool) -> &'static str {
    if v4 { "IPv4" } else { "IPv6" }
}

/// The pool's network of a family.
pub(super) fn cidr_of(pool: &AddressPool, v4: bool) -> Option<&IpNet> {
    pool.cidrs.iter().find(|cidr| is_v4(cidr) == v4)
}

/// What a node has, and what its agent says of it.
#[derive(Clone, Copy)]
pub(super) struct Holdings<'a> {
    /// Its claims, without those that it gives back.
    pub(super) owned: &'a [&'a AddressBlock],
    /// Its object.
    pub(super) network: Option<&'a NodeNetwork>,
}

impl<'a> Holdings<'a> {
    /// What the agent says, once it has applied all claims: before that it may not know what it has got.
    fn status(self) -> Option<&'a NodeNetworkStatus> {
        let network = self.network?;
        let status = network.status.as_ref()?;
        let written = self.owned.iter().all(|block| network.spec.blocks.contains(&block.spec.cidr));
        (written && has_applied(network)).then_some(status)
    }

    /// Its blocks in this CIDR of a pool.
    fn of(self, cidr: &IpNet) -> Vec<IpNet> {
        self.owned.iter().map(|block| block.spec.cidr).filter(|block| cidr.contains(block)).collect()
    }

    /// Whether it has none in this CIDR.
    pub(super) fn none_of(self, cidr: &IpNet) -> bool {
        self.of(cidr).is_empty()
    }

    /// Whether its agent is running out of addresses of this CIDR.
    pub(super) fn runs_out(self, cidr: &IpNet) -> bool {
        let owned = self.of(cidr);
        !owned.is_empty() && self.have_left(&owned, RESERVE) == Some(false)
    }

    /// Whether one in `reserve` addresses of these blocks is left; `None` while the agent has not said so.
    fn have_left(self, blocks: &[IpNet], reserve: u32) -> Option<bool> {
        let usage: Vec<&BlockUsage> = blocks.iter().map(|block| self.use_of(block)).collect::<Option<_>>()?;
        let sum =
            |of: fn(&BlockUsage) -> u32| usage.iter().map(|usage| of(usage)).fold(0, u32::saturating_add);
        let capacity = sum(|usage| usage.capacity);
        let left = capacity.saturating_sub(sum(|usage| usage.used));
        Some(!blocks.is_empty() && left >= capacity.div_ceil(reserve))
    }

    /// What the agent says of a block.
    fn use_of(self, block: &IpNet) -> Option<&'a BlockUsage> {
        self.status()?.blocks.iter().find(|usage| usage.cidr == *block)
    }

    /// Whether no pod has had an address of the block for a while.
    pub(super) fn is_idle(self, block: &IpNet) -> bool {
        self.use_of(block).is_some_and(|usage| usage.idle && usage.used == 0)
    }

    /// Whether the node does well without `block`, which is then empty: nobody asks for it, and one in `reserve` addresses is left in
    /// the other blocks of its CIDR or in those of a better pool. A pool for some namespaces, or of which the node gets nothing any
    /// more, needs no block here. `None` while the agent has not said enough.
    pub(super) fn does_without(
        self,
        block: &IpNet,
        labels: &Labels,
        pools: &[AddressPool],
        reserve: u32,
    ) -> Option<bool> {
        if self.use_of(block)?.used > 0
            || self.wanted().iter().any(|net| net.contains(block) || block.contains(net))
        {
            return Some(false);
        }
        let others = |cidr: &IpNet| -> Vec<IpNet> {
            self.of(cidr).into_iter().filter(|other| other != block).collect()
        };
        let of_family = |pool| Some((pool, cidr_of(pool, is_v4(block))?));
        for (pool, cidr) in in_order(pools).into_iter().filter_map(of_family) {
            let selected = pool.state.is_active() && selects(pool.node_selector.as_ref(), labels);
            if !cidr.contains(block) {
                let better = selected && pool.namespace_selector.is_none();
                if better && self.have_left(&others(cidr), reserve)? && !special(block, pools) {
                    return Some(true);
                }
                continue;
            }
            let rest = others(cidr);
            return match pool.namespace_selector {
                _ if !selected => Some(true),
                Some(_) if rest.is_empty() => Some(true),
                _ => self.have_left(&rest, reserve),
            };
        }
        Some(true)
    }

    /// Where its pods wait for blocks.
    pub(super) fn wanted(self) -> Vec<IpNet> {
        self.status().map(|status| status.wanted.clone()).unwrap_or_default()
    }
}

/// Whether a block is of a pool for some namespaces, which no other pool can stand in for.
fn special(block: &IpNet, pools: &[AddressPool]) -> bool {
    let own = pools.iter().find(|pool| pool.cidrs.iter().any(|cidr| cidr.contains(block)));
    own.is_some_and(|pool| pool.namespace_selector.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pools_are_used_by_priority_and_then_by_name() {
        let pool =
            |name: &str, priority| AddressPool { name: name.to_owned(), priority, ..AddressPool::default() };
        let pools = [pool("b", 0), pool("low", -1), pool("a", 0), pool("high", 9)];
        let names: Vec<_> = for_nodes(&pools).into_iter().map(|pool| pool.name).collect();
        assert_eq!(names, ["high", "a", "b", "low"]);
    }

    #[test]
    fn selectors_are_obeyed_with_every_operator() {
        let labels: Labels = [("zone".to_owned(), "a".to_owned())].into();
        let expression = |operator: &str, key: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        let cases = [
            (json!({}), true),
            (json!({"matchLabels": {"zone": "a"}}), true),
            (json!({"matchLabels": {"zone": "a", "nic": "fast"}}), false),
            (expression("In", "zone", &["a", "b"]), true),
            (expression("In", "nic", &["fast"]), false),
            (expression("NotIn", "zone", &["a"]), false),
            (expression("NotIn", "nic", &["fast"]), true),
            (expression("Exists", "zone", &[]), true),
            (expression("DoesNotExist", "zone", &[]), false),
            (expression("Sometimes", "zone", &[]), false),
        ];
        for (selector, wanted) in cases {
            let typed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(selects(Some(&typed), &labels), wanted, "{selector}");
        }
        assert!(selects(None, &labels));
    }
}
