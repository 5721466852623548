//! Faults: agents killed under load, bad objects, another CNI. The network goes on, and what is wrong is said.
//! All tests share one cluster with Netkeel installed without values.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::client::{Flow, Seen, Streams};
use netkeel_e2e::workload::{Client, ECHO_PORT, Workload, install, node_names, shared};
use serde_json::{Value, json};

const KILLS: usize = 20;
/// Longer than all the kills take.
const LOAD_SECONDS: u64 = 120;
/// Two replicas and the DNS answer within this after a fault.
const HEALED: Duration = Duration::from_secs(30);

/// Kills the agent of a node as a crash would, and waits for the next one.
fn kill_agent(node: &str) -> Result<()> {
    shared().node_exec(node, &["sh", "-c", "kill -KILL $(pidof netkeel-agent)"])?;
    // Deleting the pod keeps kubelet's growing pause between restarts out of the test.
    let field = format!("--field-selector=spec.nodeName={node}");
    let delete = [
        "delete",
        "pod",
        "-n",
        install::NAMESPACE,
        "-l",
        install::AGENT,
        &field,
        "--force",
        "--grace-period=0",
    ];
    shared().kubectl(&delete)?;
    wait_until(&format!("a new agent on {node}"), HEALED, || {
        let ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
        let pods = shared().kubectl(&[
            "get",
            "pod",
            "-n",
            install::NAMESPACE,
            "-l",
            install::AGENT,
            &field,
            "-o",
            ready,
        ])?;
        ensure!(pods == "True", "ready: {pods}");
        Ok(())
    })
}

/// Long-lived and short connections, through the Service and to a pod of the other node.
struct Load {
    streams: [Flow<Streams>; 2],
    knocks: [Flow<Seen>; 2],
}

impl Load {
    fn start(client: &Client, server: &Client, service: &str) -> Result<Self> {
        Ok(Self {
            streams: [
                client.streams(service, ECHO_PORT, 10, LOAD_SECONDS)?,
                client.streams(&server.address, ECHO_PORT, 10, LOAD_SECONDS)?,
            ],
            knocks: [
                client.knock(service, ECHO_PORT, LOAD_SECONDS)?,
                server.knock(service, ECHO_PORT, LOAD_SECONDS)?,
            ],
        })
    }

    fn runs(&mut self) -> Result<bool> {
        Ok(self.streams[0].runs()? && self.knocks[0].runs()?)
    }

    /// Nothing may have been lost.
    fn finish(self) {
        for flow in self.streams {
            let streams = flow.finish().expect("the result of the streams");
            println!("{streams:?}");
            assert!(streams.errors.is_empty() && streams.exchanges > 1000, "{streams:?}");
        }
        for flow in self.knocks {
            let seen = flow.finish().expect("the result of the connections");
            println!("{} connections, longest pause {:.1} ms", seen.ok, seen.longest_gap_ms);
            assert!(seen.errors.is_empty() && seen.ok > 1000, "{seen:?}");
        }
    }
}

#[test]
fn agents_killed_twenty_times_under_load_lose_no_connection() {
    let workload = Workload::new(shared(), "killed").unwrap();
    let nodes = node_names(shared());
    workload.pod("client", &nodes[0]).unwrap();
    workload.pod("server", &nodes[1]).unwrap();
    workload.deployment("echo", 3).unwrap();
    let service = workload.service("echo").unwrap();
    workload.wait_endpoints("echo", 3).unwrap();
    workload.ready().unwrap();
    let client = workload.client("client").unwrap();
    let server = workload.client("server").unwrap();
    wait_until("the Service answers", HEALED, || {
        let seen = client.connect(&service, ECHO_PORT, 10)?;
        ensure!(seen.errors.is_empty(), "{:?}", seen.errors);
        Ok(())
    })
    .unwrap();
    let mut load = Load::start(&client, &server, &service).unwrap();
    for round in 0..KILLS {
        kill_agent(&nodes[round % nodes.len()]).unwrap();
        assert!(
            load.runs().unwrap(),
            "the load ended before the kills did, after {round}: raise LOAD_SECONDS"
        );
    }
    load.finish();
    workload.delete_namespace().unwrap();
}

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
    for (change, reason) in [
        (excluded(&["10.0.0.0/8", "10.1.0.0/16"]), "excluded CIDRs must not overlap"),
        (excluded(&["10.0.0.0/33"]), "excludedCIDRs"),
        (pool("10.244.0.0/17", 26), "a pool may grow, it never shrinks or moves"),
        (pool("10.0.0.0/8", 24), "block sizes cannot be changed"),
        (pool("127.0.0.0/8", 26), "loopback"),
        (pool("10.244.0.0/28", 26), "a block must not be larger than the pool's CIDR"),
        (json!({"mtu": 100}), "mtu"),
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
    workload.delete_namespace()
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
