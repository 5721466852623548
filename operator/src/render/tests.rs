use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::Service,
    networking::v1::NetworkPolicy,
};
use netkeel_crds::{
    ClusterNetwork, ClusterNetworkSpec,
    cluster_network::{Tls, dns::Placement},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{agent, dns};
use crate::{observed::Observed, settings::Settings};

fn network() -> ClusterNetwork {
    let mut network = ClusterNetwork::new("default", ClusterNetworkSpec::default());
    network.metadata.uid = Some("uid".to_owned());
    network
}

fn every_node() -> ClusterNetwork {
    let mut network = network();
    network.spec.dns.placement = Placement::EveryNode;
    network
}

fn seen() -> Observed {
    Observed { service_cidrs: vec!["10.96.0.0/16".parse().unwrap()], ..Observed::default() }
}

fn settings() -> Settings {
    Settings {
        namespace: "netkeel-system".to_owned(),
        image: "netkeel:test".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        api_servers: vec!["192.0.2.1:6443".parse().unwrap(), "192.0.2.2:6443".parse().unwrap()],
    }
}

/// A field that the API does not know would be lost on the way through the type.
fn is_known_to_the_api<K: DeserializeOwned + Serialize>(body: &Value) {
    let typed: K = serde_json::from_value(body.clone()).expect("the type reads it");
    assert_eq!(&serde_json::to_value(typed).expect("objects are JSON"), body);
}

#[test]
fn every_field_that_is_rendered_is_one_of_the_api() {
    is_known_to_the_api::<DaemonSet>(&agent::daemon_set(&settings()).body);
    is_known_to_the_api::<Service>(&dns::service(&network(), "10.96.0.10".parse().unwrap()).body);
    is_known_to_the_api::<NetworkPolicy>(&dns::policy(&network()).body);
    is_known_to_the_api::<Deployment>(&dns::deployment(&network(), &seen(), &settings()).body);
    is_known_to_the_api::<DaemonSet>(&dns::daemon_set(&network(), &seen(), &settings()).body);
    is_known_to_the_api::<Service>(&dns::service(&every_node(), "10.96.0.10".parse().unwrap()).body);
}

#[test]
fn the_agent_has_three_capabilities_and_no_more() {
    let body = agent::daemon_set(&settings()).body;
    let context = &body["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    assert_eq!(context["capabilities"]["add"], serde_json::json!(["BPF", "NET_ADMIN", "PERFMON"]));
    assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]));
    assert_eq!(
        (context["privileged"].as_bool(), context["allowPrivilegeEscalation"].as_bool()),
        (Some(false), Some(false))
    );
}

