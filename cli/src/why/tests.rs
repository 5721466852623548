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

/// The shop with addresses of both families, IPv6 ones at `fd00:…`, and a policy that lets in one CIDR of each.
fn dual() -> Objects {
    let text = SHOP
        .replace("podIPs: [{ip: 10.244.1.5}]", "podIPs: [{ip: 10.244.1.5}, {ip: 'fd00:244:1::5'}]")
        .replace("podIPs: [{ip: 10.244.2.7}]", "podIPs: [{ip: 10.244.2.7}, {ip: 'fd00:244:2::7'}]")
        .replace(
            "nodeAddresses: [192.0.2.2], blocks: [10.244.2.0/26]",
            "nodeAddresses: [192.0.2.2, '2001:db8::2'], blocks: [10.244.2.0/26, 'fd00:244:2::/122']",
        )
        .replace("clusterIP: 10.96.0.20,", "clusterIP: 10.96.0.20, clusterIPs: [10.96.0.20, 'fd00:96::20'],");
    let mut objects = Objects::of_text(&text).unwrap();
    let blocks = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "blocks"},
        "spec": {"podSelector": {"matchLabels": {"app": "cart"}}, "policyTypes": ["Ingress"], "ingress": [
            {"from": [{"ipBlock": {"cidr": "10.244.2.0/24"}}, {"ipBlock": {"cidr": "2001:db8:1::/48", "except": ["2001:db8:1:f::/64"]}}]}]}});
    objects.policies.push(serde_json::from_value(blocks).unwrap());
    objects
}

#[test]
fn addresses_of_ipv6_are_asked_like_any_other() {
    let objects = dual();
    for (from, to, expected) in [
        ("fd00:244:1::5", "shop/db:5432", true),
        ("fd00:244:1::5", "[fd00:244:2::7]:5432", true),
        ("fd00:244:1::5", "[fd00:244:2::7]:5433", false),
        ("2001:db8:9::1", "shop/db:5432", false),
        ("2001:db8::2", "shop/db:1", true),
        ("fd00:244:2::", "shop/db:1", true),
        ("2001:db8:1::9", "shop/cart:80", true),
        ("2001:db8:1:f::9", "shop/cart:80", false),
        ("2001:db8:2::9", "shop/cart:80", false),
        ("node/n2", "shop/db:5433", true),
        ("blog/web", "10.244.1.5:80", false),
    ] {
        assert_eq!(asked(&objects, from, to).unwrap().explanation.allowed, expected, "{from} to {to}");
    }
    for (from, to, said) in [
        ("shop/cart", "[fd00:96::20]:5432", "fd00:96::20 is the address of Service shop/db"),
        (
            "blog/web",
            "[fd00:244:2::7]:80",
            "pod blog/web and fd00:244:2::7 have no family of addresses in common",
        ),
        ("node/n1", "[fd00:244:2::7]:80", "node n1 and fd00:244:2::7 have no family"),
    ] {
        let error = asked(&objects, from, to).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn where_the_families_differ_both_are_told_and_one_denial_is_the_answer() {
    let answer = asked(&dual(), "shop/db", "shop/cart:80").unwrap();
    assert!(!answer.explanation.allowed);
    let text = render(&answer, Output::Text);
    let (four, six) =
        text.split_once("denied over IPv6: pod shop/db to pod shop/cart, TCP port 80\n").unwrap();
    assert!(four.starts_with("allowed over IPv4: pod shop/db to pod shop/cart, TCP port 80\n"), "{text}");
    assert!(four.contains("allowed by shop/blocks, ingress rule 0"), "{text}");
    assert!(six.contains("no rule of shop/blocks allows it") && six.contains("\nnext: "), "{text}");
    let json: Value = serde_json::from_str(&render(&answer, Output::Json)).unwrap();
    let families = json["families"].as_array().unwrap();
    let told: Vec<_> = families.iter().map(|one| (&one["family"], &one["allowed"])).collect();
    assert_eq!(told, [(&json!("IPv4"), &json!(true)), (&json!("IPv6"), &json!(false))]);
    assert_eq!((&json["allowed"], &json["ingress"]["result"]), (&json!(false), &json!("Denied")));

    let same = asked(&dual(), "shop/cart", "shop/db:5432").unwrap();
    assert!(same.explanation.allowed && same.families.is_empty(), "no CIDR tells them apart");
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
            "families": [], "next": [], "notes": []})
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
