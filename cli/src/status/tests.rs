//! The whole answer over an API server of the test's own, and each problem with its next step.

use netkeel_testkit::api::FakeApi;
use serde_json::{Value, json};

use super::*;
use crate::{args::Output, lister::Lister};

const OURS: &str = "netkeel-system";

fn workload(kind: &str, component: &str, ready: u32) -> Value {
    let (namespace, status) = match component {
        "agent" => (
            OURS,
            json!({"numberReady": ready, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
            "numberMisscheduled": 0}),
        ),
        "dns" => ("kube-system", json!({"readyReplicas": ready})),
        _ => (OURS, json!({"readyReplicas": ready})),
    };
    json!({"apiVersion": "apps/v1", "kind": kind,
        "metadata": {"namespace": namespace, "name": format!("netkeel-{component}"),
            "labels": {"app.kubernetes.io/component": component}},
        "spec": {"replicas": 2, "selector": {}, "template": {"spec": {"containers": [
            {"name": "a", "image": "registry.example:5000/netkeel/netkeel:0.1.0@sha256:00"}]}}},
        "status": status})
}

fn network(observed: u32) -> Value {
    json!({"apiVersion": "netkeel.io/v1alpha1", "kind": "ClusterNetwork",
        "metadata": {"name": "default", "generation": 2}, "spec": {},
        "status": {"observedGeneration": observed, "conditions": [{"type": "Available", "status": "True",
            "reason": "Ready", "message": "pods, Services and names work on every node",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "pools": [pool("default", "10.244.0.0/16", "Active", 1024)]}})
}

fn pool(name: &str, cidr: &str, state: &str, capacity: u32) -> Value {
    json!({"name": name, "cidr": cidr, "state": state, "blocks": {"used": 2, "capacity": capacity},
        "addresses": {"used": 0, "capacity": 0}})
}

fn node_network(number: u8) -> Value {
    json!({"apiVersion": "netkeel.io/v1alpha1", "kind": "NodeNetwork", "metadata": {"name": format!("node-{number}")},
        "spec": {"nodeAddresses": [format!("192.0.2.{number}")], "blocks": [format!("10.244.{number}.0/26")],
            "revision": "0123456789ab"},
        "status": {"appliedRevision": "0123456789ab", "addresses": {"used": 3, "capacity": 63}, "blocks": [{"cidr": "10.244.0.0/26", "used": 3, "capacity": 63}],
            "datapath": {"kernel": "6.18.5", "mtu": 1450},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "fine",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
}

fn node_object(number: u8, ready: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{number}")},
        "status": {"conditions": [{"type": "Ready", "status": ready, "message": "Kubelet stopped posting node status."}]}})
}

fn agent_pod(number: u8, state: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": OURS, "name": format!("netkeel-agent-{number}"),
            "labels": {"app.kubernetes.io/component": "agent"}},
        "spec": {"nodeName": format!("node-{number}"),
            "containers": [{"name": "agent", "image": "ghcr.io/netkeel/netkeel:0.1.0"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "agent", "image": "", "imageID": "",
            "ready": state.get("running").is_some(), "restartCount": 4, "state": state}]}})
}

/// A cluster of two nodes in which everything works.
async fn cluster() -> FakeApi {
    let api = FakeApi::start().await.unwrap();
    for (kind, component) in [("Deployment", "operator"), ("DaemonSet", "agent"), ("Deployment", "dns")] {
        api.put(workload(kind, component, 2));
    }
    let mut other = workload("Deployment", "operator", 0);
    other["metadata"]["name"] = "prometheus-operator".into();
    api.put(other);
    api.put(network(2));
    for number in [1, 2] {
        api.put(node_object(number, "True"));
        api.put(node_network(number));
        api.put(agent_pod(number, &json!({"running": {}})));
    }
    api
}

async fn asked(api: &FakeApi) -> Status {
    fetch::fetch(Lister::new(api.client().unwrap())).await.unwrap()
}

#[tokio::test]
async fn a_cluster_that_works_is_four_tables_and_a_sentence() {
    let api = cluster().await;
    let expected = "\
COMPONENT  READY  VERSION  RUN BY
operator   2/2    0.1.0    deployment/netkeel-operator in netkeel-system
agent      2/2    0.1.0    daemonset/netkeel-agent in netkeel-system
dns        2/2    0.1.0    deployment/netkeel-dns in kube-system

Available  True  pods, Services and names work on every node

POOL     CIDR           STATE   BLOCKS  ADDRESSES
default  10.244.0.0/16  Active  2/1024  6/126

NODE    ADDRESS    MTU   BLOCKS         PODS  REVISION  AGENT  STATE
node-1  192.0.2.1  1450  10.244.1.0/26  3/63  01234567  ready  ok
node-2  192.0.2.2  1450  10.244.2.0/26  3/63  01234567  ready  ok

everything works
";
    assert_eq!(render::render(&asked(&api).await, Output::Text), expected);
}

