use serde_json::json;

use netkeel_crds::{
    ClusterNetworkSpec, NodeNetworkSpec, NodeNetworkStatus,
    condition::condition,
    node_network::{BlockUsage, NodePool},
};

use super::*;
use crate::{
    observed::{Node, Workload},
    plan::Problem,
};

fn now(second: i64) -> Time {
    Time(jiff::Timestamp::from_second(second).unwrap())
}

fn network() -> ClusterNetwork {
    let mut network = ClusterNetwork::new("default", ClusterNetworkSpec::default());
    network.metadata.generation = Some(3);
    network
}

/// A node whose agent says this of it.
fn node_network(name: &str, applied: &str, ready: bool, message: &str) -> NodeNetwork {
    let block = format!("10.244.{}.0/26", name.as_bytes()[0]);
    let spec = NodeNetworkSpec { revision: "r2".to_owned(), ..NodeNetworkSpec::default() };
    let mut network = NodeNetwork::new(name, spec);
    network.status = Some(NodeNetworkStatus {
        applied_revision: Some(applied.to_owned()),
        conditions: vec![condition(kind::READY, ready, "Reason", message, now(0))],
        addresses: Some(Usage { used: 3, capacity: 63 }),
        blocks: vec![BlockUsage { cidr: block.parse().unwrap(), used: 3, capacity: 63, idle: false }],
        ..NodeNetworkStatus::default()
    });
    network
}

fn seen(node_networks: Vec<NodeNetwork>) -> Observed {
    Observed {
        nodes: ["a", "b"].map(|name| Node { name: name.to_owned(), ..Node::default() }).into(),
        node_networks,
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        agents: Some(Workload { wanted: 2, ready: 2, updated: 2, ..Workload::default() }),
        dns: crate::observed::DnsSeen {
            servers: Some(Workload { wanted: 2, ready: 1, updated: 2, ..Workload::default() }),
            policy: true,
            ..Default::default()
        },
        ..Observed::default()
    }
}

fn good() -> Observed {
    seen(vec![node_network("a", "r2", true, "fine"), node_network("b", "r2", true, "fine")])
}

fn outcome() -> Outcome {
    let config = netkeel_crds::node_network::NodeConfig {
        pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        pools: vec![NodePool {
            name: "default".to_owned(),
            cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            reserved: Vec::new(),
            ..NodePool::default()
        }],
        ..Default::default()
    };
    Outcome { config: Some(config), ..Outcome::default() }
}

