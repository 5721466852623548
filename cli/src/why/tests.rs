//! Questions to a small shop, from a file of objects and from an API server of the test's own.

use netkeel_testkit::api::FakeApi;
use serde_json::{Value, json};

use super::{render::render, source::Objects, *};
use crate::{args::Output, lister::Lister};

/// A cluster as `kubectl get … -A -o yaml` writes it: two lists and a single object.
const SHOP: &str = include_str!("shop.yaml");

fn objects() -> Objects {
    Objects::of_text(SHOP).unwrap()
}

fn asked(objects: &Objects, from: &str, to: &str) -> Result<Answer> {
    answer(objects, &from.parse().unwrap(), &to.parse().unwrap())
}

fn text(from: &str, to: &str) -> String {
    render(&asked(&objects(), from, to).unwrap(), Output::Text)
}

#[test]
fn a_rule_that_allows_is_named_with_the_policies_that_isolate() {
    assert_eq!(
        text("shop/cart", "shop/db:5432"),
        "\
allowed: pod shop/cart to pod shop/db, TCP port 5432
  egress of pod shop/cart: allowed, no policy isolates it
  ingress of pod shop/db: allowed by shop/db, ingress rule 0 (isolated by shop/db, shop/deny-all)
"
    );
}

#[test]
fn a_denial_names_the_policies_and_says_what_would_help() {
    assert_eq!(
        text("blog/web", "shop/db:5432"),
        "\
denied: pod blog/web to pod shop/db, TCP port 5432
  egress of pod blog/web: allowed, no policy isolates it
  ingress of pod shop/db: denied, no rule of shop/db, shop/deny-all allows it
next: give pod shop/db an ingress rule from pod blog/web for TCP port 5432 in one of these policies or in one more: \
kubectl -n shop describe networkpolicy db deny-all
"
    );
}

#[test]
fn the_same_question_has_other_answers_for_other_ports_and_ends() {
    let allowed = |from: &str, to: &str| asked(&objects(), from, to).unwrap().explanation.allowed;
    for (from, to, expected) in [
        ("shop/cart", "shop/db:5433", false),
        ("shop/cart", "shop/db:5432/udp", false),
        ("shop/cart", "shop/db", false),
        ("shop/cart", "blog/web:80", true),
        ("shop/cart", "blog/web", true),
        ("10.244.1.5", "shop/db:5432", true),
        ("192.0.2.200", "shop/db:5432", false),
        ("node/n2", "shop/db:5432", true),
        ("node/n1", "shop/db:5432", false),
        ("shop/db", "192.0.2.200:443", true),
        ("shop/db", "shop/db:1", true),
    ] {
        assert_eq!(allowed(from, to), expected, "{from} to {to}");
    }
}

