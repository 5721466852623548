//! Which pool gives which node its blocks.

use proptest::prelude::*;

use super::*;

/// `seen` with these pools.
fn with_pools(mut seen: Observed, pools: Vec<AddressPool>) -> Observed {
    seen.network.as_mut().unwrap().spec.pod_network.pools = pools;
    seen
}

#[test]
fn a_node_gets_a_block_of_each_family() {
    let both = pool("default", &["10.244.0.0/16", "fd00:10:244::/56"], 0);
    let planned = planned(&with_pools(seen(), vec![both]));
    let wanted = ["a 10.244.0.0/26", "a fd00:10:244::/122", "b 10.244.0.64/26", "b fd00:10:244::40/122"];
    assert_eq!(claims(&planned), wanted);
    assert!(planned.problems.is_empty());
}

#[test]
fn a_family_that_is_added_to_a_pool_reaches_nodes_that_have_the_other() {
    let both = pool("default", &["10.244.0.0/16", "fd00:10:244::/56"], 0);
    let planned = planned(&with_pools(settled(), vec![both]));
    assert_eq!(claims(&planned), ["a fd00:10:244::/122", "b fd00:10:244::40/122"]);
}

#[test]
fn blocks_come_from_the_best_pool_that_selects_the_node_and_has_some() {
    let mut fast = pool("fast", &["10.1.0.0/26"], 10);
    fast.node_selector = serde_json::from_value(serde_json::json!({"matchLabels": {"nic": "fast"}})).unwrap();
    let mut seen = with_pools(seen(), vec![pool("default", &["10.244.0.0/16"], 0), fast]);
    assert_eq!(claims(&planned(&seen)), ["a 10.244.0.0/26", "b 10.244.0.64/26"], "no node is selected");
    seen.nodes[1].labels = [("nic".to_owned(), "fast".to_owned())].into();
    assert_eq!(claims(&planned(&seen)), ["a 10.244.0.0/26", "b 10.1.0.0/26"]);
    seen.nodes[0].labels = seen.nodes[1].labels.clone();
    let planned = planned(&seen);
    assert_eq!(claims(&planned), ["a 10.1.0.0/26", "b 10.244.0.0/26"], "the better pool is used up");
    assert!(planned.problems.is_empty());
}

#[test]
fn a_node_that_no_pool_selects_is_named() {
    let mut fast = pool("fast", &["10.1.0.0/16"], 10);
    fast.node_selector = serde_json::from_value(serde_json::json!({"matchLabels": {"nic": "fast"}})).unwrap();
    let planned = planned(&with_pools(seen(), vec![fast]));
    assert_eq!(reasons(&planned)[0], (kind::DEGRADED, "NoPool"));
    assert!(planned.problems[0].message.contains("no pool has IPv4 addresses for node a"));
}

#[test]
fn a_block_whose_first_address_is_reserved_is_nobodys() {
    let mut reserved = pool("default", &["10.244.0.0/16"], 0);
    reserved.reserved = vec!["10.244.0.0/25".parse().unwrap(), "10.244.0.192/32".parse().unwrap()];
    let planned = planned(&with_pools(seen(), vec![reserved]));
    assert_eq!(claims(&planned), ["a 10.244.0.128/26", "b 10.244.1.0/26"]);
    assert_eq!(planned.config.unwrap().pools[0].reserved.len(), 2);
}

/// `settled` with a pool for some namespaces besides, whose addresses node a asks for.
fn asking(wanted: &[&str]) -> Observed {
    let mut pay = pool("pay", &["10.9.0.0/25"], 50);
    pay.namespace_selector =
        serde_json::from_value(serde_json::json!({"matchLabels": {"team": "pay"}})).unwrap();
    let mut seen = with_pools(settled(), vec![pool("default", &["10.244.0.0/16"], 0), pay]);
    for step in planned(&seen).steps {
        if let Step::WriteNodeNetwork { node, spec, .. } = step {
            let network = seen.node_networks.iter_mut().find(|n| n.metadata.name.as_ref() == Some(&node));
            network.unwrap().spec = *spec;
        }
    }
    let network = &mut seen.node_networks[0];
    let status = network.status.get_or_insert_default();
    status.applied_revision = Some(network.spec.revision.clone());
    status.blocks = vec![usage("10.244.0.0/26", 3)];
    status.wanted = wanted.iter().map(|net| net.parse().unwrap()).collect();
    seen
}

