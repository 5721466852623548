mod dns;
mod drain;
mod node_cidrs;
mod pools;
mod release;
mod removal;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use netkeel_crds::{
    AddressBlock, AddressBlockSpec, CLEANUP, ClusterNetwork, ClusterNetworkSpec, NodeNetwork, block_name,
    cluster_network::AddressPool, condition::kind, node_network::BlockUsage,
};

use super::*;
use crate::observed::{DnsService, Node, Rival, Workload};

fn node(name: &str, last: u8) -> Node {
    Node {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        labels: std::collections::BTreeMap::new(),
        addresses: vec![IpAddr::from([192, 0, 2, last])],
        pod_cidrs: Vec::new(),
        ready: true,
        reachable: true,
    }
}

fn block(cidr: &str, node: &str) -> AddressBlock {
    let cidr: IpNet = cidr.parse().unwrap();
    let spec = AddressBlockSpec { cidr, node: node.to_owned(), node_uid: format!("uid-{node}") };
    let mut block = AddressBlock::new(&block_name(&cidr), spec);
    block.metadata.uid = Some(format!("uid-{cidr}"));
    block
}

fn node_network(name: &str) -> NodeNetwork {
    let mut network = NodeNetwork::new(name, NodeNetworkSpec::default());
    network.metadata.uid = Some(format!("uid-network-{name}"));
    network.metadata.resource_version = Some("7".to_owned());
    let uid = format!("uid-{name}");
    let owner = OwnerReference { kind: "Node".to_owned(), uid, ..OwnerReference::default() };
    network.metadata.owner_references = Some(vec![owner]);
    network
}

/// A cluster of nodes a and b with nothing of ours but the network.
fn seen() -> Observed {
    let mut network = ClusterNetwork::new("default", ClusterNetworkSpec::default());
    network.metadata.finalizers = Some(vec![CLEANUP.to_owned()]);
    Observed {
        network: Some(network),
        nodes: vec![node("a", 1), node("b", 2)],
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        ..Observed::default()
    }
}

/// The cluster after the steps of its nodes: what a pass makes of `seen`, as the next one sees it.
fn settled() -> Observed {
    let mut seen = seen();
    seen.blocks = vec![block("10.244.0.0/26", "a"), block("10.244.0.64/26", "b")];
    seen.node_networks = vec![node_network("a"), node_network("b")];
    write_all(&mut seen);
    seen.agents = Some(Workload { wanted: 2, ready: 2, updated: 2, ..Workload::default() });
    seen
}

/// Does what is planned with `NodeNetworks`.
fn write_all(seen: &mut Observed) {
    for step in planned(seen).steps {
        if let Step::WriteNodeNetwork { node, spec, .. } = step {
            let network = seen.node_networks.iter_mut().find(|n| n.metadata.name.as_ref() == Some(&node));
            network.unwrap().spec = *spec;
        }
    }
}

fn planned(seen: &Observed) -> Outcome {
    plan(seen, &Settings::default(), 0)
}

/// Steps without those that apply what is rendered.
fn steps(outcome: &Outcome) -> Vec<&Step> {
    outcome.steps.iter().filter(|step| !matches!(step, Step::Apply(_))).collect()
}

fn pool(name: &str, cidrs: &[&str], priority: i32) -> AddressPool {
    let cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
    AddressPool { name: name.to_owned(), cidrs, priority, ..AddressPool::default() }
}

fn usage(cidr: &str, used: u32) -> BlockUsage {
    BlockUsage { cidr: cidr.parse().unwrap(), used, capacity: 63, idle: false }
}

/// What is claimed, as `node cidr`.
fn claims(outcome: &Outcome) -> Vec<String> {
    let claim = |step: &Step| match step {
        Step::ClaimBlock { cidr, node, .. } => Some(format!("{node} {cidr}")),
        _ => None,
    };
    outcome.steps.iter().filter_map(claim).collect()
}

fn reasons(outcome: &Outcome) -> Vec<(&str, &str)> {
    outcome.problems.iter().map(|problem| (problem.condition, problem.reason)).collect()
}

