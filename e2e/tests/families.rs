//! A dual-stack cluster: pods, Services, names, policy, the outside and the kubelet's probes in each family.
//! All tests share one cluster of their own, which ends with the program: no namespace is deleted.

#[path = "families/bodies.rs"]
mod bodies;
#[path = "families/differential.rs"]
mod differential;
#[path = "routes/traffic.rs"]
mod traffic;

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::ensure;
use netkeel_e2e::{
    Cluster, IpFamily, wait_until,
    workload::{Pod, Workload, install, manifest, node_names, of_family},
};
use serde_json::json;

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        install::installed("families", IpFamily::Dual).expect("a dual-stack cluster with Netkeel")
    })
}

/// Two pods on each node.
fn peers() -> &'static Workload<'static> {
    static PEERS: OnceLock<Workload<'static>> = OnceLock::new();
    PEERS.get_or_init(|| bodies::peers(cluster(), "families").expect("the pods of the tests"))
}

#[test]
fn every_pod_has_an_address_of_each_family_from_the_nodes_blocks_ipv4_first() {
    for pod in ["first-0", "second-0", "first-1", "second-1"] {
        let text = peers().kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIPs[*].ip}"]).unwrap();
        let (four, six) = text.split_once(' ').expect("two addresses");
        assert!(four.starts_with("10.244.") && six.starts_with("fd00:10:244:"), "{pod}: {text}");
        let first = peers().kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"]).unwrap();
        assert_eq!(first, four, "{pod}");
    }
}

#[test]
fn pods_reach_each_other_in_each_family_and_keep_their_source_address() {
    for ipv6 in [false, true] {
        bodies::pods_reach_each_other(peers(), ipv6).unwrap();
    }
}

#[test]
fn streams_and_datagrams_of_every_size_arrive_unchanged_over_ipv6() {
    bodies::every_size_arrives(peers(), true).unwrap();
}

#[test]
fn a_pod_reaches_the_outside_with_its_nodes_address_of_the_family() {
    for ipv6 in [false, true] {
        bodies::the_outside_sees_the_node(peers(), ipv6).unwrap();
    }
}

#[test]
fn a_node_reaches_pods_in_each_family() {
    for ipv6 in [false, true] {
        bodies::a_node_reaches_pods(peers(), ipv6).unwrap();
    }
}

