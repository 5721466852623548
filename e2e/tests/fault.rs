//! Faults: bad objects, another CNI, overlaps, a lost lease. The network goes on, and what is wrong is said.
//! All tests share one cluster with Netkeel installed without values.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::{Client, ECHO_PORT, Workload, install, node_names, shared};
use serde_json::{Value, json};

/// Two replicas and the DNS answer within this after a fault.
const HEALED: Duration = Duration::from_secs(30);

/// What the API server says to a ClusterNetwork whose `podNetwork` is changed like this.
fn refused(change: &Value) -> String {
    let patch = json!({"spec": {"podNetwork": change}}).to_string();
    let arguments = ["patch", "clusternetwork", "default", "--type=merge", "--dry-run=server", "-p", &patch];
    format!("{:#}", shared().kubectl(&arguments).expect_err("the API server must refuse this"))
}

#[test]
fn the_api_server_refuses_overlapping_and_impossible_cidrs_and_says_why() {
    let pool = |cidr: &str, size: u8| json!({"pools": [{"name": "default", "cidrs": [cidr], "blockSizes": {"ipv4": size}}]});
    let excluded = |cidrs: &[&str]| json!({"masquerade": {"excludedCIDRs": cidrs}});
    let with = |field: &str, value: Value| {
        let mut pool = json!({"name": "default", "cidrs": ["10.244.0.0/16"]});
        pool[field] = value;
        json!({"pools": [pool]})
    };
    let second = |cidr: &str| json!({"pools": [{"name": "default", "cidrs": ["10.244.0.0/16"]}, {"name": "b", "cidrs": [cidr]}]});
    for (change, reason) in [
        (excluded(&["10.0.0.0/8", "10.1.0.0/16"]), "excluded CIDRs must not overlap"),
        (excluded(&["10.0.0.0/33"]), "excludedCIDRs"),
        (pool("10.244.0.0/17", 26), "a pool may grow, it never shrinks or moves"),
        (pool("10.0.0.0/8", 24), "block sizes cannot be changed"),
        (pool("127.0.0.0/8", 26), "loopback"),
        (pool("10.244.0.0/28", 26), "a block must not be larger than the pool's CIDR"),
        (second("10.244.3.0/24"), "pools must not overlap"),
        (second("fd00::/123"), "a block must not be larger than the pool's CIDR"),
        (with("cidrs", json!(["10.244.0.0/16", "10.245.0.0/16"])), "at most one CIDR of each family"),
        (with("reserved", json!(["10.245.0.0/32"])), "what is reserved must lie in the pool's CIDRs"),
        (with("reserved", json!(["10.244.0.0/30", "10.244.0.1/32"])), "reserved networks must not overlap"),
        (json!({"mtu": 100}), "mtu"),
        (json!({"encapsulation": "GRE"}), r#"supported values: "VXLAN", "VXLANCrossSubnet", "None""#),
        (json!({"vxlan": {"port": 0}}), "vxlan.port"),
    ] {
        let said = refused(&change);
        assert!(said.contains(reason), "{change} was answered: {said}");
    }
}

#[test]
fn a_second_clusternetwork_is_refused() {
    let other = json!({"apiVersion": "netkeel.io/v1alpha1", "kind": "ClusterNetwork", "metadata": {"name": "other"}, "spec": {}});
    let said = format!("{:#}", shared().apply(&other.to_string()).expect_err("there is one ClusterNetwork"));
    assert!(said.contains("the one ClusterNetwork is named default"), "{said}");
}

#[test]
fn a_pod_runs_while_an_object_that_no_program_can_read_is_stored() {
    let crd = shared().kubectl_json(&["get", "crd", "nodenetworks.netkeel.io"]).unwrap();
    let counts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let agents = || shared().kubectl(&["get", "pod", "-n", install::NAMESPACE, "-o", counts]);
    let restarts = agents().unwrap();
    let schema = json!({"spec": crd["spec"]}).to_string();
    accept_anything(&crd).unwrap();
    let broken = json!({
        "apiVersion": "netkeel.io/v1alpha1", "kind": "NodeNetwork",
        "metadata": {"name": "broken"}, "spec": {"blocks": 7, "nodeAddresses": {"no": "list"}},
    });
    let stored = wait_until("the broken object is stored", HEALED, || shared().apply(&broken.to_string()));
    let works = stored.and_then(|_| goes_on());
    let restarts_now = agents().unwrap();
    drop(shared().kubectl(&["delete", "nodenetwork", "broken", "--ignore-not-found"]));
    shared().kubectl(&["patch", "crd", "nodenetworks.netkeel.io", "--type=merge", "-p", &schema]).unwrap();
    works.unwrap();
    assert_eq!(restarts_now, restarts, "a program died of it");
}

/// Lets the CRD of NodeNetwork take any spec, as an older or newer version of it might.
fn accept_anything(crd: &Value) -> Result<()> {
    let mut versions = crd["spec"]["versions"].clone();
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    versions[0]["schema"]["openAPIV3Schema"] =
        json!({"type": "object", "properties": {"spec": any, "status": any}});
    let patch = json!({"spec": {"versions": versions}}).to_string();
    shared().kubectl(&["patch", "crd", "nodenetworks.netkeel.io", "--type=merge", "-p", &patch]).map(drop)
}

/// A new Service with new pods works on both nodes.
fn goes_on() -> Result<()> {
    let workload = Workload::new(shared(), "goes-on")?;
    for (index, node) in node_names(shared()).iter().enumerate().take(2) {
        workload.pod(&format!("client-{index}"), node)?;
    }
    workload.deployment("echo", 2)?;
    workload.service("echo")?;
    workload.wait_endpoints("echo", 2)?;
    workload.ready()?;
    for index in 0..2 {
        let client: Client = workload.client(&format!("client-{index}"))?;
        wait_until("a new Service works", HEALED, || {
            let seen = client.connect("echo", ECHO_PORT, 40)?;
            ensure!(seen.errors.is_empty() && seen.backends.len() == 2, "{seen:?}");
            Ok(())
        })?;
    }
    workload.end()
}

#[test]
fn another_cnis_configuration_is_reported() {
    let node = &node_names(shared())[1];
    let path = "/etc/cni/net.d/99-other.conflist";
    let write = format!(
        "echo '{{\"cniVersion\":\"1.0.0\",\"name\":\"other\",\"plugins\":[{{\"type\":\"other\"}}]}}' > {path}"
    );
    shared().node_exec(node, &["sh", "-c", &write]).unwrap();
    let said = wait_until("a condition names the file", HEALED, || {
        let text = shared().kubectl(&["get", "nodenetwork", node, "-o", "jsonpath={.status.conditions}"])?;
        ensure!(text.contains("99-other.conflist"), "conditions: {text}");
        Ok(text)
    });
    shared().node_exec(node, &["rm", path]).unwrap();
    println!("{}", said.unwrap());
}

/// The reason and the message of `Degraded`, while it says `status`.
fn degraded(status: &str) -> Result<(String, String)> {
    let network = shared().kubectl_json(&["get", "clusternetwork", "default"])?;
    let conditions = network["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.into_iter().find(|condition| condition["type"] == "Degraded");
    let found = found.context("there is no condition Degraded")?;
    ensure!(found["status"] == status, "Degraded: {found}");
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Ok((text("reason"), text("message")))
}

/// The configuration that each node should have.
fn configurations() -> Result<String> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.spec.config}{'\\n'}{end}";
    let names = node_names(shared());
    let all = shared().kubectl(&["get", "nodenetwork", "-o", path])?;
    Ok(all.lines().filter(|line| names.iter().any(|name| line.starts_with(name.as_str()))).collect())
}