#[test]
fn new_nodes_get_a_block_each_and_an_empty_object() {
    let outcome = planned(&seen());
    let claim = |node: &str, cidr: &str| Step::ClaimBlock {
        cidr: cidr.parse().unwrap(),
        node: node.to_owned(),
        node_uid: format!("uid-{node}"),
    };
    let create =
        |node: &str| Step::CreateNodeNetwork { node: node.to_owned(), node_uid: format!("uid-{node}") };
    assert_eq!(
        steps(&outcome),
        [&claim("a", "10.244.0.0/26"), &create("a"), &claim("b", "10.244.0.64/26"), &create("b")]
    );
    assert_eq!(outcome.dns_cluster_ip, "10.96.0.10".parse().ok());
}

#[test]
fn claimed_blocks_are_written_once() {
    let seen = settled();
    assert_eq!(seen.node_networks[1].spec.blocks, ["10.244.0.64/26".parse().unwrap()]);
    assert_eq!(seen.node_networks[1].spec.node_addresses, [IpAddr::from([192, 0, 2, 2])]);
    assert!(steps(&planned(&seen)).is_empty());
}

#[test]
fn a_node_that_runs_out_of_addresses_gets_one_more_block_behind_the_first() {
    for (used, blocks) in [(54, 1), (56, 2)] {
        let mut seen = settled();
        let network = &mut seen.node_networks[0];
        let status = network.status.get_or_insert_default();
        status.applied_revision = Some(network.spec.revision.clone());
        status.blocks = vec![usage("10.244.0.0/26", used)];
        let claims =
            planned(&seen).steps.iter().filter(|step| matches!(step, Step::ClaimBlock { .. })).count();
        assert_eq!(claims, blocks - 1, "{used} used");
    }
}

#[test]
fn a_changed_spec_goes_to_every_node_with_a_new_revision() {
    let mut seen = settled();
    let before = seen.node_networks[0].spec.revision.clone();
    seen.network.as_mut().unwrap().spec.pod_network.vxlan.port = 4789;
    let outcome = planned(&seen);
    let written: Vec<_> = outcome
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::WriteNodeNetwork { spec, .. } => Some((spec.config.vxlan_port, spec.revision == before)),
            _ => None,
        })
        .collect();
    assert_eq!(written, [(4789, false), (4789, false)]);
}

#[test]
fn what_is_left_of_a_node_that_is_gone_is_taken_away() {
    let mut seen = settled();
    seen.nodes.remove(1);
    let outcome = planned(&seen);
    assert!(matches!(steps(&outcome)[..], [Step::DeleteNodeNetwork { .. }, Step::ReleaseBlock { .. }]));
}

#[test]
fn a_node_that_came_back_as_another_object_inherits_nothing() {
    let mut seen = settled();
    seen.nodes[1].uid = "another".to_owned();
    let outcome = planned(&seen);
    assert!(
        matches!(
            steps(&outcome)[..],
            [Step::ClaimBlock { .. }, Step::DeleteNodeNetwork { .. }, Step::ReleaseBlock { .. }]
        ),
        "{outcome:?}"
    );
}

#[test]
fn overlaps_are_told_and_the_last_good_configuration_stays() {
    type Change = fn(&mut Observed);
    let cases: [(&str, &str, Change); 4] = [
        (
            "PoolOverlapsServices",
            "pool default (10.244.0.0/16) overlaps the service addresses 10.244.128.0/20",
            |seen| {
                seen.service_cidrs.push("10.244.128.0/20".parse().unwrap());
            },
        ),
        ("PoolOverlapsServices", "overlaps the service addresses 10.0.0.0/8", |seen| {
            seen.service_cidrs = vec!["10.0.0.0/8".parse().unwrap()];
        }),
        (
            "PoolOverlapsNode",
            "pool default (10.244.0.0/16) contains 10.244.3.4, the address of node a",
            |seen| {
                seen.nodes[0].addresses = vec![IpAddr::from([10, 244, 3, 4])];
            },
        ),
        ("PoolOverlapsNode", "contains 10.244.3.4, the address of node b", |seen| {
            seen.nodes[1].addresses.push(IpAddr::from([10, 244, 3, 4]));
        }),
    ];
    for (reason, message, change) in cases {
        let mut fresh = seen();
        change(&mut fresh);
        let outcome = planned(&fresh);
        assert_eq!(reasons(&outcome), [(kind::DEGRADED, reason)]);
        let said = &outcome.problems[0].message;
        assert!(said.contains(message) && said.contains("add a pool with another CIDR"), "{said}");
        assert!(
            outcome.config.is_none() && outcome.steps.is_empty(),
            "nothing begins with an impossible network"
        );
        let mut running = settled();
        running.network.as_mut().unwrap().spec.pod_network.vxlan.port = 4789;
        change(&mut running);
        assert_eq!(planned(&running).config.map(|config| config.vxlan_port), Some(8472));
    }
}

