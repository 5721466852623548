//! Pools that are drained, and pools that are gone from the spec.

use netkeel_crds::{
    cluster_network::{AddressPool, PoolState},
    node_network::BlockRelease,
};

use super::*;

fn pool(name: &str, cidr: &str, state: PoolState) -> AddressPool {
    let cidrs = vec![cidr.parse().unwrap()];
    AddressPool { name: name.to_owned(), cidrs, state, ..AddressPool::default() }
}

/// Pools of the spec.
fn pools(seen: &mut Observed) -> &mut Vec<AddressPool> {
    &mut seen.network.as_mut().unwrap().spec.pod_network.pools
}

/// Does what is planned: claims, and what is written to `NodeNetworks`. Agents have applied it, and say that `used` addresses of each
/// block are in use.
fn follow(seen: &mut Observed, used: u32) {
    for step in planned(seen).steps {
        match step {
            Step::ClaimBlock { cidr, node, .. } => {
                let mut claim = block(&cidr.to_string(), &node);
                claim.metadata.resource_version = Some("1".to_owned());
                seen.blocks.push(claim);
            }
            Step::ReturnBlock { name, .. } => {
                seen.blocks.retain(|block| block.metadata.name.as_ref() != Some(&name));
            }
            Step::WriteNodeNetwork { node, spec, .. } => {
                let network = seen.node_networks.iter_mut().find(|n| n.metadata.name.as_ref() == Some(&node));
                network.unwrap().spec = *spec;
            }
            _ => {}
        }
    }
    for network in &mut seen.node_networks {
        let spec = network.spec.clone();
        let status = network.status.get_or_insert_default();
        status.applied_revision = Some(spec.revision);
        status.blocks = spec.blocks.iter().map(|cidr| usage(&cidr.to_string(), used)).collect();
        let empty = |release: &BlockRelease| used == 0 && spec.blocks.contains(&release.cidr);
        status.released = spec.releasing.into_iter().filter(empty).collect();
    }
}

fn blocks_of_a(seen: &Observed) -> Vec<String> {
    seen.node_networks[0].spec.blocks.iter().map(ToString::to_string).collect()
}

fn phases(seen: &Observed) -> Vec<String> {
    let (network, now) = (seen.network.as_ref().unwrap(), jiff::Timestamp::UNIX_EPOCH);
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now);
    let status = crate::status::status(network, seen, &planned(seen), None, &time);
    let told = status.pools.iter().map(|pool| {
        let (blocks, addresses) = (pool.blocks.used, pool.addresses);
        format!("{} {:?} {blocks} {}/{}", pool.name, pool.state, addresses.used, addresses.capacity)
    });
    told.collect()
}

/// The default pool in use on both nodes, drained in favour of another one.
fn drained() -> Observed {
    let mut seen = settled();
    for block in &mut seen.blocks {
        block.metadata.resource_version = Some("1".to_owned());
    }
    pools(&mut seen)[0].state = PoolState::Draining;
    pools(&mut seen).push(pool("new", "10.1.0.0/16", PoolState::Active));
    seen
}

#[test]
fn a_pool_is_drained_when_the_nodes_have_blocks_of_another_and_its_pods_are_gone() {
    let mut seen = drained();
    assert_eq!(phases(&seen)[0], "default Draining 2 0/0");
    follow(&mut seen, 5);
    assert_eq!(blocks_of_a(&seen), ["10.244.0.0/26"], "the last block of a family is not given back");
    assert!(seen.node_networks[0].spec.releasing.is_empty());
    for _ in 0..3 {
        follow(&mut seen, 5);
    }
    assert_eq!(blocks_of_a(&seen), ["10.1.0.0/26", "10.244.0.0/26"], "the node's address moves first");
    assert_eq!(seen.node_networks[0].spec.releasing.len(), 1);
    assert_eq!(phases(&seen), ["default Draining 2 10/126", "new Active 2 10/126"]);
    assert!(steps(&planned(&seen)).is_empty(), "pods keep their addresses");
    follow(&mut seen, 0);
    follow(&mut seen, 0);
    assert_eq!(blocks_of_a(&seen), ["10.1.0.0/26"]);
    assert_eq!(phases(&seen)[0], "default Draining 2 0/0", "not before the claims are gone");
    follow(&mut seen, 0);
    assert_eq!(phases(&seen), ["default Removable 0 0/0", "new Active 2 0/126"]);
    seen.undecodable = vec!["AddressBlock 10-244-9-0-26".to_owned()];
    assert_eq!(phases(&seen)[0], "default Draining 0 0/0", "nobody knows whose that is");
}

#[test]
fn a_drained_pool_that_is_active_again_keeps_its_blocks() {
    let mut seen = drained();
    (0..4).for_each(|_| follow(&mut seen, 5));
    assert_eq!(seen.node_networks[0].spec.releasing.len(), 1);
    pools(&mut seen)[0].state = PoolState::Active;
    follow(&mut seen, 5);
    assert!(seen.node_networks[0].spec.releasing.is_empty());
    assert_eq!(blocks_of_a(&seen).len(), 2);
}

#[test]
fn drained_pools_give_no_block_and_need_none() {
    let mut seen = seen();
    pools(&mut seen)[0].state = PoolState::Draining;
    pools(&mut seen).push(pool("six", "fd00:10:244::/56", PoolState::Active));
    let planned = planned(&seen);
    assert_eq!(claims(&planned), ["a fd00:10:244::/122", "b fd00:10:244::40/122"]);
    assert!(planned.problems.is_empty(), "{:?}", planned.problems);
}

#[test]
fn a_pool_that_is_gone_from_the_spec_stays_in_force_while_nodes_have_blocks_of_it_and_is_named() {
    let mut seen = settled();
    for block in &mut seen.blocks {
        block.metadata.resource_version = Some("1".to_owned());
    }
    *pools(&mut seen) = vec![pool("new", "10.1.0.0/16", PoolState::Active)];
    let first = planned(&seen);
    assert_eq!(reasons(&first), [(kind::DEGRADED, "PoolRemoved")]);
    let message = &first.problems[0].message;
    assert!(
        message.contains("pool default (removed) of 10.244.0.0/16") && message.contains("2 blocks"),
        "{message}"
    );
    for _ in 0..4 {
        follow(&mut seen, 5);
        let config = &seen.node_networks[0].spec.config;
        assert_eq!(config.pod_cidrs, ["10.1.0.0/16", "10.244.0.0/16"].map(|cidr| cidr.parse().unwrap()));
    }
    assert_eq!(phases(&seen), ["new Active 2 10/126", "default (removed) Draining 2 10/126"]);
    for _ in 0..4 {
        follow(&mut seen, 0);
    }
    assert_eq!(phases(&seen), ["new Active 2 0/126"]);
    assert!(planned(&seen).problems.is_empty());
    assert_eq!(seen.node_networks[0].spec.config.pools.len(), 1);
}

#[test]
fn a_pool_of_another_name_with_the_same_addresses_takes_over_its_blocks() {
    let mut seen = settled();
    *pools(&mut seen) = vec![pool("other", "10.244.0.0/15", PoolState::Active)];
    follow(&mut seen, 5);
    let planned = planned(&seen);
    assert!(planned.problems.is_empty() && steps(&planned).is_empty(), "{planned:?}");
}
