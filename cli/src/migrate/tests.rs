//! Whole Corefiles as they run in clusters, and damaged ones.

mod cases;
mod options;
mod schema;

use std::collections::BTreeMap;

use netkeel_crds::cluster_network::Dns;
use netkeel_testkit::api::FakeApi;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Options, input::Input, map::Wishes, migrated, of_cluster, patch::patch};
use crate::lister::Lister;

/// The patch and what is told.
fn migrate(files: &[(&str, &str)], options: &Options) -> (String, Vec<String>, bool) {
    let mut input = Input::default();
    for (name, text) in files {
        input.take(name, text).unwrap();
    }
    let migrated = migrated(&input.checked().unwrap(), options).unwrap();
    (migrated.patch, migrated.told.lines().map(str::to_owned).collect(), migrated.good)
}

/// `spec.dns` of a patch, as the API server would store it.
fn dns_of(patch: &str) -> Dns {
    let patch: Value = serde_yaml_ng::from_str(patch).unwrap();
    serde_json::from_value(patch["spec"]["dns"].clone()).unwrap()
}

fn allowing() -> Options {
    Options { allow_unmapped: true, ..Options::default() }
}

/// A block `.` around lines, beside what every cluster has.
fn block(lines: &str) -> String {
    format!(
        ".:53 {{\nkubernetes cluster.local {{\npods insecure\n}}\nforward . /etc/resolv.conf\ncache\n{lines}\n}}\n"
    )
}

#[test]
fn what_has_no_place_keeps_the_patch_away_unless_told_to_go_on() {
    let corefile = block("dnssec\nhosts {\n192.0.2.1 a.test\nfallthrough\n}");
    let files = [("Corefile", corefile.as_str())];
    let (patch, told, good) = migrate(&files, &Options::default());
    assert_eq!((patch.as_str(), good, told.len()), ("", false, 2), "{told:?}");
    assert!(told[0].starts_with("line 7: dnssec: "), "{told:?}");
    let (patch, told, good) = migrate(&files, &allowing());
    assert!(good && told.len() == 1, "{told:?}");
    assert_eq!(patch, "spec:\n  dns:\n    hosts:\n    - ip: 192.0.2.1\n      names:\n      - a.test\n");
    let check = Options { check: true, ..allowing() };
    assert_eq!(migrate(&files, &check).0, "");
}

#[test]
fn a_default_corefile_needs_no_patch() {
    assert_eq!(
        migrate(&[("Corefile", &block(""))], &Options::default()),
        ("spec:\n  dns: {}\n".to_owned(), vec![], true)
    );
}

#[test]
fn a_patch_says_only_what_differs_and_reads_back_as_the_whole() {
    let mut dns = Dns::default();
    let yaml = "{ttlSeconds: 30, cache: {serveStale: {mode: Immediate}}, stubDomains: [{zone: corp, upstreams: [10.0.0.1], forwarding: {policy: Sequential}}]}";
    assert_eq!(patch(&dns).unwrap(), "spec:\n  dns: {}\n");
    let wanted: Dns = serde_yaml_ng::from_str(yaml).unwrap();
    dns.clone_from(&wanted);
    let patch = patch(&dns).unwrap();
    assert_eq!(dns_of(&patch), wanted);
    let patch: Value = serde_yaml_ng::from_str(&patch).unwrap();
    let expected: Value = serde_yaml_ng::from_str(&format!("{{spec: {{dns: {yaml}}}}}")).unwrap();
    assert_eq!(patch, expected);
}

/// kubectl reads YAML 1.1, where `no` is false and `1_000` a number.
#[test]
fn names_that_kubectl_would_take_for_something_else_are_quoted() {
    for zone in
        ["no", "on", "off", "y", "yes", "n", "true", "null", "1", "1.5", "1e3", "0x1f", "1_000", "0b1", "010"]
    {
        let corefile = block(&format!("forward {zone} 10.0.0.1"));
        let (patch, told, _) = migrate(&[("Corefile", &corefile)], &Options::default());
        assert!(patch.contains(&format!("zone: '{zone}'\n")), "{patch}{told:?}");
    }
    assert!(
        migrate(&[("Corefile", &block("forward corp.no 10.0.0.1"))], &Options::default())
            .0
            .contains("zone: corp.no\n")
    );
}

#[test]
fn a_text_that_cannot_be_read_is_an_error_with_its_line() {
    let cases = [
        ("# nothing\n", "there is no server block in it"),
        (". {\n errors\n", "line 2: the block is not closed: } is missing"),
        (
            "kind: ConfigMap\ndata:\n  stubDomains: |\n    {\"a\": \n    ]\n",
            "line 5: stubDomains is not the JSON that kube-dns takes",
        ),
    ];
    for (text, expected) in cases {
        let mut input = Input::default();
        input.take("-", text).unwrap();
        assert_eq!(migrated(&input, &Options::default()).unwrap_err().to_string(), expected);
    }
}