#[tokio::test]
async fn the_json_has_the_shape_that_the_reference_documents() {
    let api = cluster().await;
    let json: Value = serde_json::from_str(&render::render(&asked(&api).await, Output::Json)).unwrap();
    let first = |key: &str| json[key][0].clone();
    assert_eq!(json["healthy"], true);
    assert_eq!(
        (&json["installation"], &json["problems"], &json["forbidden"]),
        (&json!("Reported"), &json!([]), &json!([]))
    );
    assert_eq!(
        first("components"),
        json!({"name": "operator", "owner": "deployment/netkeel-operator", "namespace": OURS, "ready": 2, "wanted": 2,
            "version": "0.1.0"})
    );
    assert_eq!(
        first("pools"),
        json!({"name": "default", "cidr": "10.244.0.0/16", "state": "Active", "blocks": {"used": 2, "total": 1024},
            "addresses": {"used": 6, "total": 126}})
    );
    assert_eq!(
        first("nodes"),
        json!({"name": "node-1", "notReady": null, "addresses": ["192.0.2.1"], "mtu": 1450, "kernel": "6.18.5",
            "blocks": ["10.244.1.0/26"], "podAddresses": {"used": 3, "total": 63}, "revision": "0123456789ab",
            "appliedRevision": "0123456789ab",
            "agent": {"pod": {"namespace": OURS, "name": "netkeel-agent-1", "ready": true, "state": "Running",
                "restarts": 4, "version": "0.1.0"}},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "fine"}]})
    );
}

#[tokio::test]
async fn pools_have_the_state_and_size_that_the_operator_says_and_those_that_are_gone_are_told() {
    let api = cluster().await;
    let mut network = network(2);
    network["spec"] = json!({"podNetwork": {"pools": [
        {"name": "default", "cidrs": ["10.244.0.0/17"], "state": "Draining"}, {"name": "new", "cidrs": ["10.9.0.0/16"]},
    ]}});
    network["status"]["pools"] = json!([
        pool("default", "10.244.0.0/17", "Removable", 128),
        pool("old (removed)", "10.244.2.0/24", "Draining", 1),
        pool("unused (removed)", "10.8.0.0/16", "Draining", 1),
    ]);
    api.put(network);
    let pools = asked(&api).await.pools;
    let told = pools.iter().map(|pool| format!("{} {:?} {}", pool.name, pool.state.as_deref(), pool.blocks));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [r#"default Some("Removable") 2/128"#, "new None 0/1024", r#"old (removed) Some("Draining") 1/1"#]
    );
}

#[tokio::test]
async fn without_its_operator_a_cluster_says_so_and_what_goes_on() {
    let api = cluster().await;
    api.put(workload("Deployment", "operator", 0));
    api.put(network(1));
    let problems = asked(&api).await.problems();
    assert_eq!(problems.len(), 1, "nodes are told as they are: {problems:?}");
    assert!(
        problems[0].what.starts_with("operator: none of 2 is ready; nodes go on as they are"),
        "{problems:?}"
    );
    assert!(problems[0].next.contains("logs deployment/netkeel-operator"), "{problems:?}");
    api.delete("apps/v1", "Deployment", Some(OURS), "netkeel-operator");
    let problems = asked(&api).await.problems();
    assert!(problems[0].what.starts_with("operator: not there"), "{problems:?}");
    assert!(problems[0].next.starts_with("helm upgrade --install"), "{problems:?}");
}

#[tokio::test]
async fn an_agent_that_is_down_is_told_though_its_last_word_was_ready() {
    let api = cluster().await;
    api.put(agent_pod(2, &json!({"waiting": {"reason": "CrashLoopBackOff"}})));
    let status = asked(&api).await;
    let problems = status.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let said = "node node-2: the agent does not run (CrashLoopBackOff, 4 restarts); connections go on";
    assert!(problems[0].what.starts_with(said), "{problems:?}");
    assert!(problems[0].next.contains("logs netkeel-agent-2 --previous"), "{problems:?}");
    let text = render::render(&status, Output::Text);
    assert!(
        text.lines().any(|line| line.starts_with("node-2") && line.ends_with("CrashLoopBackOff  problem")),
        "{text}"
    );

    api.delete("v1", "Pod", Some(OURS), "netkeel-agent-2");
    assert!(asked(&api).await.problems()[0].what.starts_with("node node-2: no agent runs on it"));
}

#[tokio::test]
async fn a_node_that_does_not_report_is_told_as_the_cause() {
    let api = cluster().await;
    api.put(node_object(1, "Unknown"));
    let problems = asked(&api).await.problems();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].what, "node node-1: not Ready: Kubelet stopped posting node status.");
}

