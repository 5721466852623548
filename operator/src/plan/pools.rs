//! The pools as plans use them: which gives a node its blocks, in which order, and whether the node needs one more.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use netkeel_crds::{
    AddressBlock, NodeNetwork, NodeNetworkStatus,
    cluster_network::AddressPool,
    node_network::{BlockUsage, NodePool},
};

/// A node asks for one more block of a pool when fewer than one in this many of its addresses are left.
const RESERVE: u32 = 8;

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
    };
    in_order(pools).iter().map(known).collect()
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

/// What a node has, and what its agent says of it.
#[derive(Clone, Copy)]
pub(super) struct Holdings<'a> {
    /// Its claims.
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
        let applied = status.applied_revision.as_deref() == Some(network.spec.revision.as_str());
        (written && applied).then_some(status)
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
        let Some(status) = self.status() else { return false };
        let usage: Vec<&BlockUsage> =
            status.blocks.iter().filter(|usage| owned.contains(&usage.cidr)).collect();
        if owned.is_empty() || usage.len() != owned.len() {
            return false;
        }
        let sum =
            |of: fn(&BlockUsage) -> u32| usage.iter().map(|usage| of(usage)).fold(0, u32::saturating_add);
        let capacity = sum(|usage| usage.capacity);
        capacity.saturating_sub(sum(|usage| usage.used)) < capacity.div_ceil(RESERVE)
    }

    /// Where its pods wait for blocks.
    pub(super) fn wanted(self) -> Vec<IpNet> {
        self.status().map(|status| status.wanted.clone()).unwrap_or_default()
    }
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
