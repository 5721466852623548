//! Install, install twice, upgrade, uninstall, install again, on a cluster of its own.
//! Each test says in its first line what state it needs, so that they run in any order.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::snapshot::Snapshot;
use netkeel_e2e::workload::{ECHO_PORT, PAIRS, Pod, Workload, install, node_names};
use netkeel_e2e::{Cluster, wait_until};
use serde_json::json;

const NAMESPACE: &str = install::NAMESPACE;

struct Bare {
    cluster: Cluster,
    /// Before anything of Netkeel was there.
    before: Snapshot,
}

fn bare() -> &'static Bare {
    static BARE: OnceLock<Bare> = OnceLock::new();
    BARE.get_or_init(|| {
        let cluster = install::bare("lifecycle").expect("a cluster without Netkeel");
        // A node takes this over from the machine, where it may be on; off is what the agent has to give back.
        for node in node_names(&cluster) {
            cluster.node_exec(&node, &["sysctl", "-w", "net.ipv4.ip_forward=0"]).expect("a setting");
        }
        let before = Snapshot::take(&cluster).expect("a snapshot");
        Bare { cluster, before }
    })
}

fn cluster() -> &'static Cluster {
    &bare().cluster
}

fn installed() -> &'static Cluster {
    if !install::is_installed(&bare().cluster) {
        install::helm_install(cluster(), &[]).expect("helm install");
    }
    install::wait_available(cluster()).expect("an available network");
    cluster()
}

fn uninstalled() -> &'static Cluster {
    bare();
    if install::is_installed(cluster()) {
        install::helm_uninstall(cluster()).expect("helm uninstall");
    }
    cluster()
}

/// Pods on both nodes and a Service, all of which work; deleted at the end.
fn network_works(name: &str) -> Result<()> {
    let workload = Workload::new(cluster(), name)?;
    workload.pod("client", &node_names(cluster())[0])?;
    workload.deployment("echo", 2)?;
    workload.service("echo")?;
    workload.wait_endpoints("echo", 2)?;
    workload.ready()?;
    let client = workload.client("client")?;
    wait_until("both endpoints answer by name", Duration::from_secs(20), || {
        let seen = client.connect("echo", ECHO_PORT, 40)?;
        ensure!(seen.errors.is_empty() && seen.backends.len() == 2, "{seen:?}");
        Ok(())
    })?;
    workload.delete_namespace()
}

/// Identity and generation of what an upgrade might touch.
fn generations(cluster: &Cluster) -> Result<String> {
    let columns = "custom-columns=K:.kind,N:.metadata.name,U:.metadata.uid,G:.metadata.generation";
    let own =
        cluster.kubectl(&["get", "daemonset,deployment,serviceaccount", "-n", NAMESPACE, "-o", columns])?;
    let dns = cluster.kubectl(&["get", "deployment,service", "-n", "kube-system", "-o", columns])?;
    let network = cluster.kubectl(&["get", "clusternetwork,nodenetwork,addressblock", "-o", columns])?;
    Ok([own, dns, network].concat())
}

/// What is left of an uninstall that should have left nothing.
fn left_over() -> Result<()> {
    let after = Snapshot::take(cluster())?;
    let difference = bare().before.difference(&after);
    ensure!(difference.is_empty(), "not as before the install:\n{difference}");
    Ok(())
}

#[test]
fn uninstall_leaves_nodes_and_cluster_as_they_were_but_for_the_crds() {
    installed();
    network_works("before-uninstall").unwrap();
    install::helm_uninstall(cluster()).unwrap();
    wait_until("as before", Duration::from_secs(30), left_over).unwrap();
}

/// Blocks of nodes that the Node objects say.
const NODE_POD_CIDRS: &str = r#"clusterNetwork.spec={"podNetwork":{"ipam":"NodePodCIDRs","pools":[{"name":"default","cidrs":["10.210.0.0/16"]}]}}"#;