/// Status, reason and message of one condition.
fn told(status: &ClusterNetworkStatus, kind: &str) -> (String, String, String) {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

#[test]
fn a_network_that_works_says_so() {
    let status = status(&network(), &good(), &outcome(), None, &now(1));
    for (kind, wanted) in [
        (kind::AVAILABLE, "True"),
        (kind::PROGRESSING, "False"),
        (kind::DEGRADED, "False"),
        (kind::AGENTS_READY, "True"),
        (kind::DNS_READY, "True"),
        (kind::SERVICE_NETWORK_READY, "True"),
        (kind::CONFLICTS, "False"),
    ] {
        assert_eq!(told(&status, kind).0, wanted, "{kind}");
    }
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(status.rollout.unwrap().summary, "2/2");
    assert_eq!((status.pools[0].addresses.used, status.pools[0].blocks.capacity), (6, 1024));
}

#[test]
fn dns_that_serves_with_its_last_good_settings_says_so() {
    let mut outcome = outcome();
    outcome.problems.push(Problem {
        condition: kind::DEGRADED,
        reason: SETTINGS_REFUSED,
        message: "this is wrong".to_owned(),
    });
    let status = status(&network(), &good(), &outcome, None, &now(1));
    let serving = ("True".into(), SETTINGS_REFUSED.into(), "1 of 2 servers ready; this is wrong".into());
    assert_eq!(told(&status, kind::DNS_READY), serving);
    assert_eq!(
        told(&status, kind::DEGRADED),
        ("True".into(), SETTINGS_REFUSED.into(), "this is wrong".into())
    );
    assert_eq!(told(&status, kind::AVAILABLE).0, "True");
}

#[test]
fn a_node_in_trouble_is_named_with_what_its_agent_says() {
    let cases = [
        (Some(node_network("b", "r2", false, "no cgroup2 mount")), "node b: no cgroup2 mount"),
        (
            Some(node_network("b", "r1", true, "fine")),
            "node b: its agent has not applied the present configuration yet",
        ),
        (None, "node b: no NodeNetwork yet"),
    ];
    for (b, message) in cases {
        let networks = [node_network("a", "r2", true, "fine")].into_iter().chain(b).collect();
        let status = status(&network(), &seen(networks), &outcome(), None, &now(1));
        assert_eq!(told(&status, kind::AVAILABLE), ("False".into(), "NodesNotReady".into(), message.into()));
        assert_eq!(told(&status, kind::PROGRESSING).2, "1/2 nodes have the present configuration");
    }
}

#[test]
fn a_node_that_is_written_to_in_this_pass_is_not_counted_as_updated() {
    let mut outcome = outcome();
    outcome.steps = vec![Step::WriteNodeNetwork {
        node: "b".to_owned(),
        uid: "u".to_owned(),
        resource_version: "7".to_owned(),
        entering: Vec::new(),
        spec: Box::default(),
    }];
    let status = status(&network(), &good(), &outcome, None, &now(1));
    let (state, reason, message) = told(&status, kind::PROGRESSING);
    assert_eq!((state.as_str(), reason.as_str()), ("True", "RollingOut"));
    assert_eq!(message, "1/2 nodes have the present configuration");
}

#[test]
fn many_nodes_in_trouble_are_counted() {
    let mut seen = seen(vec![]);
    seen.nodes = (0..9).map(|number| Node { name: format!("n{number}"), ..Node::default() }).collect();
    let message = told(&status(&network(), &seen, &outcome(), None, &now(1)), kind::AGENTS_READY).2;
    assert!(message.starts_with("node n0: no NodeNetwork yet; node n1"), "{message}");
    assert!(message.ends_with("and 6 more, see kubectl get nodenetworks"), "{message}");
}

#[test]
fn problems_and_failures_become_conditions() {
    let problem = |condition| Problem { condition, reason: "Why", message: "do this".to_owned() };
    let mut outcome = outcome();
    outcome.problems = vec![problem(kind::DEGRADED), problem(kind::CONFLICTS), problem(kind::DNS_READY)];
    let told_of = |failure| status(&network(), &good(), &outcome, failure, &now(1));
    let why = ("True".to_owned(), "Why".to_owned(), "do this".to_owned());
    assert_eq!(told(&told_of(None), kind::DEGRADED), why);
    assert_eq!(told(&told_of(None), kind::CONFLICTS), why);
    assert_eq!(told(&told_of(None), kind::DNS_READY).0, "False");
    assert_eq!(told(&told_of(Some("applying DaemonSet: forbidden")), kind::DEGRADED).1, "ApplyFailed");
}

#[test]
fn objects_that_cannot_be_read_are_named() {
    let mut seen = good();
    seen.undecodable = vec!["NodeNetwork c".to_owned()];
    let (status, reason, message) =
        told(&status(&network(), &seen, &outcome(), None, &now(1)), kind::DEGRADED);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Undecodable"));
    assert!(message.contains("NodeNetwork c"), "{message}");
}

#[test]
fn the_time_of_a_condition_is_that_of_its_last_change() {
    let mut network = network();
    network.status = Some(status(&network, &good(), &outcome(), None, &now(1)));
    let later = status(&network, &good(), &outcome(), None, &now(2));
    assert_eq!(Some(&later), network.status.as_ref(), "nothing to write");
}

#[test]
fn a_network_that_cannot_be_read_keeps_its_other_conditions_and_says_what_is_wrong() {
    let other = json!({"type": "Available", "status": "True", "later": "field"});
    let network = |degraded: Value| Unreadable {
        object: json!({"metadata": {"generation": 4}, "status": {"conditions": [other.clone(), degraded]}}),
        error: "missing field `cidrs`".to_owned(),
    };
    let before = json!({"type": "Degraded", "status": "False", "reason": "AsExpected", "message": "fine",
        "lastTransitionTime": now(0)});
    let told = unreadable(&network(before), &now(7)).expect("it is news");
    assert_eq!(told[0], other, "what is not ours to say stays as it is");
    let degraded = &told[1];
    assert_eq!((&degraded["status"], &degraded["reason"]), (&json!("True"), &json!("Undecodable")));
    assert_eq!(
        (&degraded["observedGeneration"], &degraded["lastTransitionTime"]),
        (&json!(4), &json!(now(7)))
    );
    let message = degraded["message"].as_str().unwrap();
    assert!(message.contains("missing field `cidrs`") && message.contains("kubectl edit"), "{message}");
    assert_eq!(unreadable(&network(degraded.clone()), &now(8)), None, "it is said once");
    let bare = Unreadable { object: json!({"metadata": {}}), error: "spec: not a map".to_owned() };
    assert_eq!(unreadable(&bare, &now(1)).map(|all| all.len()), Some(1), "nor is a status needed");
}

/// A node whose agent says this of policies.
fn with_policy(name: &str, reason: &str, message: &str) -> NodeNetwork {
    let mut network = node_network(name, "r2", true, "fine");
    if let Some(status) = &mut network.status {
        status.conditions.push(condition(kind::POLICY_READY, reason == "InForce", reason, message, now(0)));
    }
    network
}

#[test]
fn policies_are_in_force_when_every_agent_says_so_and_nothing_is_said_before_the_first_does() {
    let quiet = status(&network(), &good(), &outcome(), None, &now(1));
    assert!(quiet.conditions.iter().all(|condition| condition.type_ != kind::POLICY_READY));
    let nodes = vec![
        with_policy("a", "InForce", "2 policies are in force"),
        with_policy("b", "InForce", "2 policies are in force"),
    ];
    let status = status(&network(), &seen(nodes), &outcome(), None, &now(1));
    assert_eq!(told(&status, kind::POLICY_READY).0, "True");
}

#[test]
fn what_all_nodes_say_of_a_policy_is_told_once() {
    let unsupported = "NetworkPolicy shop/web: spec.ingress[0].ports[0].port: the named port \"web\"";
    let nodes = vec![
        with_policy("a", "Unsupported", unsupported),
        with_policy("b", "Unsupported", unsupported),
        with_policy("c", "ProgrammingFailed", "pod shop/cart is closed"),
        with_policy("d", "InForce", "2 policies are in force"),
    ];
    let status = status(&network(), &seen(nodes), &outcome(), None, &now(1));
    let (state, reason, message) = told(&status, kind::POLICY_READY);
    assert_eq!((state.as_str(), reason.as_str()), ("False", "Unsupported"));
    assert_eq!(message, format!("2 nodes: {unsupported}; node c: pod shop/cart is closed"));
    assert_eq!(told(&status, kind::AVAILABLE).0, "True", "pods have their network all the same");
}

#[test]
fn a_service_of_dns_that_is_being_taken_over_makes_nothing_unavailable() {
    let mut seen = good();
    let cluster_ip = "10.96.0.10".parse().ok();
    seen.dns.service = Some(crate::observed::DnsService { ours: true, leads_to_us: false, cluster_ip });
    seen.dns.servers = Some(Workload { wanted: 2, ready: 1, ..Workload::default() });
    let status = status(&network(), &seen, &outcome(), None, &now(1));
    let (state, reason, message) = told(&status, kind::DNS_READY);
    assert_eq!((state.as_str(), reason.as_str()), ("Unknown", "TakingOver"));
    assert!(message.starts_with("1 of 2 servers ready; Service kube-system/kube-dns leads to"), "{message}");
    assert_eq!(told(&status, kind::AVAILABLE).0, "True");
}

#[test]
fn dns_counts_its_servers_where_they_should_be_and_while_they_move() {
    use netkeel_crds::cluster_network::dns::Placement::{EveryNode, Replicas};
    let of = |wanted, ready| Some(Workload { wanted, ready, ..Workload::default() });
    let describe = "kubectl -n kube-system describe pods -l k8s-app=kube-dns";
    for (placement, servers, node_servers, reason, message) in [
        (Replicas, of(2, 1), None, "Serving", "1 of 2 servers ready".to_owned()),
        (Replicas, of(2, 0), None, "NotServing", format!("none of 2 servers is ready: {describe}")),
        (Replicas, None, None, "Missing", "Deployment kube-system/netkeel-dns is not there".to_owned()),
        (EveryNode, None, of(3, 2), "Serving", "2 of 3 nodes have a ready server".to_owned()),
        (EveryNode, None, of(3, 0), "NotServing", format!("none of 3 servers is ready: {describe}")),
        (EveryNode, None, None, "Missing", "DaemonSet kube-system/netkeel-dns is not there".to_owned()),
        (EveryNode, of(2, 2), of(3, 1), "Moving", "1 of 3 nodes have a ready server of placement EveryNode; 2 of the former placement stay until all are".to_owned()),
        (EveryNode, of(2, 2), None, "Moving", "0 of 0 nodes have a ready server of placement EveryNode; 2 of the former placement stay until all are".to_owned()),
    ] {
        let (mut network, mut seen) = (network(), good());
        network.spec.dns.placement = placement;
        (seen.dns.servers, seen.dns.node_servers) = (servers, node_servers);
        let status = status(&network, &seen, &outcome(), None, &now(1));
        let good = if matches!(reason, "Serving" | "Moving") { "True" } else { "False" };
        assert_eq!(told(&status, kind::DNS_READY), (good.into(), reason.into(), message));
    }
}
