//! Bad input, full pools and refused steps: a clear answer, and nothing left behind.

use serde_json::{Value, json};

use super::host::{Answer, Host, Pod, ready};

fn environment(pod: &Pod) -> Vec<(&'static str, String)> {
    let netns = pod.namespace.path().display().to_string();
    [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", &pod.id), ("CNI_NETNS", &netns), ("CNI_IFNAME", "eth0")]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
}

fn run(host: &Host, environment: &[(&'static str, String)], input: &str) -> Answer {
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    host.plugin(&environment, input)
}

/// No address is held, no link is left, no table knows anything.
fn nothing_left(host: &Host) {
    assert_eq!(host.links(), Vec::<String>::new());
    assert_eq!(host.pool().usage().used, 0);
    assert!(host.datapath.pods().is_empty());
}

#[test]
fn version_needs_nothing() {
    let host = Host::new("10.244.0.0/26");
    let answer = host.plugin(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"1.0.0"}"#).ok();
    assert_eq!(answer, json!({"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}));
    assert!(host.plugin(&[("CNI_COMMAND", "VERSION")], "").ok()["supportedVersions"].is_array());
}

#[test]
fn bad_input_has_a_code_and_a_sentence() {
    let host = Host::new("10.244.0.0/26");
    let pod = Pod::new("a");
    let config = host.config().to_string();
    for (input, code, said) in [
        ("", 6, "not JSON"),
        ("{\"cniVersion\":", 6, "not JSON"),
        ("[]", 6, "JSON object"),
        (r#"{"cniVersion":"9.9.9","name":"netkeel"}"#, 1, "9.9.9"),
        (r#"{"cniVersion":"1.1.0","name":""}"#, 7, "name"),
    ] {
        let (got, text) = run(&host, &environment(&pod), input).refused();
        assert!(
            got == code && text.contains(said) && text.contains(r#""cniVersion":"1.1.0""#),
            "{input}: {text}"
        );
    }
    for (name, value) in [
        ("CNI_COMMAND", "FROBNICATE"),
        ("CNI_CONTAINERID", ""),
        ("CNI_CONTAINERID", "../../etc"),
        ("CNI_IFNAME", "a/b"),
        ("CNI_NETNS", ""),
        ("CNI_NETNS", "/run/netns/nonesuch"),
        ("CNI_NETNS", "/etc/passwd"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_NETNS", "/proc/self/ns/mnt"),
    ] {
        let mut environment = environment(&pod);
        environment.retain(|(other, _)| *other != name);
        environment.push((name, value.to_owned()));
        let (code, text) = run(&host, &environment, &config).refused();
        let expected = if value.ends_with("mnt") { 5 } else { 4 };
        assert!(code == expected && text.contains(name), "{name}={value}: {text}");
    }
}

#[test]
fn a_full_pool_names_node_and_block_and_what_to_do() {
    let host = Host::started("10.244.0.0/30");
    let pods: Vec<_> = (0..4).map(|n| Pod::new(format!("pod-{n}"))).collect();
    for pod in &pods[..3] {
        host.add(pod).ok();
    }
    let (code, text) = host.add(&pods[3]).refused();
    assert_eq!(code, 11);
    for said in ["node-1", "all 3 IPv4 addresses of 10.244.0.0/30", "spec.podNetwork.pools"] {
        assert!(text.contains(said), "{said} is not in {text}");
    }
    assert_eq!(host.links().len(), 3);
    host.status().ok();
    host.node.send_replace(Some(ready(&["10.244.0.0/30", "10.244.0.64/26"])));
    host.add(&pods[3]).ok();
}

#[test]
fn a_data_path_that_refuses_leaves_nothing_and_costs_no_rest() {
    let host = Host::started("10.244.0.0/26");
    host.datapath.refuse(true);
    let pod = Pod::new("a");
    let (code, text) = host.add(&pod).refused();
    assert!(code == 100 && text.contains("from_pod"), "{text}");
    nothing_left(&host);
    assert_eq!(host.pool().usage().resting, 0);
    assert_eq!(pod.namespace.links().unwrap(), Vec::<String>::new());
    host.datapath.refuse(false);
    host.add(&pod).ok();
}

#[test]
fn a_refused_step_after_the_link_leaves_nothing_but_a_resting_address() {
    let mut host = Host::new("10.244.0.0/26");
    host.settings = "/proc/nonesuch".to_owned();
    host.start();
    let (code, text) = host.add(&Pod::new("a")).refused();
    assert!(code == 100 && text.contains("/proc/nonesuch/ipv4/conf/nk"), "{text}");
    nothing_left(&host);
    assert_eq!(host.pool().usage().resting, 1);
}

#[test]
fn an_interface_that_the_pod_has_already_is_not_touched() {
    let host = Host::started("10.244.0.0/26");
    let pod = Pod::new("a");
    pod.namespace.ip("link add eth0 type veth peer name other").unwrap();
    let (code, text) = host.add(&pod).refused();
    assert!(code == 100 && text.contains("exists"), "{text}");
    nothing_left(&host);
    assert_eq!(pod.namespace.links().unwrap().len(), 2);
}

#[test]
fn older_configurations_get_results_of_their_version() {
    let host = Host::started("10.244.0.0/26");
    for version in ["0.4.0", "1.0.0"] {
        let mut config = host.config();
        config["cniVersion"] = version.into();
        let result = host.call("ADD", &Pod::new(version), &config).ok();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(
            result["ips"][0].get("version").and_then(Value::as_str),
            (version == "0.4.0").then_some("4")
        );
    }
}
