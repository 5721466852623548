//! The committed YAML is what the types say, and the types read what the YAML allows.

use std::{fs, path::Path};

use netkeel_crds::{
    AddressBlock, ClusterNetwork, ClusterNetworkSpec, NodeNetwork,
    cluster_network::{Mtu, Upstream},
};
use serde_json::{Value, json};

#[test]
fn committed_yaml_is_generated_from_the_types() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["yaml", "../helm/netkeel/crds"] {
        for crd in netkeel_crds::all() {
            let (file, wanted) = netkeel_crds::yaml(&crd).unwrap();
            let path = root.join(folder).join(file);
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == wanted, "{} is stale: run `cargo xtask generate`", path.display());
        }
    }
}

/// YAML 1.1, which kubectl and the API server read, takes some bare words for truth values.
#[test]
fn no_word_of_the_api_is_a_truth_value_in_yaml() {
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    for crd in netkeel_crds::all() {
        let text = netkeel_crds::yaml(&crd).unwrap().1;
        for line in text.lines() {
            let value = line.trim().trim_start_matches("- ").rsplit(": ").next().unwrap_or_default();
            let plain = line.trim().starts_with("- ") || line.trim().starts_with("default:");
            let flag = ["default: true", "default: false"].contains(&line.trim());
            assert!(!plain || flag || !words.contains(&value.to_lowercase().as_str()), "{line}");
        }
    }
}

#[test]
fn an_empty_spec_is_the_default_network() {
    let spec: ClusterNetworkSpec = serde_json::from_value(json!({})).unwrap();
    assert_eq!(spec, ClusterNetworkSpec::default());
    assert_eq!(
        serde_json::to_value(&spec).unwrap(),
        json!({
            "podNetwork": {
                "pools": [{
                    "name": "default", "cidrs": ["10.244.0.0/16"], "blockSizes": {"ipv4": 26, "ipv6": 122},
                    "priority": 0, "reserved": [], "state": "Active",
                }],
                "ipam": "Pools",
                "encapsulation": "VXLAN",
                "vxlan": {"port": 8472},
                "mtu": "Auto",
                "masquerade": {"enabled": true, "excludedCIDRs": []},
            },
            "dns": dns(&json!({})),
            "observability": {
                "traces": {"endpoint": "http://jaeger-collector.observability:4317", "samplingRatios": {"dns": 0.01}},
            },
        })
    );
}

fn forwarding() -> Value {
    json!({"protocol": "UDP", "httpsPath": "/dns-query", "policy": "Random", "timeoutMilliseconds": 1500, "maxConcurrent": 1000,
        "failover": ["ServFail", "Refused", "NotImp"]})
}

/// `spec.dns` as it is by default, but for `changes`.
fn dns(changes: &Value) -> Value {
    let mut dns = json!({
        "clusterDomain": "cluster.local", "replicas": 2, "placement": "Replicas", "networkPolicies": "Exempt", "ttlSeconds": 5, "podRecords": "Insecure",
        "endpointPodNames": false, "emptyServices": "Answer", "upstreams": [], "forwarding": forwarding(), "stubDomains": [],
        "cache": {"maxEntries": 10_000, "maxBytes": 8_388_608, "maxTTLSeconds": 3600, "minTTLSeconds": 5, "negativeMaxTTLSeconds": 1800,
            "prefetch": true, "serveStale": {"maxAgeSeconds": 86_400, "mode": "Verify", "responseTTLSeconds": 30}},
        "hosts": [], "rewrites": [], "overrides": [], "acl": [], "externalZones": [],
        "queryLog": {"queries": "None", "sampleRatio": 1.0}, "searchPath": "Client", "rateLimit": {"queriesPerSecond": 0, "burst": 0},
    });
    for (field, value) in changes.as_object().into_iter().flatten() {
        dns[field] = value.clone();
    }
    dns
}