#[test]
fn agents_and_dns_know_the_api_server_without_a_service_network() {
    let bodies =
        [agent::daemon_set(&settings()).body, dns::deployment(&network(), &seen(), &settings()).body];
    for body in bodies {
        let text = body.to_string();
        assert!(
            text.contains(r#"{"name":"NETKEEL_API_SERVERS","value":"192.0.2.1:6443,192.0.2.2:6443"}"#),
            "{text}"
        );
    }
}

#[test]
fn dns_is_told_its_domain_its_network_and_its_collector() {
    let mut network = network();
    network.spec.dns.cluster_domain = "k8s.example".to_owned();
    network.spec.observability.traces.sampling_ratios.dns = 0.5;
    let seen = Observed { collector: Some("http://192.0.2.9:4317".to_owned()), ..seen() };
    let body = dns::deployment(&network, &seen, &settings()).body;
    assert_eq!(
        body["spec"]["template"]["spec"]["containers"][0]["command"],
        serde_json::json!([
            "/netkeel-dns",
            "--cluster-domain",
            "k8s.example",
            "--cluster-network",
            "default",
            "--state",
            "/state",
            "--service-cidr",
            "10.96.0.0/16",
            "--traces-endpoint",
            "http://192.0.2.9:4317",
            "--traces-sampling-ratio",
            "0.5",
        ])
    );
}

#[test]
fn dns_listens_in_both_families_where_pods_have_both() {
    let command = |network: &ClusterNetwork| {
        let body = dns::deployment(network, &seen(), &settings()).body;
        body["spec"]["template"]["spec"]["containers"][0]["command"].to_string()
    };
    let mut network = network();
    assert!(!command(&network).contains("--listen"), "a kernel without IPv6 could not");
    network.spec.pod_network.pools[0].cidrs.push("fd00:10:244::/56".parse().unwrap());
    let both = command(&network);
    assert!(both.contains(r#""--listen","[::]:53","--admin","[::]:9472""#), "{both}");
    let service = dns::service(&network, "10.96.0.10".parse().unwrap()).body;
    assert_eq!(service["spec"]["ipFamilyPolicy"], "PreferDualStack");
}

#[test]
fn a_server_on_every_node_runs_wherever_an_agent_does_and_is_updated_without_a_gap() {
    let (agents, servers) =
        (agent::daemon_set(&settings()).body, dns::daemon_set(&every_node(), &seen(), &settings()).body);
    let (agent, server) = (&agents["spec"]["template"]["spec"], &servers["spec"]["template"]["spec"]);
    for field in ["nodeSelector", "tolerations", "priorityClassName"] {
        assert_eq!(agent[field], server[field], "{field}");
    }
    let update = serde_json::json!({"maxUnavailable": 0, "maxSurge": 1});
    assert_eq!(servers["spec"]["updateStrategy"]["rollingUpdate"], update);
    assert!(server.get("hostNetwork").is_none(), "two servers of a node have addresses of their own");
}

#[test]
fn the_service_finds_the_servers_of_both_placements_and_no_set_has_the_others_pods() {
    let network = every_node();
    let replicas = dns::deployment(&network, &seen(), &settings()).body;
    let nodes = dns::daemon_set(&network, &seen(), &settings()).body;
    let service = dns::service(&network, "10.96.0.10".parse().unwrap()).body;
    let selects = |selector: &Value, of: &Value| {
        let labels = &of["spec"]["template"]["metadata"]["labels"];
        selector.as_object().unwrap().iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    for servers in [&replicas, &nodes] {
        assert!(selects(&service["spec"]["selector"], servers));
        assert!(selects(&servers["spec"]["selector"]["matchLabels"], servers));
    }
    // The Deployment tells its own by a hash, and so has no need of another label.
    assert!(!selects(&nodes["spec"]["selector"]["matchLabels"], &replicas));
}

#[test]
fn clients_stay_on_their_node_only_where_every_node_has_a_server() {
    let distribution = |network: &ClusterNetwork| {
        let body = dns::service(network, "10.96.0.10".parse().unwrap()).body;
        body["spec"].get("trafficDistribution").cloned()
    };
    assert_eq!(distribution(&every_node()), Some("PreferSameNode".into()));
    assert_eq!(distribution(&network()), None);
}

#[test]
fn a_server_of_dns_goes_only_when_another_answers_and_has_time_to_end() {
    let mut network = network();
    network.spec.dns.replicas = 1;
    let body = dns::deployment(&network, &seen(), &settings()).body;
    let rolling = &body["spec"]["strategy"]["rollingUpdate"];
    assert_eq!((&rolling["maxUnavailable"], &rolling["maxSurge"]), (&0.into(), &1.into()));
    // 5 s of answers after the signal (--lame-duck), 5 s for what is under way, and some to spare
    assert!(body["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64() > Some(10));
}

#[test]
fn what_dns_knows_outlives_its_container() {
    let body = dns::deployment(&network(), &seen(), &settings()).body;
    let pod = &body["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"], serde_json::json!([{"name": "state", "emptyDir": {}}]));
    let container = &pod["containers"][0];
    assert_eq!(container["volumeMounts"], serde_json::json!([{"name": "state", "mountPath": "/state"}]));
    assert!(container["command"].to_string().contains(r#""--state","/state""#));
}

#[test]
fn the_policy_of_dns_selects_its_servers_and_allows_them_everything() {
    let policy = dns::policy(&network()).body;
    let selected = policy["spec"]["podSelector"]["matchLabels"].as_object().unwrap();
    let deployment = dns::deployment(&network(), &seen(), &settings()).body;
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert!(selected.iter().all(|(key, value)| labels[key] == *value), "{labels}");
    assert_eq!(policy["spec"]["ingress"], serde_json::json!([{}]));
    assert_eq!(policy["spec"]["egress"], serde_json::json!([{}]));
}

#[test]
fn dns_over_tls_has_a_port_and_a_certificate_only_where_it_is_asked_for() {
    let rendered = |network: &ClusterNetwork| {
        let service = dns::service(network, "10.96.0.10".parse().unwrap()).body;
        (service, dns::deployment(network, &seen(), &settings()).body)
    };
    let mut network = network();
    let (service, deployment) = rendered(&network);
    let both = format!("{service}{deployment}");
    assert!(!both.contains("853") && !both.contains("/tls"), "{both}");
    network.spec.dns.tls = Some(Tls { secret_name: "dns-certificate".to_owned() });
    let (service, deployment) = rendered(&network);
    is_known_to_the_api::<Service>(&service);
    is_known_to_the_api::<Deployment>(&deployment);
    assert_eq!(service["spec"]["ports"].as_array().and_then(|ports| ports.last()).unwrap()["port"], 853);
    let pod = &deployment["spec"]["template"]["spec"];
    let secret = serde_json::json!({"secretName": "dns-certificate", "optional": true});
    let state = serde_json::json!({"name": "state", "emptyDir": {}});
    assert_eq!(pod["volumes"], serde_json::json!([state, {"name": "tls", "secret": secret}]));
    let server = &pod["containers"][0];
    assert!(server["command"].to_string().ends_with(r#""--tls","/etc/netkeel/tls"]"#), "{server}");
    assert_eq!(server["volumeMounts"][1]["mountPath"], "/etc/netkeel/tls");
    assert!(server["ports"].to_string().contains("853"));
}