/// As kube-controller-manager does with `--allocate-node-cidrs`: a Node gets its CIDR once, and it cannot be changed.
fn give_pod_cidr(node: &str, cidr: &str) -> Result<String> {
    let patch = json!({"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}}).to_string();
    cluster().kubectl(&["patch", "node", node, "-p", &patch])
}

#[test]
fn install_works_again_after_an_uninstall_and_may_leave_the_blocks_to_the_node_objects() {
    installed();
    let cluster = uninstalled();
    let nodes = node_names(cluster);
    let cidr = |index: usize| format!("10.210.{}.0/24", index + 5);
    give_pod_cidr(&nodes[0], &cidr(0)).unwrap();
    install::helm_install(cluster, &["--set-json", NODE_POD_CIDRS]).unwrap();
    let told = format!("node {} has no spec.podCIDRs: let kube-controller-manager give it some", nodes[1]);
    wait_until("the node without a CIDR is named", Duration::from_mins(1), || {
        let path = "jsonpath={.status.conditions[?(@.type=='Degraded')].message}";
        let message = cluster.kubectl(&["get", "clusternetwork", "default", "-o", path])?;
        ensure!(message.contains(&told), "{message}");
        Ok(())
    })
    .unwrap();
    give_pod_cidr(&nodes[1], &cidr(1)).unwrap();
    install::wait_available(cluster).unwrap();
    let columns = "jsonpath={range .items[*]}{.spec.node} {.spec.cidr} {end}";
    let blocks = cluster.kubectl(&["get", "addressblocks", "-o", columns]).unwrap();
    assert_eq!(blocks.trim(), format!("{} {} {} {}", nodes[0], cidr(0), nodes[1], cidr(1)));
    let workload = Workload::new(cluster, "node-cidrs").unwrap();
    workload.peers().unwrap();
    workload.ready().unwrap();
    for (index, pods) in [["first-0", "second-0"], ["first-1", "second-1"]].iter().enumerate() {
        for pod in pods {
            let address = workload.address(pod, false).unwrap();
            assert!(address.starts_with(&format!("10.210.{}.", index + 5)), "{pod} has {address}");
        }
    }
    for (from, to) in PAIRS {
        let client = workload.client(from).unwrap();
        let seen = client.sources(&workload.address(to, false).unwrap()).unwrap();
        assert_eq!(seen, [client.address.as_str()], "{from} -> {to}");
    }
    workload.delete_namespace().unwrap();
    network_works("again").unwrap();
    uninstalled();
}

#[test]
fn a_second_install_is_refused_and_changes_nothing() {
    let cluster = installed();
    let before = generations(cluster).unwrap();
    let error = install::helm_install(cluster, &[]).unwrap_err();
    assert!(format!("{error:#}").contains("cannot reuse a name that is still in use"), "{error:#}");
    assert_eq!(generations(cluster).unwrap(), before);
}

#[test]
fn the_same_upgrade_twice_changes_nothing() {
    let cluster = installed();
    install::helm_upgrade(cluster, &[]).unwrap();
    install::wait_available(cluster).unwrap();
    let before = generations(cluster).unwrap();
    install::helm_upgrade(cluster, &[]).unwrap();
    install::wait_available(cluster).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(generations(cluster).unwrap(), before);
}

#[test]
fn an_upgrade_with_a_changed_value_takes_effect() {
    let cluster = installed();
    let replicas =
        ["get", "deployment", "-n", "kube-system", "netkeel-dns", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(cluster.kubectl(&replicas).unwrap(), "2");
    install::helm_upgrade(cluster, &["--set", "clusterNetwork.spec.dns.replicas=3"]).unwrap();
    wait_until("three DNS replicas", Duration::from_secs(30), || {
        let now = cluster.kubectl(&replicas)?;
        ensure!(now == "3", "{now} replicas");
        Ok(())
    })
    .unwrap();
    install::helm_upgrade(cluster, &["--reset-values"]).unwrap();
    wait_until("two DNS replicas again", Duration::from_secs(30), || {
        let now = cluster.kubectl(&replicas)?;
        ensure!(now == "2", "{now} replicas");
        Ok(())
    })
    .unwrap();
}

#[test]
fn operators_killed_in_the_middle_of_an_install_still_finish_it() {
    let cluster = uninstalled();
    std::thread::scope(|scope| {
        let install = scope.spawn(|| install::helm_install(cluster, &[]));
        let delete =
            ["delete", "pod", "-n", NAMESPACE, "-l", install::OPERATOR, "--force", "--grace-period=0"];
        wait_until("operators run", Duration::from_mins(1), || {
            let pods =
                cluster.kubectl(&["get", "pod", "-n", NAMESPACE, "-l", install::OPERATOR, "-o", "name"])?;
            let running = cluster.kubectl(&[
                "get",
                "pod",
                "-n",
                NAMESPACE,
                "-l",
                install::OPERATOR,
                "--field-selector=status.phase=Running",
                "-o",
                "name",
            ])?;
            ensure!(!pods.is_empty() && !running.is_empty(), "no operator runs yet: {pods}");
            Ok(())
        })
        .unwrap();
        cluster.kubectl(&delete).unwrap();
        install.join().expect("the thread of helm").unwrap();
    });
    install::wait_available(cluster).unwrap();
    let blocks = cluster.kubectl(&["get", "addressblock", "-o", "jsonpath={.items[*].spec.node}"]).unwrap();
    let mut nodes: Vec<_> = blocks.split_whitespace().map(str::to_owned).collect();
    nodes.sort();
    assert_eq!(nodes, node_names(cluster), "one block a node");
    network_works("killed").unwrap();
}

/// Four addresses a node, of which one is the node's own.
const TINY_POOL: &str = r#"clusterNetwork.spec.podNetwork.pools=[{"name":"default","cidrs":["10.200.0.0/29"],"blockSizes":{"ipv4":30}}]"#;

#[test]
fn a_full_pool_is_told_in_the_pods_events_and_heals_when_pods_go() {
    let cluster = uninstalled();
    install::helm_install(cluster, &["--set-json", TINY_POOL]).unwrap();
    install::wait_available(cluster).unwrap();
    let workload = Workload::new(cluster, "full").unwrap();
    let node = &node_names(cluster)[1];
    let names: Vec<String> = (0..6).map(|n| format!("pod-{n}")).collect();
    workload.apply(names.iter().map(|name| Pod::server(name, node).json()).collect()).unwrap();
    let event = wait_until("an event says that addresses are used up", Duration::from_secs(30), || {
        let events =
            workload.kubectl(&["get", "events", "-o", "jsonpath={range .items[*]}{.message}{'\\n'}{end}"])?;
        let told =
            events.lines().find(|event| event.contains("address") && event.contains("spec.podNetwork.pools"));
        told.map(str::to_owned).context(events)
    })
    .unwrap();
    println!("{event}");
    let phase =
        ["get", "pods", "-o", "jsonpath={range .items[?(@.status.phase=='Running')]}{.metadata.name} {end}"];
    // Four addresses, the first of them is nobody's; DNS may have pods there too.
    let on_node = format!("--field-selector=spec.nodeName={node}");
    let dns = ["get", "pods", "-n", "kube-system", "-l", "k8s-app=kube-dns", "-o", "name", on_node.as_str()];
    let free = 3 - cluster.kubectl(&dns).unwrap().lines().count();
    let running = wait_until("as many pods run as there are addresses", Duration::from_secs(30), || {
        let text = workload.kubectl(&phase)?;
        let running: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        ensure!(running.len() == free, "{free} addresses are free, running: {running:?}");
        Ok(running)
    })
    .unwrap();
    assert!(free > 0, "DNS has all addresses of {node}");
    workload.delete_all("pod", &running).unwrap();
    // A freed address rests for half a minute, and the kubelet tries again with growing pauses.
    wait_until("other pods get the freed addresses", Duration::from_mins(2), || {
        let now = workload.kubectl(&phase)?;
        ensure!(now.split_whitespace().count() == running.len(), "running: {now}");
        Ok(())
    })
    .unwrap();
    workload.delete_namespace().unwrap();
    uninstalled();
}