#[tokio::test]
async fn a_cluster_is_asked_for_its_config_maps_and_the_address_of_its_dns() {
    let api = FakeApi::start().await.unwrap();
    let lister = Lister::impatient(api.client().unwrap());
    assert!(of_cluster(&lister).await.unwrap_err().to_string().contains("kube-system"));
    let object = |kind: &str, name: &str, body: Value| {
        let mut object =
            json!({"apiVersion": "v1", "kind": kind, "metadata": {"namespace": "kube-system", "name": name}});
        object.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        object
    };
    let corefile = block("import custom/*.override");
    for (name, key, text) in [
        ("coredns", "Corefile", corefile.as_str()),
        ("coredns-custom", "a.override", "log\ndnssec\n"),
        ("kube-dns", "stubDomains", r#"{"corp.example": ["10.0.0.53"]}"#),
    ] {
        api.put(object("ConfigMap", name, json!({"data": {key: text}})));
    }
    api.put(object("Service", "kube-dns", json!({"spec": {"clusterIP": "10.96.0.53"}})));
    let migrated = migrated(&of_cluster(&lister).await.unwrap(), &allowing()).unwrap();
    let dns = dns_of(&migrated.patch);
    assert_eq!(dns.cluster_ip, "10.96.0.53".parse().ok());
    assert_eq!(dns.stub_domains[0].zone, "corp.example");
    assert_eq!(dns.query_log.queries, netkeel_crds::cluster_network::dns::LoggedQueries::All);
    assert!(migrated.told.starts_with("coredns-custom/a.override line 2: dnssec: "), "{}", migrated.told);
    api.set_down(true);
    assert!(of_cluster(&lister).await.is_err());
}

#[test]
fn variables_are_taken_from_the_command_line() {
    let corefile = block("acl {\nblock net {$BAD}\n}");
    let files = [("Corefile", corefile.as_str())];
    let (_, told, good) = migrate(&files, &Options::default());
    assert!(!good && told[0].contains("--env BAD=VALUE"), "{told:?}");
    let known = Options { env: vec![("BAD".to_owned(), "192.0.2.0/24".to_owned())], ..Options::default() };
    let (patch, _, good) = migrate(&files, &known);
    assert!(good);
    assert_eq!(dns_of(&patch).acl[0].networks[0].to_string(), "192.0.2.0/24");
}

/// Words that Corefiles are made of, good and bad.
const WORDS: &[&str] = &[
    "{",
    "}",
    "\n",
    ".",
    "forward",
    "cache",
    "hosts",
    "rewrite",
    "template",
    "acl",
    "import",
    "(x)",
    "x",
    "kubernetes",
    "name",
    "regex",
    "suffix",
    "answer",
    "auto",
    "10.0.0.1",
    "tls://1.1.1.1%a.b",
    "corp.example",
    "*.x",
    "BIG.Example.",
    "10.0.0.0/9",
    "success",
    "0",
    "99999999999",
    "serve_stale",
    "1h",
    "\"{{ .Name }} 60 IN A 192.0.2.1\"",
    "IN",
    "A",
    "ANY",
    "match",
    ".*\\.a\\.$",
    "net",
    "type",
    "block",
    "allow",
    "fallthrough",
    "#",
    "\"",
    "{$X}",
    "policy",
    "failover",
    "SERVFAIL",
    "max_concurrent",
    "k8s_external",
    "log",
];

/// Words in any order, Corefiles with a piece cut out, and anything.
fn texts() -> impl Strategy<Value = String> {
    let sources: Vec<&str> = cases::all().iter().map(|case| case.input).collect();
    let words = prop::sample::select(WORDS);
    let soup = prop::collection::vec(words, 0..120).prop_map(|words| words.join(" "));
    let damaged = (
        prop::sample::select(sources),
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        any::<Option<char>>(),
    )
        .prop_map(|(text, from, to, letter)| {
            let letters: Vec<char> = text.chars().collect();
            let (from, to) = (from.index(letters.len()), to.index(letters.len()));
            let kept = letters
                .iter()
                .enumerate()
                .filter(|(at, _)| *at < from || *at > from + (to % 40))
                .map(|(_, letter)| *letter);
            kept.chain(letter).collect::<String>()
        });
    let line = (prop::sample::select(WORDS), prop::collection::vec(prop::sample::select(WORDS), 0..5))
        .prop_map(|(first, rest)| format!("{first} {}", rest.join(" ")));
    let lines =
        prop::collection::vec(line, 0..12).prop_map(|lines| format!(". {{\n{}\n}}\n", lines.join("\n")));
    prop_oneof![soup, lines, damaged, any::<String>()]
}

#[test]
fn no_text_makes_it_panic_and_all_it_prints_is_taken_by_the_api() {
    let schema = schema::Schema::of_dns();
    let mut runner = proptest::test_runner::TestRunner::default();
    let env = BTreeMap::new();
    let checked = runner.run(&texts(), |text| {
        let mut input = Input::default();
        let wishes = Wishes { tls_secret: Some("dot".to_owned()) };
        if input.take("-", &text).is_ok()
            && let Ok(mapped) = super::mapped(&input, &env, &wishes)
        {
            let patch = patch(&mapped.dns).unwrap();
            prop_assert_eq!(&dns_of(&patch), &mapped.dns);
            prop_assert_eq!(schema.problems(&mapped.dns), Vec::<String>::new());
        }
        Ok(())
    });
    checked.unwrap();
}