#[test]
fn services_of_both_families_in_either_order_are_reached_in_both() {
    let workload = Workload::new(cluster(), "families-service").unwrap();
    workload.deployment("web", 2).unwrap();
    let orders = [["IPv4", "IPv6"], ["IPv6", "IPv4"]];
    let policies = ["RequireDualStack", "PreferDualStack"];
    let named = |name: &str, families: &[&str], policy: &str| {
        let mut service = manifest::service(name, "web", false);
        service["spec"]["ipFamilyPolicy"] = json!(policy);
        service["spec"]["ipFamilies"] = json!(families);
        service
    };
    let services = [
        named("web-0", &orders[0], policies[0]),
        named("web-1", &orders[1], policies[1]),
        named("six", &["IPv6"], "SingleStack"),
    ];
    workload.apply(services.into()).unwrap();
    workload.apply(vec![Pod::server("client", &node_names(cluster())[0]).json()]).unwrap();
    workload.ready().unwrap();
    let addresses = |name: &str| {
        let path = "jsonpath={.spec.clusterIPs[*]}";
        let text = workload.kubectl(&["get", "service", name, "-o", path]).unwrap();
        text.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let client = workload.client("client").unwrap();
    for (name, order) in [("web-0", &orders[0][..]), ("web-1", &orders[1]), ("six", &["IPv6"])] {
        let addresses = addresses(name);
        assert_eq!(addresses.len(), order.len(), "{name}: {addresses:?}");
        for (address, family) in addresses.iter().zip(order) {
            assert_eq!(address.contains(':'), *family == "IPv6", "{name}: {addresses:?}");
            bodies::a_service_is_reached(&client, address, *family == "IPv6").unwrap();
        }
    }
}

#[test]
fn dns_answers_over_both_families_and_with_both() {
    let path = "jsonpath={.spec.clusterIPs[*]}";
    let servers =
        cluster().kubectl(&["-n", "kube-system", "get", "service", "kube-dns", "-o", path]).unwrap();
    let servers: Vec<&str> = servers.split(' ').collect();
    assert_eq!(servers.len(), 2, "kube-dns has {servers:?}");
    let client = peers().client("first-1").unwrap();
    for server in &servers {
        for (kind, wanted) in [("A", false), ("AAAA", true)] {
            let name = "kube-dns.kube-system.svc.cluster.local.";
            let answer = client.resolve_at(server, name, kind).unwrap();
            let expected = servers.iter().find(|ip| ip.contains(':') == wanted).unwrap();
            assert_eq!(answer.data(), [*expected], "{kind} from {server}");
        }
    }
}

#[test]
fn both_c_libraries_resolve_names_of_both_families_at_a_name_server_of_each() {
    let workload = Workload::new(cluster(), "families-names").unwrap();
    let mut services = ["web", "each"].map(|name| manifest::service(name, "web", name == "each"));
    for service in &mut services {
        service["spec"]["ipFamilyPolicy"] = json!("RequireDualStack");
    }
    workload.apply(services.into()).unwrap();
    workload.apply(vec![Pod::server("web", &node_names(cluster())[1]).json()]).unwrap();
    let path = "jsonpath={.spec.clusterIPs[*]}";
    let servers =
        cluster().kubectl(&["-n", "kube-system", "get", "service", "kube-dns", "-o", path]).unwrap();
    let search = ["families-names.svc.cluster.local", "svc.cluster.local", "cluster.local"];
    for (index, server) in servers.split(' ').enumerate() {
        let mut pod = Pod::server(&format!("client-{index}"), &node_names(cluster())[0]).json();
        pod["spec"]["dnsPolicy"] = json!("None");
        let options = [json!({"name": "ndots", "value": "5"})];
        pod["spec"]["dnsConfig"] = json!({"nameservers": [server], "searches": search, "options": options});
        workload.apply(vec![pod]).unwrap();
    }
    workload.ready().unwrap();
    workload.wait_endpoints("each", 2).unwrap();
    let service = workload.kubectl(&["get", "service", "web", "-o", path]).unwrap();
    for ipv6 in [false, true] {
        let service = of_family(&service, ipv6).unwrap();
        let pod = workload.address("web", ipv6).unwrap();
        let outside = cluster().outside_addresses().into_iter().find(|address| address.is_ipv6() == ipv6);
        let outside = outside.expect("one of each family").to_string();
        let cases = [
            ("web", service.as_str()),
            ("web.families-names", &service),
            ("web.families-names.svc.cluster.local", &service),
            ("each", &pod),
            ("outside.test", &outside),
            ("missing.test", "none"),
        ];
        let (asked, expected): (Vec<&str>, Vec<&str>) = cases.into_iter().unzip();
        for (client, library) in [(0, "musl"), (0, "glibc"), (1, "musl"), (1, "glibc")] {
            let client = workload.client(&format!("client-{client}")).unwrap();
            wait_until(&format!("{library} in {client} finds {asked:?}"), Duration::from_secs(5), || {
                let said = client.look_up(library, Some(ipv6), &asked)?;
                ensure!(said == expected, "{said:?} in place of {expected:?}");
                Ok(())
            })
            .unwrap();
        }
    }
}

#[test]
fn names_are_answered_as_coredns_answers_them_but_for_what_is_explained() {
    differential::run(cluster()).unwrap();
}

#[test]
fn a_policy_holds_in_both_families_and_a_block_in_its_own() {
    let workload = bodies::peers(cluster(), "families-policy").unwrap();
    bodies::isolate(&workload).unwrap();
    bodies::isolate_by_block(&workload).unwrap();
    for ipv6 in [false, true] {
        bodies::the_isolation_holds(&workload, ipv6).unwrap();
    }
    bodies::the_block_holds(&workload).unwrap();
    let ipv4 = workload.address("second-1", false).unwrap();
    bodies::is_closed(&workload.client("first-0").unwrap(), &ipv4).unwrap();
    let asked = ["why", "families-policy/first-0", "families-policy/second-1:7000"];
    let (code, text) = install::run_netkeel(cluster(), &asked).unwrap();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("denied over IPv4") && text.contains("allowed over IPv6"), "{text}");
}

#[test]
fn connections_of_both_families_go_on_while_the_way_between_nodes_changes() {
    bodies::traffic_goes_on_while_the_way_changes(cluster(), "families-routes", &[false, true]).unwrap();
}