#[test]
fn a_pool_that_overlaps_a_node_or_services_is_told_and_what_the_nodes_have_stays() {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ghost"}});
    let address = json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.244.77.7"}]}});
    let services = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "inside-the-pool"}, "spec": {"cidrs": ["10.244.128.0/20"]}});
    let before = configurations().unwrap();
    for (kind, name, object, reason, said) in [
        ("node", "ghost", &node, "PoolOverlapsNode", "contains 10.244.77.7, the address of node ghost"),
        (
            "servicecidr",
            "inside-the-pool",
            &services,
            "PoolOverlapsServices",
            "overlaps the service addresses 10.244.128.0/20",
        ),
    ] {
        shared().apply(&object.to_string()).unwrap();
        if kind == "node" {
            let patch = address.to_string();
            let arguments = ["patch", kind, name, "--subresource=status", "--type=merge", "-p", &patch];
            shared().kubectl(&arguments).unwrap();
        }
        let told = wait_until("the overlap is told", HEALED, || {
            let (found, message) = degraded("True")?;
            ensure!(found == reason && message.contains(said), "{found}: {message}");
            Ok(message)
        });
        let now = configurations();
        shared().kubectl(&["delete", kind, name]).unwrap();
        println!("{}", told.unwrap());
        assert_eq!(now.unwrap(), before, "the nodes keep what they have");
        wait_until("all is well again", HEALED, || degraded("False")).unwrap();
    }
}

#[test]
fn a_deleted_lease_is_made_anew_by_an_operator() {
    let lease = ["lease", "netkeel-operator", "-n", install::NAMESPACE];
    let holder = || {
        let holder =
            shared().kubectl(&[&["get"], &lease[..], &["-o", "jsonpath={.spec.holderIdentity}"]].concat())?;
        ensure!(!holder.is_empty(), "nobody holds the lease");
        Ok(holder)
    };
    holder().unwrap();
    shared().kubectl(&[&["delete"], &lease[..]].concat()).unwrap();
    let leader = wait_until("an operator leads again", HEALED, holder).unwrap();
    shared()
        .kubectl(&["get", "pod", "-n", install::NAMESPACE, &leader])
        .expect("the holder is an operator's pod");
}

