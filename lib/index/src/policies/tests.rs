//! Events in, tables out.

use k8s_openapi::api::{core::v1::Pod as PodObject, networking::v1::NetworkPolicySpec};
use netkeel_core::policy::{Direction, Table};
use serde_json::{Value, json};

use super::*;
use crate::convert::policy::PodReader;

fn pod(name: &str, app: &str, node: &str, address: &str) -> PodObject {
    let object = json!({"metadata": {"namespace": "shop", "name": name, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": []}, "status": {"phase": "Running", "podIP": address}});
    serde_json::from_value(object).unwrap()
}

fn read(pod: &PodObject) -> Result<Pod, Invalid> {
    PodReader::default().read(pod)
}

fn namespace(labels: &Value) -> NamespaceObject {
    serde_json::from_value(json!({"metadata": {"name": "shop", "labels": labels}})).unwrap()
}

/// Pods with the label `app: db` take TCP from `peer`.
fn policy(name: &str, peer: &Value, port: &Value) -> NetworkPolicy {
    let rule = json!({"from": [peer], "ports": [{"port": port}]});
    let spec = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [rule]});
    serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec})).unwrap()
}

fn from_web() -> NetworkPolicy {
    policy("from-web", &json!({"podSelector": {"matchLabels": {"app": "web"}}}), &json!(80))
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

fn address(last: u8) -> Address {
    Address::v4([10, 0, 0, last])
}

/// A node with a database that takes only what web pods send, which are on another node.
fn shop() -> Policies {
    let mut policies = Policies::new("a", Numbers::default());
    policies.apply_namespace(&namespace(&json!({"team": "x"})));
    policies.apply_pod(read(&pod("db", "db", "a", "10.0.0.1")));
    policies.apply_pod(read(&pod("web", "web", "b", "10.0.0.2")));
    policies.apply_policy(&from_web());
    policies
}

fn reaches_db(policies: &mut Policies, from: Address) -> bool {
    policies.compile().allows(&name("db"), Direction::Ingress, from, 6, 80)
}

#[test]
fn a_policy_its_pods_and_their_labels_decide_together() {
    let mut policies = shop();
    assert!(reaches_db(&mut policies, address(2)) && !reaches_db(&mut policies, address(3)));
    assert!(policies.apply_pod(read(&pod("web", "other", "b", "10.0.0.2"))));
    assert!(!reaches_db(&mut policies, address(2)));
    assert!(policies.apply_pod(read(&pod("web", "web", "b", "10.0.0.3"))));
    assert!(!reaches_db(&mut policies, address(2)) && reaches_db(&mut policies, address(3)));
    assert!(policies.delete_pod(&name("web")));
    assert!(!reaches_db(&mut policies, address(3)));
    assert!(policies.delete_policy(&name("from-web")));
    assert!(reaches_db(&mut policies, address(9)));
    assert_eq!(policies.compile().pods[&name("db")].ingress, Table::Open);
}

#[test]
fn a_namespaces_new_labels_move_its_pods() {
    let mut policies = shop();
    let team = json!({"namespaceSelector": {"matchLabels": {"team": "y"}}});
    policies.apply_policy(&policy("from-team", &team, &json!(80)));
    policies.apply_policy(&policy("from-web", &team, &json!(80)));
    assert!(!reaches_db(&mut policies, address(2)));
    assert!(policies.apply_namespace(&namespace(&json!({"team": "y"}))));
    assert!(reaches_db(&mut policies, address(2)));
    assert!(policies.delete_namespace(&ObjectName::new("", "shop")));
    assert!(!reaches_db(&mut policies, address(2)), "an unknown namespace is selected by nobody");
}

#[test]
fn an_object_sent_again_changes_nothing() {
    let mut policies = shop();
    policies.compile();
    assert!(!policies.apply_pod(read(&pod("db", "db", "a", "10.0.0.1"))));
    assert!(!policies.apply_namespace(&namespace(&json!({"team": "x"}))));
    assert!(!policies.apply_policy(&from_web()));
    assert!(!policies.reset_policies(&[from_web()], &[]));
    assert!(!policies.reset_namespaces(&[namespace(&json!({"team": "x"}))], &[]));
    let pods = [pod("db", "db", "a", "10.0.0.1"), pod("web", "web", "b", "10.0.0.2")];
    assert!(!policies.reset_pods(pods.iter().map(read).collect(), &[]));
    let before = policies.work();
    policies.compile();
    assert_eq!(policies.work(), before);
}

#[test]
fn a_reset_forgets_what_is_gone_and_keeps_what_could_not_be_read() {
    let mut policies = shop();
    assert!(policies.reset_pods(vec![], &[name("db")]));
    assert!(policies.pod(&name("db")).is_some() && policies.pod(&name("web")).is_none());
    assert!(!policies.reset_policies(&[], &[name("from-web")]));
    assert!(!reaches_db(&mut policies, address(9)), "the policy that cannot be read any more stays in force");
    assert!(policies.reset_policies(&[], &[]));
    assert!(reaches_db(&mut policies, address(9)));
}

#[test]
fn a_policy_that_was_never_read_closes_its_namespace() {
    let mut policies = shop();
    let problem =
        |policies: &Policies| policies.problems().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(policies.reset_policies(&[from_web()], &[name("odd")]));
    assert!(reaches_db(&mut policies, address(2)), "rules of the others still allow");
    let isolated = |policies: &mut Policies| policies.compile().pods[&name("db")].egress != Table::Open;
    assert!(isolated(&mut policies));
    assert!(policies.delete_policy(&name("odd")) && !isolated(&mut policies));

    let mut impossible = from_web();
    impossible.metadata.name = Some("odd".into());
    impossible.spec.as_mut().unwrap().policy_types = Some(vec!["Both".into()]);
    assert!(policies.apply_policy(&impossible) && isolated(&mut policies));
    assert_eq!(problem(&policies).len(), 1);
    let reason = "cannot be decoded".to_owned();
    assert!(!policies.undecodable(Invalid { kind: POLICY, name: name("odd"), reason }), "closed already");
    let mut good = from_web();
    good.metadata.name = Some("odd".into());
    assert!(policies.apply_policy(&good) && !isolated(&mut policies));
    assert_eq!(problem(&policies), [""; 0]);
}

#[test]
fn an_impossible_policy_leaves_its_last_good_version_in_force() {
    let mut policies = shop();
    let mut impossible = from_web();
    impossible.spec.as_mut().unwrap().policy_types = Some(vec!["Both".into()]);
    assert!(!policies.apply_policy(&impossible));
    assert!(reaches_db(&mut policies, address(2)) && !reaches_db(&mut policies, address(3)));
    assert_eq!(policies.problems().iter().count(), 1);
    policies.delete_policy(&name("from-web"));
    assert!(policies.problems().is_empty());
}

#[test]
fn what_is_not_implemented_is_listed_as_long_as_a_policy_asks_for_it() {
    let mut policies = shop();
    policies.apply_policy(&policy("from-web", &json!({"podSelector": {}}), &json!("web")));
    assert!(!reaches_db(&mut policies, address(2)), "a named port allows nothing");
    let fields: Vec<_> = policies.unsupported().map(|part| &*part.field).collect();
    assert_eq!(fields, ["spec.ingress[0].ports[0].port"]);
    policies.apply_policy(&from_web());
    assert_eq!(policies.unsupported().count(), 0);
}

#[test]
fn policies_outlive_their_deletion_while_their_namespace_is_deleted() {
    let mut policies = shop();
    let mut leaving = namespace(&json!({"team": "x"}));
    leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-25T00:00:00Z")).unwrap();
    policies.apply_namespace(&leaving);
    assert!(!policies.delete_policy(&name("from-web")));
    assert!(!policies.reset_policies(&[], &[]));
    assert!(!reaches_db(&mut policies, address(9)));
    assert!(policies.delete_namespace(&ObjectName::new("", "shop")));
    assert!(reaches_db(&mut policies, address(9)));
    assert!(policies.world().policies.is_empty());
}

#[test]
fn the_own_nodes_word_on_an_address_counts_before_the_apis() {
    let mut policies = shop();
    policies.apply_policy(&policy(
        "from-web",
        &json!({"podSelector": {"matchLabels": {"app": "new"}}}),
        &json!(80),
    ));
    let new = |address: &str| pod("new", "new", "a", address);
    assert!(!policies.place(&name("new"), [address(7)].into()), "not known yet");
    assert!(policies.apply_pod(read(&new(""))));
    assert!(reaches_db(&mut policies, address(7)));
    assert!(!policies.apply_pod(read(&new("10.0.0.6"))), "the API's address is that of an earlier sandbox");
    assert!(policies.place(&name("new"), [].into()) && !reaches_db(&mut policies, address(7)));
    assert!(!policies.place(&name("new"), [].into()));
    assert!(policies.apply_pod(read(&new("10.0.0.6"))) && reaches_db(&mut policies, address(6)));
    let six = Address::from("fd00::7".parse::<std::net::IpAddr>().unwrap());
    assert!(policies.place(&name("new"), [address(7), six].into()));
    assert!(reaches_db(&mut policies, address(7)) && reaches_db(&mut policies, six), "both of its addresses");
}

#[test]
fn only_pods_of_the_own_node_have_tables_and_host_network_pods_have_none() {
    let mut policies = shop();
    let mut host = pod("host", "db", "a", "172.18.0.2");
    host.spec.as_mut().unwrap().host_network = Some(true);
    policies.apply_pod(read(&host));
    assert!(policies.compile().pods.keys().eq([&name("db")]));
    assert!(policies.apply_pod(read(&pod("web", "web", "a", "10.0.0.2"))));
    assert!(policies.compile().pods.keys().eq([&name("db"), &name("web")]));
}

#[test]
fn pods_of_the_same_policies_share_a_table_and_a_table_stays_until_it_says_something_else() {
    let mut policies = shop();
    policies.apply_pod(read(&pod("db-2", "db", "a", "10.0.0.11")));
    let table = |policies: &mut Policies, pod: &str| {
        let Table::Rules(rules) = policies.compile().pods[&name(pod)].ingress.clone() else { panic!("open") };
        rules
    };
    let before = table(&mut policies, "db");
    assert!(Arc::ptr_eq(&before, &table(&mut policies, "db-2")));
    policies.apply_pod(read(&pod("other", "other", "b", "10.0.0.12")));
    let everybody = policy("for-others", &json!({"podSelector": {}}), &json!(81));
    policies.apply_policy(&NetworkPolicy {
        metadata: from_web().metadata,
        spec: from_web()
            .spec
            .map(|spec| NetworkPolicySpec { policy_types: Some(vec!["Ingress".into()]), ..spec }),
    });
    assert!(Arc::ptr_eq(&before, &table(&mut policies, "db")), "the same said in other words");
    policies.apply_policy(&everybody);
    assert!(!Arc::ptr_eq(&before, &table(&mut policies, "db")));
    assert_eq!(before.len(), 1, "what somebody holds does not change");
}

#[test]
fn labels_that_no_rule_asks_for_tell_no_classes_apart() {
    let mut policies = shop();
    let labelled = |revision: &str| {
        let mut object = pod("other", "web", "b", "10.0.0.12");
        object.metadata.labels.as_mut().unwrap().insert("revision".into(), revision.into());
        object
    };
    policies.apply_pod(read(&labelled("1")));
    let identity = |policies: &mut Policies, last| policies.compile().identity(address(last));
    assert_eq!(identity(&mut policies, 12), identity(&mut policies, 2));
    let asks = policy("asks", &json!({"podSelector": {"matchLabels": {"revision": "1"}}}), &json!(81));
    policies.apply_policy(&asks);
    assert_ne!(identity(&mut policies, 12), identity(&mut policies, 2));
    policies.apply_pod(read(&labelled("2")));
    assert!(!policies.compile().allows(&name("db"), Direction::Ingress, address(12), 6, 81));
    policies.delete_policy(&name("asks"));
    assert_eq!(identity(&mut policies, 12), identity(&mut policies, 2));
}

#[test]
fn a_verdicts_rule_has_a_name() {
    let mut policies = shop();
    let compiled = policies.compile();
    let Table::Rules(rules) = &compiled.pods[&name("db")].ingress else { panic!("open") };
    let names: Vec<_> = rules.values().map(|verdict| compiled.rules[&verdict.rule].to_string()).collect();
    assert_eq!(names, ["shop/from-web, ingress rule 0"]);
}

#[test]
fn a_restart_with_the_numbers_kept_gives_the_same_tables() {
    let mut first = shop();
    first.apply_pod(read(&pod("old", "old", "b", "10.0.0.8")));
    first.compile();
    first.delete_pod(&name("old"));
    let compiled = first.compile().clone();
    let kept = serde_json::to_string(first.numbers()).unwrap();
    let mut second = Policies::new("a", serde_json::from_str(&kept).unwrap());
    second.apply_policy(&from_web());
    let pods = [pod("web", "web", "b", "10.0.0.2"), pod("db", "db", "a", "10.0.0.1")];
    second.reset_pods(pods.iter().map(read).collect(), &[]);
    second.reset_namespaces(&[namespace(&json!({"team": "x"}))], &[]);
    assert_eq!(*second.compile(), compiled);
    second.apply_pod(read(&pod("new", "new", "b", "10.0.0.9")));
    let numbers: BTreeSet<_> = first.numbers().classes().map(|(_, number)| number).collect();
    let new = second.compile().identities[&address(9)];
    assert!(
        !numbers.contains(&new) && new > *second.compile().identities.values().min().unwrap() + 2,
        "never reused: {new}"
    );
}

/// A node of a cluster of this many pods with 50 labels in all, 100 policies, 10 of them on the node's 20 pods.
fn cluster(size: u32) -> Policies {
    let mut policies = Policies::new("a", Numbers::default());
    policies.apply_namespace(&namespace(&json!({})));
    for number in 0..size {
        let node = if number < 20 { "a" } else { "b" };
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
        policies.apply_pod(read(&pod(
            &format!("pod-{number}"),
            &format!("app-{}", number % 50),
            node,
            &address,
        )));
    }
    for number in 0..100 {
        let labels = |number| json!({"podSelector": {"matchLabels": {"app": format!("app-{number}")}}});
        let mut policy = policy(&format!("policy-{number}"), &labels(number % 50), &json!(80));
        let app = format!("app-{}", if number < 10 { number } else { 50 + number });
        policy.spec.as_mut().unwrap().pod_selector =
            serde_json::from_value(json!({"matchLabels": {"app": app}})).unwrap();
        policies.apply_policy(&policy);
    }
    policies.compile();
    policies
}

/// What compiling costs after a change.
fn cost(policies: &mut Policies, change: impl FnOnce(&mut Policies)) -> Work {
    let before = policies.work();
    change(policies);
    policies.compile();
    let after = policies.work();
    Work {
        addresses: after.addresses - before.addresses,
        matches: after.matches - before.matches,
        selections: after.selections - before.selections,
        tables: after.tables - before.tables,
    }
}

#[test]
fn a_changes_cost_is_the_same_in_any_cluster() {
    for size in [200, 10_000] {
        let mut policies = cluster(size);
        let all = policies.work();
        // The 50 classes with the 10 policies that isolate anybody here, not the pods with all policies.
        assert_eq!((all.matches, all.tables, all.addresses), (500, 10, u64::from(size)), "{size} pods");
        let relabel = |app: &'static str| {
            move |policies: &mut Policies| {
                assert!(policies.apply_pod(read(&pod("pod-150", app, "b", "10.0.0.150"))));
            }
        };
        let known = cost(&mut policies, relabel("app-7"));
        assert_eq!(known, Work { addresses: 1, ..Work::default() }, "to a known class, {size} pods");
        let new = cost(&mut policies, relabel("new"));
        assert_eq!(new, Work { addresses: 1, matches: 10, ..Work::default() }, "to a new class, {size} pods");
        let own = cost(&mut policies, |policies| {
            assert!(policies.apply_pod(read(&pod("pod-3", "app-4", "a", "10.0.0.3"))));
        });
        assert_eq!(
            own,
            Work { addresses: 1, selections: 1, ..Work::default() },
            "a pod of this node, {size} pods"
        );
        let mut edit =
            policy("policy-4", &json!({"podSelector": {"matchLabels": {"app": "app-9"}}}), &json!(81));
        let app = json!({"matchLabels": {"app": "app-4"}});
        edit.spec.as_mut().unwrap().pod_selector = serde_json::from_value(app).unwrap();
        let edit = cost(&mut policies, |policies| assert!(policies.apply_policy(&edit)));
        println!("a policy's edit in a cluster of {size} pods: {edit:?}");
        // One policy with all 51 classes, its namespace's policies with the 19 sets of labels of this node's 20 pods.
        assert_eq!(edit, Work { addresses: 0, matches: 51, selections: 19, tables: 1 }, "{size} pods");
    }
}