#[test]
fn every_object_survives_the_way_to_the_api_and_back() {
    let network = json!({
        "apiVersion": "netkeel.io/v1alpha1", "kind": "ClusterNetwork", "metadata": {"name": "default"},
        "spec": {
            "podNetwork": {
                "pools": [
                    {"name": "default", "cidrs": ["10.128.0.0/14", "fd00:10::/56"], "blockSizes": {"ipv4": 24, "ipv6": 120},
                     "priority": 0, "reserved": ["10.128.0.0/24", "fd00:10::7/128"], "state": "Active"},
                    {"name": "fast", "cidrs": ["10.1.0.0/16"], "blockSizes": {"ipv4": 26, "ipv6": 122}, "priority": 7, "reserved": [], "masquerade": true, "state": "Draining",
                     "nodeSelector": {"matchLabels": {"nic": "fast"}}, "namespaceSelector": {"matchLabels": {"team": "pay"}}},
                ],
                "ipam": "NodePodCIDRs",
                "encapsulation": "VXLANCrossSubnet", "vxlan": {"port": 4789}, "mtu": 1400,
                "masquerade": {"enabled": false, "excludedCIDRs": ["192.0.2.0/24", "2001:db8::/32"]},
            },
            "dns": dns(&json!({
                "clusterDomain": "k8s.example", "replicas": 3, "upstreams": ["192.0.2.53", "[2001:db8::1]:5353"], "clusterIP": "10.96.0.10",
                "placement": "EveryNode", "networkPolicies": "Enforced", "podRecords": "Verified", "emptyServices": "NXDomain", "searchPath": "ServerSide",
                "forwarding": {"protocol": "TLS", "tlsServerName": "dns.example", "httpsPath": "/dns-query", "policy": "Sequential",
                    "timeoutMilliseconds": 700, "maxConcurrent": 10, "failover": ["NXDomain"]},
                "stubDomains": [{"zone": "corp.example", "upstreams": ["192.0.2.7"], "forwarding": forwarding()}],
                "hosts": [{"ip": "192.0.2.8", "names": ["printer.corp.example"], "ttlSeconds": 60}],
                "rewrites": [{"match": {"type": "Suffix", "value": ".old.example"}, "to": ".new.example", "answerRewrite": true}],
                "overrides": [{"zone": "corp.example", "types": ["AAAA"], "responseCode": "NoError", "ttlSeconds": 60,
                    "records": [{"type": "AAAA", "value": "2001:db8::1"}]}],
                "acl": [{"action": "Filter", "networks": ["10.0.0.0/8"], "zones": ["corp.example"], "types": ["ANY"]}],
                "externalZones": [{"zone": "k8s.example.org", "sources": ["LoadBalancer", "ExternalIP"]}],
                "queryLog": {"queries": "Denials", "sampleRatio": 0.25},
                "rateLimit": {"queriesPerSecond": 100, "burst": 200},
                "tls": {"secretName": "dns-tls"},
            })),
            "observability": {"traces": {"endpoint": "http://192.0.2.10:4317", "samplingRatios": {"dns": 0.5}}},
        },
    });
    round_trip::<ClusterNetwork>(&network);
    let node = json!({
        "apiVersion": "netkeel.io/v1alpha1", "kind": "NodeNetwork", "metadata": {"name": "a"},
        "spec": {
            "nodeAddresses": ["192.0.2.1"], "blocks": ["10.244.0.64/26"], "releasing": [{"cidr": "10.244.0.64/26", "ticket": "7"}], "revision": "abc", "state": "Removing",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "config": {"podCIDRs": ["10.244.0.0/16"], "pools": [{"name": "default", "cidrs": ["10.244.0.0/16"], "reserved": ["10.244.0.7/32"]}], "encapsulation": "None", "vxlanPort": 8472, "mtu": 0, "masquerade": {"enabled": true, "excludedCIDRs": []}},
        },
        "status": {
            "appliedRevision": "abc", "conditions": [], "addresses": {"used": 3, "capacity": 63},
            "blocks": [{"cidr": "10.244.0.64/26", "used": 0, "capacity": 63, "idle": true}], "wanted": ["10.244.0.0/16", "10.244.0.7/32"],
            "released": [{"cidr": "10.244.0.64/26", "ticket": "7"}],
            "datapath": {"kernel": "6.6.1", "mtu": 1450, "programs": ["from_pod"], "vxlan": {"device": "netkeel.vxlan", "port": 8472, "address": "10.244.0.64"}},
        },
    });
    round_trip::<NodeNetwork>(&node);
    let block = json!({
        "apiVersion": "netkeel.io/v1alpha1", "kind": "AddressBlock", "metadata": {"name": "10-244-0-64-26"},
        "spec": {"cidr": "10.244.0.64/26", "node": "a", "nodeUID": "1"},
    });
    round_trip::<AddressBlock>(&block);
}

fn round_trip<K: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) {
    let typed: K = serde_json::from_value(object.clone()).expect("the object is what the types say");
    assert_eq!(&serde_json::to_value(&typed).expect("objects are JSON"), object);
}

#[test]
fn a_block_is_named_after_its_cidr() {
    assert_eq!(netkeel_crds::block_name(&"10.244.0.64/26".parse().unwrap()), "10-244-0-64-26");
}

#[test]
fn upstreams_without_a_port_are_asked_at_that_of_the_protocol() {
    for (text, at) in [
        ("192.0.2.53", "192.0.2.53:853"),
        ("192.0.2.53:53", "192.0.2.53:53"),
        ("2001:db8::1", "[2001:db8::1]:853"),
        ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
    ] {
        let upstream: Upstream = text.parse().unwrap();
        assert_eq!((upstream.at(853).to_string(), upstream.to_string()), (at.to_owned(), text.to_owned()));
    }
    assert!("resolver.example".parse::<Upstream>().is_err());
}

#[test]
fn an_mtu_that_is_no_size_is_refused() {
    for (good, mtu) in [(json!(1400), Mtu::Bytes(1400)), (json!("Auto"), Mtu::Auto), (Value::Null, Mtu::Auto)]
    {
        assert_eq!(serde_json::from_value::<Mtu>(good).unwrap(), mtu);
    }
    for bad in [json!("auto"), json!(-1), json!(70000), json!([])] {
        assert!(serde_json::from_value::<Mtu>(bad.clone()).is_err(), "{bad}");
    }
}

/// Every field says what it is: `kubectl explain` is the reference.
#[test]
fn every_field_is_documented() {
    fn undocumented(path: &str, schema: &Value, found: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let fixed =
                ["apiVersion", "kind", "metadata"].contains(&name.as_str()) || path.contains(".conditions");
            if !fixed && field["description"].as_str().unwrap_or_default().is_empty() {
                found.push(path.clone());
            }
            undocumented(&path, field, found);
            undocumented(&path, &field["items"], found);
        }
    }
    let mut found = Vec::new();
    for crd in netkeel_crds::all() {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        undocumented(&crd.spec.names.kind, &schema["openAPIV3Schema"], &mut found);
    }
    assert!(found.is_empty(), "without a description: {found:?}");
}
