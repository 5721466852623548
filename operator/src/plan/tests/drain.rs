//! Pools that are drained, and pools that are gone from the spec.

use netkeel_crds::{cluster_network::PoolState, node_network::BlockRelease};

use super::*;

fn pool(name: &str, cidr: &str, state: PoolState) -> AddressPool {
    AddressPool { state, ..super::pool(name, &[cidr], 0) }
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
    let mut again = seen.clone();
    pools(&mut again)[0].state = PoolState::Active;
    assert_eq!(
        claims(&planned(&again)),
        ["a 10.244.0.128/26", "b 10.244.0.192/26"],
        "what is out does not come back"
    );
    follow(&mut seen, 0);
    assert_eq!(phases(&seen), ["default Removable 0 0/0", "new Active 2 0/126"]);
    let mut held = seen.clone();
    held.node_networks[0].spec.blocks.push("10.244.0.0/26".parse().unwrap());
    assert_eq!(phases(&held)[0], "default Draining 0 0/0", "the node has it, whatever became of its claim");
    seen.undecodable = vec!["AddressBlock 10-244-9-0-26".to_owned()];
    assert_eq!(phases(&seen)[0], "default Draining 0 0/0", "nobody knows whose that is");
}

#[test]
fn a_pool_with_addresses_of_others_can_be_drained_and_reaches_no_node() {
    for cidr in ["10.96.0.0/12", "192.0.2.0/24"] {
        let mut seen = settled();
        pools(&mut seen).push(pool("wrong", cidr, PoolState::Active));
        let frozen = planned(&seen);
        let said = &frozen.problems[0].message;
        assert!(said.contains("set the state of this one to Draining"), "{said}");
        assert_eq!(phases(&seen), ["default Active 2 0/0"], "it is not in force");
        pools(&mut seen)[1].state = PoolState::Draining;
        seen.network.as_mut().unwrap().spec.pod_network.vxlan.port = 4789;
        let planned = planned(&seen);
        assert!(planned.problems.is_empty(), "{:?}", planned.problems);
        let config = planned.config.unwrap();
        assert_eq!(config.vxlan_port, 4789, "the network goes on");
        assert_eq!(config.pod_cidrs, ["10.244.0.0/16".parse().unwrap()]);
        assert_eq!(phases(&seen), ["default Active 2 0/0", "wrong Removable 0 0/0"]);
    }
    let mut late = drained();
    late.service_cidrs.push("10.244.128.0/20".parse().unwrap());
    assert_eq!(planned(&late).config.unwrap().pools.len(), 2, "blocks in use stay in force");
    assert_eq!(phases(&late)[0], "default Draining 2 0/0");
}

#[test]
fn native_routes_and_services_need_no_family_of_a_pool_on_its_way_out_alone() {
    let mut seen = settled();
    pools(&mut seen).push(pool("six", "fd00:10:244::/56", PoolState::Draining));
    seen.network.as_mut().unwrap().spec.pod_network.encapsulation =
        netkeel_crds::cluster_network::Encapsulation::None;
    assert_eq!(planned(&seen).problems, []);
    let mut used = seen.clone();
    used.blocks.push(block("fd00:10:244::/122", "a"));
    assert_eq!(reasons(&planned(&used)), [(kind::DEGRADED, "NodeWithoutFamily")]);
    seen.service_cidrs = vec!["fd00:10:96::/112".parse().unwrap()];
    assert_eq!(reasons(&planned(&seen)), [(kind::DEGRADED, "NoCommonFamily")]);
    for pool in pools(&mut seen) {
        pool.state = PoolState::Draining;
    }
    let all = planned(&seen);
    assert!(all.problems.iter().all(|problem| problem.reason == "LastOfFamily"), "{:?}", all.problems);
}

#[test]
fn the_last_pool_of_a_family_says_that_it_cannot_be_drained_while_nodes_have_blocks_of_it() {
    let mut seen = settled();
    pools(&mut seen).push(pool("six", "fd00:10:244::/56", PoolState::Active));
    (0..3).for_each(|_| follow(&mut seen, 0));
    assert_eq!(blocks_of_a(&seen).len(), 2);
    pools(&mut seen)[1].state = PoolState::Draining;
    let hangs = planned(&seen);
    assert_eq!(reasons(&hangs), [(kind::DEGRADED, "LastOfFamily")]);
    let said = &hangs.problems[0].message;
    assert!(
        said.starts_with("pool six cannot be drained of IPv6: no Active pool has IPv6 addresses"),
        "{said}"
    );
    assert!(said.contains("add a pool with an IPv6 CIDR"), "{said}");
    pools(&mut seen).push(pool("other", "fd00:10:245::/56", PoolState::Active));
    assert!(planned(&seen).problems.is_empty());
    pools(&mut seen).pop();
    seen.node_networks.iter_mut().for_each(|network| network.spec.blocks.truncate(1));
    assert!(planned(&seen).problems.is_empty(), "no node has one");
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
    seen.service_cidrs.push("fd00:10:96::/112".parse().unwrap());
    let planned = planned(&seen);
    assert_eq!(claims(&planned), ["a fd00:10:244::/122", "b fd00:10:244::40/122"]);
    assert!(planned.problems.is_empty(), "{:?}", planned.problems);
    pools(&mut seen)[0].priority = 9;
    pools(&mut seen).push(pool("new", "10.1.0.0/16", PoolState::Active));
    let planned = super::planned(&seen);
    let (a, b) = (["a 10.1.0.0/26", "a fd00:10:244::/122"], ["b 10.1.0.64/26", "b fd00:10:244::40/122"]);
    assert_eq!(claims(&planned), [a, b].concat(), "the best pool is passed over");
}

#[test]
fn a_pool_that_is_gone_from_the_spec_stays_in_force_while_nodes_have_blocks_of_it_and_is_named() {
    let mut seen = settled();
    for block in &mut seen.blocks {
        block.metadata.resource_version = Some("1".to_owned());
    }
    pools(&mut seen)[0].masquerade = Some(false);
    follow(&mut seen, 5);
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
        let known: Vec<_> = config.pools.iter().map(|pool| (&*pool.name, pool.masquerade)).collect();
        assert_eq!(known, [("new", None), ("default (removed)", Some(false))]);
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