#[test]
fn native_routes_need_an_address_of_each_family_on_every_node() {
    use netkeel_crds::cluster_network::Encapsulation;
    let mut seen = settled();
    let pods = &mut seen.network.as_mut().unwrap().spec.pod_network;
    pods.encapsulation = Encapsulation::None;
    assert_eq!(planned(&seen).config.map(|config| config.encapsulation), Some(Encapsulation::None));
    let pods = &mut seen.network.as_mut().unwrap().spec.pod_network;
    pods.pools[0].cidrs.push("fd00:10:244::/56".parse().unwrap());
    seen.nodes[0].addresses.push("fd00::1".parse().unwrap());
    let outcome = planned(&seen);
    assert_eq!(reasons(&outcome)[0], (kind::DEGRADED, "NodeWithoutFamily"));
    let said = &outcome.problems[0].message;
    assert!(
        said.starts_with("node b has no IPv6 address") && said.contains("to VXLANCrossSubnet or VXLAN"),
        "{said}"
    );
    assert_eq!(outcome.config.map(|config| config.encapsulation), Some(Encapsulation::Vxlan), "as before");
    for possible in [Encapsulation::Vxlan, Encapsulation::VxlanCrossSubnet] {
        seen.network.as_mut().unwrap().spec.pod_network.encapsulation = possible;
        assert_eq!(planned(&seen).problems, []);
    }
}

#[test]
fn a_full_pool_is_told_with_the_node_that_goes_without() {
    let mut seen = seen();
    let pool = &mut seen.network.as_mut().unwrap().spec.pod_network.pools[0];
    pool.cidrs = vec!["10.244.0.0/26".parse().unwrap()];
    let outcome = planned(&seen);
    assert_eq!(reasons(&outcome), [(kind::DEGRADED, "PoolExhausted")]);
    assert!(outcome.problems[0].message.contains("node b"), "{:?}", outcome.problems);
}

#[test]
fn another_cni_holds_the_agents_back_but_stops_none_that_run() {
    let applies = |outcome: &Outcome| {
        outcome.steps.iter().any(|step| matches!(step, Step::Apply(part) if part.name.kind == "DaemonSet"))
    };
    let rival = |cni| vec![Rival { name: "kube-system/other".to_owned(), cni }];
    for (cni, running, rolled_out, reason) in
        [(true, false, false, "RivalCNI"), (true, true, true, "RivalCNI"), (false, false, true, "KubeProxy")]
    {
        let mut seen = if running { settled() } else { seen() };
        seen.rivals = rival(cni);
        let outcome = planned(&seen);
        assert_eq!((applies(&outcome), reasons(&outcome)), (rolled_out, vec![(kind::CONFLICTS, reason)]));
    }
}

#[test]
fn dns_takes_the_tenth_service_address_or_the_one_asked_for() {
    let asked = |ip: &str| Some(ip.parse().unwrap());
    let service = |ours, ip: &str| Some(DnsService { ours, leads_to_us: ours, cluster_ip: ip.parse().ok() });
    let cases = [
        (None, None, "10.96.0.10", None),
        (asked("10.96.0.53"), None, "10.96.0.53", None),
        (None, service(true, "10.96.0.7"), "10.96.0.7", None),
        (asked("10.96.0.53"), service(true, "10.96.0.7"), "10.96.0.7", Some("AddressDiffers")),
        (None, service(false, "10.96.0.7"), "10.96.0.7", Some("ForeignService")),
    ];
    for (asked, present, address, reason) in cases {
        let mut seen = seen();
        seen.network.as_mut().unwrap().spec.dns.cluster_ip = asked;
        seen.dns.service = present;
        let outcome = planned(&seen);
        assert_eq!(outcome.dns_cluster_ip, address.parse().ok());
        assert_eq!(outcome.problems.first().map(|problem| problem.reason), reason);
        let rendered =
            outcome.steps.iter().any(|step| matches!(step, Step::Apply(part) if part.name.kind == "Service"));
        assert_eq!(rendered, reason.is_none());
    }
}