/// Waits until `netkeel status` finds this problem; gives all that it says.
fn status_tells(problem: &str) -> Result<String> {
    wait_until(&format!("netkeel status tells {problem:?}"), HEALED, || {
        let (code, text) = install::run_netkeel(shared(), &["status"])?;
        ensure!(code == Some(1) && text.contains(problem) && text.contains("  next: "), "{code:?}: {text}");
        Ok(text)
    })
}

/// Whether a pod may reach another, as `netkeel why` says it.
fn why_answers(from: &str, to: &str) -> Result<()> {
    let (code, text) = install::run_netkeel(shared(), &["why", from, to])?;
    ensure!(code == Some(0) && text.contains("allowed"), "{code:?}: {text}");
    Ok(())
}

#[test]
fn status_and_why_are_useful_without_an_operator_and_without_an_agent() {
    let nodes = node_names(shared());
    let workload = Workload::new(shared(), "asked").unwrap();
    workload.pod("client", &nodes[0]).unwrap();
    workload.pod("server", &nodes[1]).unwrap();
    workload.ready().unwrap();
    let why = || why_answers("asked/client", &format!("asked/server:{ECHO_PORT}"));
    let operator = |replicas: &str| {
        shared().kubectl(&["-n", install::NAMESPACE, "scale", "deployment/netkeel-operator", replicas])
    };
    let agents = |selector: &Value| {
        let patch = json!({"spec": {"template": {"spec": {"nodeSelector": selector}}}}).to_string();
        shared().kubectl(&["-n", install::NAMESPACE, "patch", "daemonset/netkeel-agent", "-p", &patch])
    };
    operator("--replicas=0").unwrap();
    let without_operator = status_tells("operator: scaled to none").and_then(|text| why().map(|()| text));
    // Nobody is there to put the DaemonSet right.
    agents(&json!({"kubernetes.io/hostname": nodes[0]})).unwrap();
    let without_agent = status_tells(&format!("node {}: no agent runs on it", nodes[1]))
        .and_then(|text| why().map(|()| text));
    agents(&json!({"kubernetes.io/hostname": null})).unwrap();
    operator("--replicas=2").unwrap();
    println!("{}\n{}", without_operator.unwrap(), without_agent.unwrap());
    install::wait_available(shared()).unwrap();
    wait_until("netkeel status finds nothing wrong", HEALED, || {
        let (code, text) = install::run_netkeel(shared(), &["status"])?;
        ensure!(code == Some(0) && text.contains("everything works"), "{code:?}: {text}");
        Ok(())
    })
    .unwrap();
    workload.end().unwrap();
}

#[test]
fn what_somebody_deletes_on_a_node_is_back_at_once_and_pods_go_on() {
    let workload = Workload::new(shared(), "deleted").unwrap();
    let nodes = node_names(shared());
    workload.pod("client", &nodes[0]).unwrap();
    workload.pod("server", &nodes[1]).unwrap();
    workload.ready().unwrap();
    let (client, server) = (workload.client("client").unwrap(), workload.client("server").unwrap());
    for command in [
        "ip route flush proto 110",
        "nft delete table inet netkeel",
        "ip link del netkeel.vxlan",
        "for name in /proc/sys/net/ipv4/conf/*/forwarding; do echo 0 >$name; done",
    ] {
        shared().node_exec(&nodes[0], &["sh", "-c", command]).unwrap();
        let healed = Duration::from_secs(2);
        wait_until(&format!("the pods talk after `{command}`"), healed, || {
            let there = client.connect(&server.address, ECHO_PORT, 1)?;
            let back = server.connect(&client.address, ECHO_PORT, 1)?;
            ensure!(
                there.errors.is_empty() && back.errors.is_empty(),
                "{:?} {:?}",
                there.errors,
                back.errors
            );
            Ok(())
        })
        .unwrap();
        client.outside_source().expect("and the outside is reached");
    }
    workload.end().unwrap();
}

#[test]
fn a_node_whose_agent_is_away_for_minutes_is_not_ready_and_says_so_in_our_words() {
    let node = &node_names(shared())[1];
    let said = |status: &'static str, words: &'static str| {
        wait_until(&format!("the node is Ready={status}"), Duration::from_mins(2), || {
            let path = "jsonpath={.status.conditions[?(@.type=='Ready')]}";
            let ready = shared().kubectl(&["get", "node", node, "-o", path])?;
            let is = ready.contains(&format!(r#""status":"{status}""#)) && ready.contains(words);
            ensure!(is, "{ready}");
            Ok(())
        })
    };
    said("True", "").unwrap();
    // An agent that does not run any more, and has not since a second after the machine's boot.
    let away = "kill -STOP $(pidof netkeel-agent) && echo 1 >/run/netkeel/heartbeat";
    shared().node_exec(node, &["sh", "-c", away]).unwrap();
    let told = said("False", "the netkeel agent of this node is silent for");
    shared().node_exec(node, &["sh", "-c", "kill -CONT $(pidof netkeel-agent)"]).unwrap();
    said("True", "").unwrap();
    told.unwrap();
}