#[test]
fn a_pool_of_some_namespaces_gives_blocks_to_nodes_whose_pods_ask() {
    assert_eq!(claims(&planned(&asking(&[]))), Vec::<String>::new());
    let mut seen = asking(&["10.9.0.0/25"]);
    assert_eq!(claims(&planned(&seen)), ["a 10.9.0.0/26"]);
    seen.blocks.push(block("10.9.0.0/26", "a"));
    assert_eq!(claims(&planned(&seen)), Vec::<String>::new(), "the agent does not know of it yet");
    let mut full = asking(&["10.9.0.0/25"]);
    full.blocks.extend([block("10.9.0.0/26", "b"), block("10.9.0.64/26", "b")]);
    let planned = planned(&full);
    assert_eq!(reasons(&planned), [(kind::DEGRADED, "PoolExhausted")]);
    assert!(planned.problems[0].message.contains("for node a in pool pay"), "{:?}", planned.problems);
}

#[test]
fn an_address_that_a_pod_asks_for_brings_its_block_where_nobody_has_it() {
    let seen = asking(&["10.244.7.9/32"]);
    assert_eq!(claims(&planned(&seen)), ["a 10.244.7.0/26"]);
    let mut taken = asking(&["10.244.7.9/32"]);
    taken.blocks.push(block("10.244.7.0/26", "b"));
    assert_eq!(claims(&planned(&taken)), Vec::<String>::new());
    let outside = asking(&["172.16.0.1/32"]);
    assert_eq!(claims(&planned(&outside)), Vec::<String>::new());
    let mut joins = asking(&["10.244.0.129/32"]);
    joins.nodes.push(node("c", 3));
    assert_eq!(
        claims(&planned(&joins)),
        ["a 10.244.0.128/26", "c 10.244.0.192/26"],
        "one block has one node"
    );
}

proptest! {
    /// Whatever is claimed already, new claims lie in the pool and overlap nothing.
    #[test]
    fn new_claims_are_in_the_pool_and_disjoint(
        prefix in 20_u8..26, size in 26_u8..29, nodes in 1_u8..30, taken in prop::collection::vec((0_u32..4096, 26_u8..30), 0..30),
    ) {
        let pool: IpNet = format!("10.244.0.0/{prefix}").parse().unwrap();
        let mut seen = seen();
        let spec = &mut seen.network.as_mut().unwrap().spec.pod_network.pools[0];
        spec.cidrs = vec![pool];
        spec.block_sizes.ipv4 = size;
        seen.nodes = (0..nodes).map(|number| node(&format!("n{number}"), number)).collect();
        for (number, length) in taken {
            let address = std::net::Ipv4Addr::from_bits(0x0AF4_0000 + number);
            let cidr = ipnet::Ipv4Net::new(address, length).unwrap().trunc();
            seen.blocks.push(block(&cidr.to_string(), "gone"));
        }
        let outcome = planned(&seen);
        let mut all: Vec<IpNet> = seen.blocks.iter().map(|block| block.spec.cidr).collect();
        let mut claims = 0;
        for step in &outcome.steps {
            if let Step::ClaimBlock { cidr, .. } = step {
                prop_assert!(pool.contains(cidr) && cidr.prefix_len() == size);
                prop_assert!(!all.iter().any(|other| validate::overlap(other, cidr)), "{cidr} overlaps one of {all:?}");
                all.push(*cidr);
                claims += 1;
            }
        }
        let without = outcome.problems.iter().filter(|problem| problem.reason == "PoolExhausted").count();
        prop_assert_eq!(claims + without, usize::from(nodes));
    }
}

#[test]
fn pods_and_services_without_a_family_in_common_are_told_and_one_is_enough() {
    let of = |pods: &[&str], services: &[&str]| {
        let cidrs = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        let mut seen = seen();
        seen.network.as_mut().unwrap().spec.pod_network.pools[0].cidrs = cidrs(pods);
        seen.service_cidrs = cidrs(services);
        planned(&seen)
    };
    let (four, six, services4, services6) =
        ("10.244.0.0/16", "fd00:10:244::/56", "10.96.0.0/16", "fd00:10:96::/112");
    for (pods, services, said) in [
        (
            four,
            services6,
            "have IPv6 addresses alone (fd00:10:96::/112), pods only IPv4 ones: add an IPv6 CIDR",
        ),
        (six, services4, "have IPv4 addresses alone (10.96.0.0/16), pods only IPv6 ones: add an IPv4 CIDR"),
    ] {
        let outcome = of(&[pods], &[services]);
        assert_eq!(reasons(&outcome), [(kind::DEGRADED, "NoCommonFamily")]);
        assert!(outcome.problems[0].message.contains(said), "{:?}", outcome.problems);
        assert!(outcome.config.is_none() && outcome.steps.is_empty());
        assert_eq!(reasons(&of(&[four, six], &[services])), []);
        assert_eq!(reasons(&of(&[pods], &[services4, services6])), []);
    }
    let alone = of(&[six], &[services6]);
    assert_eq!((reasons(&alone), alone.dns_cluster_ip), (vec![], "fd00:10:96::a".parse().ok()));
}