#[test]
fn what_dns_servers_cannot_use_is_told_and_they_are_kept() {
    let rewrites = serde_json::json!([{"match": {"type": "Regex", "value": "("}, "to": "a.example"}]);
    let mut seen = settled();
    seen.network.as_mut().unwrap().spec.dns.rewrites = serde_json::from_value(rewrites).unwrap();
    let outcome = planned(&seen);
    assert_eq!(reasons(&outcome), [(kind::DEGRADED, "DNSSettingsRefused")]);
    let message = &outcome.problems[0].message;
    assert!(
        message.contains("spec.dns.rewrites[0].match.value: \"(\" is no regular expression"),
        "{message}"
    );
    assert!(outcome.config.is_some() && outcome.dns_cluster_ip.is_some(), "nothing else waits for it");
}

#[test]
fn policies_cut_dns_off_only_where_that_is_asked_for() {
    use netkeel_crds::cluster_network::dns::NetworkPolicies::{Enforced, Exempt};
    for (told, there, steps) in [
        (Exempt, false, vec!["apply NetworkPolicy", "apply Service", "apply Deployment"]),
        (Exempt, true, vec!["apply NetworkPolicy", "apply Service", "apply Deployment"]),
        (Enforced, true, vec!["delete NetworkPolicy", "apply Service", "apply Deployment"]),
        (Enforced, false, vec!["apply Service", "apply Deployment"]),
    ] {
        let mut seen = seen();
        seen.network.as_mut().unwrap().spec.dns.network_policies = told;
        seen.dns.policy = there;
        let planned = planned(&seen);
        let of_dns = planned.steps.iter().filter_map(|step| match step {
            Step::Apply(part) if part.name.namespace == "kube-system" => {
                Some(format!("apply {}", part.name.kind))
            }
            Step::Delete(name) => Some(format!("delete {}", name.kind)),
            _ => None,
        });
        assert_eq!(of_dns.collect::<Vec<_>>(), steps, "{told:?} {there}");
    }
}

#[test]
fn a_dns_address_outside_the_services_is_refused() {
    let mut seen = seen();
    seen.network.as_mut().unwrap().spec.dns.cluster_ip = "10.1.0.10".parse().ok();
    assert_eq!(reasons(&planned(&seen)), [(kind::DNS_READY, "AddressOutsideServices")]);
}

#[test]
fn what_cannot_be_read_is_neither_taken_away_nor_given_twice() {
    let mut cases = Vec::new();
    let mut lost_claim = settled();
    lost_claim.blocks.remove(0);
    lost_claim.undecodable = vec!["AddressBlock 10-244-0-0-26".to_owned()];
    let mut joins = lost_claim.clone();
    joins.nodes.push(node("c", 3));
    cases.push(("claim", lost_claim, vec![]));
    cases.push(("claim, and a node joins", joins, vec!["10.244.0.128/26"]));
    let mut lost_network = settled();
    lost_network.node_networks.remove(0);
    lost_network.undecodable = vec!["NodeNetwork a".to_owned()];
    cases.push(("NodeNetwork", lost_network.clone(), vec![]));
    lost_network.blocks.remove(0);
    cases.push(("NodeNetwork without a claim", lost_network, vec![]));
    for (name, seen, wanted) in cases {
        let outcome = planned(&seen);
        let mut claims = Vec::new();
        for step in steps(&outcome) {
            match step {
                Step::ClaimBlock { cidr, .. } => claims.push(cidr.to_string()),
                Step::CreateNodeNetwork { node, .. } => assert_eq!(node, "c", "{name}"),
                other => unreachable!("{name}: {other:?}"),
            }
        }
        assert_eq!(claims, wanted, "{name}");
    }
}
