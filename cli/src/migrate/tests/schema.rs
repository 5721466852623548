//! What the API server would say of a `spec.dns`: the schema in the CRD, and its rules in Rust.

use kube::CustomResourceExt as _;
use netkeel_crds::{
    ClusterNetwork,
    cluster_network::{
        Dns,
        dns::{Forwarding, MatchKind, Protocol, RecordKind, ResponseCode},
    },
};
use regex::Regex;
use serde_json::Value;

/// The schema of `spec.dns`.
pub(super) struct Schema(Value);

impl Schema {
    pub(super) fn of_dns() -> Self {
        let crd = serde_json::to_value(ClusterNetwork::crd()).unwrap();
        let versions = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let dns = versions.pointer("/properties/spec/properties/dns").unwrap().clone();
        assert!(dns["properties"]["stubDomains"]["maxItems"].is_number());
        Self(dns)
    }

    /// What is wrong with it.
    pub(super) fn problems(&self, dns: &Dns) -> Vec<String> {
        let mut problems = Vec::new();
        check(&self.0, &serde_json::to_value(dns).unwrap(), "spec.dns", &mut problems);
        rules(dns, &mut problems);
        problems
    }
}

fn check(schema: &Value, value: &Value, path: &str, problems: &mut Vec<String>) {
    let bound = |name: &str| schema[name].as_f64();
    let mut measure = |what: f64, least: &str, most: &str| {
        if bound(least).is_some_and(|least| what < least) || bound(most).is_some_and(|most| what > most) {
            problems.push(format!("{path} = {value}: out of bounds"));
        }
    };
    match value {
        Value::String(text) => {
            measure(f64::from(u32::try_from(text.chars().count()).unwrap()), "minLength", "maxLength");
            if schema["pattern"].as_str().is_some_and(|pattern| !Regex::new(pattern).unwrap().is_match(text))
            {
                problems.push(format!("{path} = {text:?}: pattern"));
            }
            if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
                problems.push(format!("{path} = {text:?}: enum"));
            }
        }
        Value::Number(number) => measure(number.as_f64().unwrap(), "minimum", "maximum"),
        Value::Array(items) => {
            measure(f64::from(u32::try_from(items.len()).unwrap()), "minItems", "maxItems");
            let keys: Vec<&Value> = match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => items.iter().collect(),
                Some("map") => items.iter().map(|item| &item["zone"]).collect(),
                _ => vec![],
            };
            if keys.iter().enumerate().any(|(at, key)| keys[..at].contains(key)) {
                problems.push(format!("{path}: twice the same"));
            }
            for (at, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{path}[{at}]"), problems);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let inner = &schema["properties"][name];
                if inner.is_null() {
                    problems.push(format!("{path}.{name}: unknown"));
                }
                check(inner, field, &format!("{path}.{name}"), problems);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// The CEL rules of these types.
fn rules(dns: &Dns, problems: &mut Vec<String>) {
    let encrypted = |forwarding: &Forwarding| matches!(forwarding.protocol, Protocol::TLS | Protocol::HTTPS);
    let forwardings = dns.stub_domains.iter().map(|stub| &stub.forwarding).chain([&dns.forwarding]);
    if forwardings.into_iter().any(|forwarding| encrypted(forwarding) != forwarding.tls_server_name.is_some())
    {
        problems.push("tlsServerName".to_owned());
    }
    if dns.cache.min_ttl_seconds > dns.cache.max_ttl_seconds {
        problems.push("minTTLSeconds".to_owned());
    }
    if dns.acl.iter().flat_map(|rule| &rule.networks).any(|network| network.trunc() != *network) {
        problems.push("networks".to_owned());
    }
    let plain = Regex::new("^[-a-z0-9_.]+$").unwrap();
    for rewrite in &dns.rewrites {
        let (regex, to) = (rewrite.matches.kind == MatchKind::Regex, &rewrite.to);
        let whole = regex || rewrite.matches.kind == MatchKind::Exact;
        let value = &rewrite.matches.value;
        if !regex && (!plain.is_match(value) || value.contains("..") || to.contains('{'))
            || whole && (to.is_empty() || to.starts_with('.') || to.ends_with('.'))
            || to.contains("..")
        {
            problems.push(format!("{value:?} to {to:?}"));
        }
    }
    for given in &dns.overrides {
        if !given.records.is_empty() && given.response_code != ResponseCode::NoError {
            problems.push("responseCode".to_owned());
        }
        for record in &given.records {
            let good = match record.kind {
                RecordKind::A => record.value.parse::<std::net::Ipv4Addr>().is_ok(),
                RecordKind::AAAA => record.value.parse::<std::net::Ipv6Addr>().is_ok(),
                RecordKind::CNAME | RecordKind::TXT => true,
            };
            if !good {
                problems.push(record.value.clone());
            }
        }
    }
}

#[test]
fn the_schema_finds_what_the_api_would_refuse() {
    let schema = Schema::of_dns();
    assert_eq!(schema.problems(&Dns::default()), Vec::<String>::new());
    let bad = [
        "{clusterDomain: Cluster.Local}",
        "{ttlSeconds: 4000}",
        "{upstreams: [10.0.0.1, 10.0.0.1]}",
        "{forwarding: {protocol: TLS}}",
        "{stubDomains: [{zone: a, upstreams: [10.0.0.1]}, {zone: a, upstreams: [10.0.0.2]}]}",
        "{stubDomains: [{zone: a, upstreams: []}]}",
        "{cache: {maxTTLSeconds: 3}}",
        "{acl: [{action: Block, networks: [10.0.0.1/8]}]}",
        "{rewrites: [{match: {type: Regex, value: '(.*)'}, to: '(x.example'}]}",
        "{rewrites: [{match: {type: Suffix, value: A.example}, to: b.example}]}",
        "{rewrites: [{match: {type: Exact, value: a.example}, to: '{1}.example'}]}",
        "{hosts: [{ip: 10.0.0.1, names: ['*.a']}]}",
    ];
    for yaml in bad {
        assert_ne!(schema.problems(&serde_yaml_ng::from_str(yaml).unwrap()), Vec::<String>::new(), "{yaml}");
    }
}