#[test]
fn what_is_not_there_is_an_error_that_says_where_to_look() {
    for (from, to, said) in [
        ("shop/nobody", "shop/db:1", "there is no pod shop/nobody: kubectl -n shop get pods"),
        ("node/n9", "shop/db:1", "no address of node n9 is known: kubectl get nodes"),
        (
            "shop/cart",
            "10.96.0.20:5432",
            "10.96.0.20 is the address of Service shop/db; policy sees the pod behind it",
        ),
    ] {
        let error = asked(&objects(), from, to).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let error = Objects::of_text("kind: List\nitems: []\n").unwrap_err().to_string();
    assert!(error.contains("kubectl get pods,namespaces,networkpolicies"), "{error}");
}

#[test]
fn an_agent_that_is_down_makes_the_answer_less_than_certain() {
    let mut objects = objects();
    assert_eq!(asked(&objects, "shop/cart", "shop/db:5432").unwrap().notes, [""; 0]);
    for pod in &mut objects.pods {
        if pod.metadata.name.as_deref() == Some("netkeel-agent-2") {
            pod.data["status"]["containerStatuses"] = json!([{"name": "agent", "image": "", "imageID": "",
                "ready": false, "restartCount": 7, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]);
        }
    }
    let notes = asked(&objects, "shop/cart", "shop/db:5432").unwrap().notes;
    assert_eq!(notes.len(), 1, "the other node's agent runs: {notes:?}");
    assert!(
        notes[0].starts_with("node n2: the agent does not run (CrashLoopBackOff, 7 restarts)"),
        "{notes:?}"
    );
    assert!(notes[0].contains("what is enforced for pod shop/db may be older than this answer"), "{notes:?}");
}

#[test]
fn parts_of_policies_that_allow_nothing_here_are_named_beside_the_answer() {
    let mut objects = objects();
    let policy = |spec: Value| {
        let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "shop", "name": "named"}, "spec": spec});
        serde_json::from_value(policy).unwrap()
    };
    let named = json!({"podSelector": {"matchLabels": {"app": "cart"}}, "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": "http"}]}]});
    objects.policies.push(policy(named));
    let told = asked(&objects, "blog/web", "shop/cart:80").unwrap();
    assert!(!told.explanation.allowed);
    assert!(
        told.notes.iter().any(|note| note.contains("shop/named") && note.contains("http")),
        "{:?}",
        told.notes
    );

    objects.policies.pop();
    objects.policies.push(policy(json!({"podSelector": "not a map"})));
    let told = asked(&objects, "blog/web", "shop/cart:80").unwrap();
    assert!(!told.explanation.allowed, "what it selects is not known: closed");
    assert!(
        told.notes.iter().any(|note| note.contains("NetworkPolicy shop/named is ignored")),
        "{:?}",
        told.notes
    );
}

#[test]
fn the_json_has_the_shape_that_the_reference_documents() {
    let json = |from: &str, to: &str| -> Value {
        serde_json::from_str(&render(&asked(&objects(), from, to).unwrap(), Output::Json)).unwrap()
    };
    let open = json!({"allowed": true, "result": "Open", "isolatedBy": [], "rule": null});
    assert_eq!(
        json("shop/cart", "shop/db:5432"),
        json!({"allowed": true, "from": {"pod": "shop/cart"}, "to": {"pod": "shop/db"}, "protocol": "TCP", "port": 5432,
            "egress": open, "ingress": {"allowed": true, "result": "Allowed", "isolatedBy": ["shop/db", "shop/deny-all"],
                "rule": {"policy": "shop/db", "field": "spec.ingress[0]", "text": "shop/db, ingress rule 0"}},
            "next": [], "notes": []})
    );
    let denied = json("192.0.2.200", "shop/db");
    assert_eq!((&denied["allowed"], &denied["from"]), (&json!(false), &json!({"address": "192.0.2.200"})));
    assert_eq!((&denied["protocol"], &denied["port"]), (&Value::Null, &Value::Null));
    assert_eq!(denied["ingress"]["result"], "Denied");
    assert_eq!(denied["next"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn the_api_server_alone_answers_as_the_file_does() {
    let api = FakeApi::start().await.unwrap();
    let all = objects();
    let lists = [&all.pods, &all.namespaces, &all.policies, &all.node_networks, &all.nodes, &all.services];
    for object in lists.into_iter().flatten() {
        api.put(serde_json::to_value(object).unwrap());
    }
    let fetched = Objects::of_cluster(Lister::new(api.client().unwrap())).await.unwrap();
    for (from, to) in
        [("shop/cart", "shop/db:5432"), ("blog/web", "shop/db:5432"), ("node/n1", "shop/db:5432")]
    {
        assert_eq!(
            render(&asked(&fetched, from, to).unwrap(), Output::Json),
            render(&asked(&all, from, to).unwrap(), Output::Json)
        );
    }
    api.set_down(true);
    let error = Objects::of_cluster(Lister::impatient(api.client().unwrap())).await.unwrap_err();
    assert!(format!("{error:#}").contains("--from-file"), "{error:#}");
}
