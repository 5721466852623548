//! What somebody takes from a pod's link while the agent runs is back within a second, and nothing else is written.
#![expect(clippy::unwrap_used, reason = "a failure of the fixture is a failure of the test")]

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use netkeel_agent::node::NodeState;
use netkeel_core::address::Addresses;

use super::host::{Host, Pod, address, ready};

const NODE: &str = "192.0.2.1";
const OTHER: &str = "192.0.2.9";

/// A node that has its address, and of which another network has one that Linux would choose before it.
fn watched() -> Host {
    let mut host = Host::new("10.244.0.0/26");
    host.namespace.ip("link add docker0 type veth peer name docker-end").unwrap();
    host.namespace.ip("addr add 172.17.0.1/16 dev docker0").unwrap();
    host.namespace.ip("link add uplink type veth peer name uplink-end").unwrap();
    host.namespace.ip(&format!("addr add {NODE}/24 dev uplink")).unwrap();
    for link in ["docker0", "docker-end", "uplink", "uplink-end"] {
        host.namespace.ip(&format!("link set {link} up")).unwrap();
    }
    host.node.send_replace(Some(node(NODE)));
    host.watches = true;
    host.start();
    host
}

fn node(address: &str) -> Arc<NodeState> {
    let state = ready(&["10.244.0.0/26"]);
    Arc::new(NodeState { addresses: Addresses::of([address.parse().unwrap()]), ..(*state).clone() })
}

/// The host's route to an address, in one line.
fn route(host: &Host, to: &str) -> String {
    host.namespace.ip(&format!("route show {to}")).unwrap().trim().to_owned()
}

/// Waits for something that must happen within a second.
fn within_a_second(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(1), "{what} took more than a second");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the sweep at the agent's start is over: only a notice can repair anything then.
fn settled(host: &Host, pod: &Pod) {
    host.check(pod).ok();
    thread::sleep(Duration::from_millis(300));
}

#[test]
fn a_node_talks_to_its_pods_from_its_own_address() {
    let host = watched();
    let pod = Pod::new("a");
    let pod_address = address(&host.add(&pod).ok());
    assert!(route(&host, &pod_address).contains("src 192.0.2.1"), "{}", route(&host, &pod_address));
    let server = pod.namespace.enter(|| UdpSocket::bind("0.0.0.0:53")).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let client = host.namespace.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    client.send_to(b"x", (pod_address.as_str(), 53)).unwrap();
    let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from.ip(), NODE.parse::<Ipv4Addr>().unwrap());
}

#[test]
fn a_pods_route_or_link_that_somebody_takes_is_back_within_a_second_and_the_other_pods_is_not_written() {
    let host = watched();
    let pods = ["a", "b"].map(Pod::new);
    let results = pods.each_ref().map(|pod| host.add(pod).ok());
    let (taken, other) = (address(&results[0]), address(&results[1]));
    let link = results[0]["interfaces"][0]["name"].as_str().unwrap();
    let index = format!("/sys/class/net/{link}/ifindex");
    let ifindex = || host.namespace.run("ip", &["-o", "link", "show", link]).unwrap();
    let number = |shown: &str| shown.split(':').next().unwrap().to_owned();
    settled(&host, &pods[0]);
    let (before, first) = (route(&host, &taken), number(&ifindex()));
    for (change, what) in [
        (format!("route del {taken}"), "the route"),
        (format!("link set {link} down"), "the link"),
        (format!("route replace {taken}/32 dev docker0"), "the route that another one took the place of"),
    ] {
        let log = host.folder.path().join("monitor");
        let heard = std::fs::File::create(&log).unwrap();
        let mut monitor = host
            .namespace
            .enter(|| std::process::Command::new("ip").args(["-o", "monitor", "route"]).stdout(heard).spawn())
            .unwrap();
        host.namespace.ip(&change).unwrap();
        within_a_second(what, || route(&host, &taken) == before);
        within_a_second("a whole link", || host.check(&pods[0]).success);
        monitor.kill().unwrap();
        monitor.wait().unwrap();
        let heard = std::fs::read_to_string(&log).unwrap();
        assert!(!heard.contains(&other), "{what}: {heard}");
        assert_eq!(number(&ifindex()), first, "{index}: the link is the same one");
    }
}

#[test]
fn a_setting_of_a_pods_link_that_somebody_changes_is_back_within_a_second() {
    let host = watched();
    let pod = Pod::new("a");
    let link = host.add(&pod).ok()["interfaces"][0]["name"].as_str().unwrap().to_owned();
    settled(&host, &pod);
    // The kernel tells of changes of these two; the others are found by the regular look.
    for (key, value, wanted) in [("forwarding", "0", "1"), ("rp_filter", "2", "1")] {
        let key = format!("ipv4/conf/{link}/{key}");
        let path = format!("/proc/sys/net/{key}");
        host.namespace.sysctl(&key, value).unwrap();
        let read = || host.namespace.run("cat", &[&path]).unwrap();
        within_a_second(&key, || read().trim() == wanted);
    }
    for (family, key) in [("ipv4", "accept_redirects"), ("ipv4", "proxy_arp"), ("ipv6", "accept_ra")] {
        let path = format!("/proc/sys/net/{family}/conf/{link}/{key}");
        assert_eq!(host.namespace.run("cat", &[&path]).unwrap().trim(), "0", "{path}");
    }
}

#[test]
fn routes_whose_source_goes_come_back_without_it_and_with_the_next_one() {
    let host = watched();
    let pod = Pod::new("a");
    let pod_address = address(&host.add(&pod).ok());
    settled(&host, &pod);
    host.namespace.ip(&format!("addr del {NODE}/24 dev uplink")).unwrap();
    within_a_second("a route without a source", || {
        let route = route(&host, &pod_address);
        route.contains("proto 110") && !route.contains("src")
    });
    host.namespace.ip(&format!("addr add {NODE}/24 dev uplink")).unwrap();
    within_a_second("the route with the source", || route(&host, &pod_address).contains("src 192.0.2.1"));

    host.namespace.ip(&format!("addr add {OTHER}/24 dev uplink")).unwrap();
    host.node.send_replace(Some(node(OTHER)));
    within_a_second("the route with the new source", || route(&host, &pod_address).contains("src 192.0.2.9"));
    host.check(&pod).ok();
}

#[test]
fn an_address_that_goes_while_a_pod_is_added_does_not_fail_the_add() {
    let host = Host::started("10.244.0.0/26");
    host.node.send_replace(Some(node(NODE)));
    let pod = Pod::new("a");
    let pod_address = address(&host.add(&pod).ok());
    let route = route(&host, &pod_address);
    assert!(route.contains("proto 110") && !route.contains("src"), "{route}");
}
