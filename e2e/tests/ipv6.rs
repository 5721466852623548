//! A cluster without IPv4: nodes, pods, Services, names, policy, the API server and the outside over IPv6 alone.
//! All tests share one cluster of their own, which ends with the program: no namespace is deleted.

#[path = "families/bodies.rs"]
mod bodies;
#[path = "routes/traffic.rs"]
mod traffic;

use std::{sync::OnceLock, time::Duration};

use anyhow::ensure;
use netkeel_e2e::{
    Cluster, IpFamily, wait_until,
    workload::{HTTP_PORT, Workload, install, manifest, node_names},
};
use serde_json::json;

const SOON: Duration = Duration::from_secs(20);

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        install::installed("ipv6", IpFamily::Ipv6).expect("a cluster of IPv6 alone with Netkeel")
    })
}

/// Two pods on each node.
fn peers() -> &'static Workload<'static> {
    static PEERS: OnceLock<Workload<'static>> = OnceLock::new();
    PEERS.get_or_init(|| bodies::peers(cluster(), "ipv6").expect("the pods of the tests"))
}

#[test]
fn pods_have_one_address_and_nodes_nothing_of_ipv4_but_loopback() {
    for pod in ["first-0", "second-0", "first-1", "second-1"] {
        let text = peers().kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIPs[*].ip}"]).unwrap();
        assert!(text.starts_with("fd00:10:244:") && !text.contains(' '), "{pod}: {text}");
        assert_eq!(peers().client(pod).unwrap().mtu().unwrap(), 1430, "{pod}");
    }
    for node in node_names(cluster()) {
        let text = cluster().node_exec(&node, &["ip", "-4", "-o", "address"]).unwrap();
        assert!(text.lines().all(|line| line.contains("127.0.0.1/8")), "{node}: {text}");
        let routes = cluster().node_exec(&node, &["ip", "-4", "route"]).unwrap();
        assert_eq!(routes.trim(), "", "{node}");
    }
}

#[test]
fn pods_reach_each_other_and_keep_their_source_address() {
    bodies::pods_reach_each_other(peers(), true).unwrap();
}

#[test]
fn streams_and_datagrams_of_every_size_arrive_unchanged() {
    bodies::every_size_arrives(peers(), true).unwrap();
}

#[test]
fn a_pod_reaches_the_outside_with_its_nodes_address() {
    bodies::the_outside_sees_the_node(peers(), true).unwrap();
}

#[test]
fn a_node_reaches_pods() {
    bodies::a_node_reaches_pods(peers(), true).unwrap();
}

#[test]
fn a_service_is_reached_by_address_and_name_and_the_kubelets_probes_pass() {
    let workload = Workload::new(cluster(), "ipv6-service").unwrap();
    workload.deployment("web", 2).unwrap();
    let mut service = manifest::service("web", "web", false);
    service["spec"]["ipFamilyPolicy"] = json!("PreferDualStack");
    workload.apply(vec![service]).unwrap();
    workload.pod("client", &node_names(cluster())[0]).unwrap();
    workload.ready().unwrap();
    let address =
        workload.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIPs[*]}"]).unwrap();
    assert!(address.starts_with("fd00:10:96::") && !address.contains(' '), "{address}");
    let client = workload.client("client").unwrap();
    for to in [address.as_str(), "web"] {
        bodies::a_service_is_reached(&client, to, true).unwrap();
    }
    // The C library's resolver asks for A and AAAA at once.
    let page = client.text(&["wget", "-q", "-O-", &format!("http://web.ipv6-service:{HTTP_PORT}/")]).unwrap();
    assert!(page.contains("\"client\":\"fd00:10:244:"), "{page}");
}

#[test]
fn names_of_the_cluster_and_of_the_outside_resolve() {
    let path = "jsonpath={.spec.clusterIPs[*]}";
    let server = cluster().kubectl(&["-n", "kube-system", "get", "service", "kube-dns", "-o", path]).unwrap();
    assert_eq!(server, "fd00:10:96::a");
    let outside = cluster().outside_addresses()[0].to_string();
    let reverse = format!("a{}.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.", ".0".repeat(19));
    let dns = "kube-dns.kube-system.svc.cluster.local";
    for pod in ["first-0", "first-1"] {
        let client = peers().client(pod).unwrap();
        for tcp in [false, true] {
            for (name, kind, data) in [
                (format!("{dns}."), "AAAA", vec![server.as_str()]),
                (format!("{dns}."), "A", vec![]),
                (reverse.clone(), "PTR", vec![dns]),
                ("outside.test.".to_owned(), "AAAA", vec![outside.as_str()]),
                ("alias.outside.test.".to_owned(), "AAAA", vec![outside.as_str(), "outside.test"]),
            ] {
                let answer = client.resolve(&name, kind, tcp).unwrap();
                assert_eq!((&*answer.code, answer.data()), ("NOERROR", data), "{pod}: {kind} {name}");
            }
            assert_eq!(client.resolve("nobody.test.", "AAAA", tcp).unwrap().code, "NXDOMAIN");
        }
    }
}

#[test]
fn a_pod_reaches_the_api_server_through_its_service() {
    let workload = Workload::new(cluster(), "ipv6-api").unwrap();
    workload.kubectl_pod("client", &node_names(cluster())[1]).unwrap();
    workload.ready().unwrap();
    let client = workload.client("client").unwrap();
    for host in ["fd00:10:96::1", "kubernetes.default.svc.cluster.local"] {
        wait_until(&format!("{host} answers"), SOON, || {
            let text = client.api_version(host)?;
            ensure!(text.contains("gitVersion"), "{text}");
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn a_policy_holds_by_labels_and_by_blocks() {
    let workload = bodies::peers(cluster(), "ipv6-policy").unwrap();
    bodies::isolate(&workload).unwrap();
    bodies::isolate_by_block(&workload).unwrap();
    bodies::the_isolation_holds(&workload, true).unwrap();
    bodies::the_block_holds(&workload).unwrap();
}

#[test]
fn the_command_line_says_that_all_is_well() {
    peers();
    let (code, text) = install::run_netkeel(cluster(), &["status"]).unwrap();
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn connections_go_on_while_the_way_between_nodes_changes() {
    bodies::traffic_goes_on_while_the_way_changes(cluster(), "ipv6-routes", &[true]).unwrap();
}