#[tokio::test]
async fn an_api_server_that_is_down_is_an_error_that_says_what_goes_on() {
    let api = cluster().await;
    api.set_down(true);
    let error = fetch::fetch(Lister::impatient(api.client().unwrap())).await.unwrap_err();
    let said = format!("{error:#}");
    assert!(said.contains("Nodes go on without it") && said.contains("/readyz"), "{said}");
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_named_and_hides_no_other() {
    let api = cluster().await;
    api.put(
        json!({"apiVersion": "netkeel.io/v1alpha1", "kind": "NodeNetwork", "metadata": {"name": "node-1"},
        "spec": {"blocks": ["not a cidr"]}}),
    );
    let status = asked(&api).await;
    let problems = status.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].what.starts_with("node node-1: Readable is False"), "{problems:?}");
    assert_eq!((status.nodes.len(), status.pools[0].blocks.used), (2, 1));
}

#[test]
fn what_may_not_be_listed_is_named_and_is_no_problem() {
    let mut status = reported(vec![node("a")]);
    status.components.clear();
    status.forbidden = ["deployments", "daemonsets", "pods"].map(str::to_owned).into();
    assert_eq!(status.problems(), []);
    let text = render::render(&status, Output::Text);
    assert!(text.contains("you may not list: deployments, daemonsets, pods"), "{text}");
}

fn condition(kind: &str, status: &str, message: &str) -> Condition {
    Condition { kind: kind.into(), status: status.into(), reason: "Reason".into(), message: message.into() }
}

fn node(name: &str) -> Node {
    Node {
        name: name.into(),
        blocks: vec!["10.244.0.0/26".into()],
        revision: Some("7".into()),
        applied_revision: Some("7".into()),
        conditions: vec![condition("Ready", "True", "")],
        ..Node::default()
    }
}

fn component(name: &str) -> Component {
    Component { name: name.into(), owner: "deployment/a".into(), ready: 1, wanted: 2, ..Component::default() }
}

fn reported(nodes: Vec<Node>) -> Status {
    Status {
        installation: Installation::Reported,
        components: component::NAMES.map(component).into(),
        conditions: vec![condition("Available", "True", "2 of 2 nodes")],
        nodes,
        ..Status::default()
    }
}

#[test]
fn every_problem_is_named_with_its_next_step() {
    let of = |change: fn(&mut Status)| {
        let mut status = reported(vec![node("a")]);
        change(&mut status);
        status
    };
    let cases = [
        (Status::default(), "Netkeel is not installed", "helm install netkeel"),
        (
            of(|s| s.installation = Installation::WithoutNetwork),
            "no ClusterNetwork named default",
            "kubectl apply",
        ),
        (
            of(|s| s.installation = Installation::Unreported),
            "the operator has not reported",
            "logs deploy/netkeel-operator",
        ),
        (
            of(|s| s.components[2].ready = 0),
            "dns: none of 2 is ready; Netkeel answers no names",
            "logs deployment/a",
        ),
        (
            of(|s| (s.components[0].ready, s.components[0].wanted) = (0, 0)),
            "operator: scaled to none",
            "scale deployment/a --replicas=2",
        ),
        (of(|s| drop(s.components.remove(1))), "agent: not there", "describe clusternetwork default"),
        (
            of(|s| s.nodes = vec![Node { name: "new".into(), ..Node::default() }]),
            "node new: no NodeNetwork yet",
            "logs deploy/netkeel-operator",
        ),
        (
            of(|s| s.nodes[0].blocks.clear()),
            "node a: no block of addresses",
            "describe clusternetwork default",
        ),
        (of(|s| s.nodes[0].applied_revision = None), "node a: the agent has not reported", "spec.nodeName=a"),
        (
            of(|s| s.nodes[0].applied_revision = Some("6".into())),
            "node a: the agent has not applied the latest configuration",
            "spec.nodeName=a",
        ),
        (
            of(|s| s.nodes[0].conditions = vec![condition("Ready", "False", "bpffs is missing")]),
            "node a: Ready is False: bpffs is missing",
            "describe nodenetwork a",
        ),
        (
            of(|s| s.conditions = vec![condition("Degraded", "True", "pool full")]),
            "network: Degraded is True: pool full",
            "describe clusternetwork default",
        ),
    ];
    for (status, what, next) in cases {
        tells(&status, what, next);
    }
}

/// The status tells this problem and this next step, to people and to programs.
fn tells(status: &Status, what: &str, next: &str) {
    let text = render::render(status, Output::Text);
    assert!(text.contains(what), "{what} is not in\n{text}");
    let told = text.lines().any(|line| line.starts_with("  next: ") && line.contains(next));
    assert!(told, "{next}\n{text}");
    let json: Value = serde_json::from_str(&render::render(status, Output::Json)).unwrap();
    assert_eq!(json["healthy"], false);
    assert!(json["problems"][0]["what"].as_str().unwrap().contains(what));
}

#[test]
fn a_network_that_is_changing_is_no_problem() {
    let mut status = reported(vec![node("a")]);
    let changing = condition("Progressing", "True", "node-2 applies revision 8");
    status.conditions = vec![changing, condition("Degraded", "False", "")];
    assert_eq!(status.problems(), []);
}
