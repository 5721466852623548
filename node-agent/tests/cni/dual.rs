//! Pods with an address of each family, on real links; the host's routes alone carry the packets.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use netkeel_agent::node::NodeState;
use netkeel_core::{address::Addresses, ipam};
use netkeel_testkit::lab::Namespace;
use serde_json::json;

use crate::host::{Host, Pod, eventually};

/// A host whose pool and blocks are of both families.
fn dual() -> Host {
    let host = Host::started("10.244.0.0/26");
    let nets = |texts: [&str; 2]| texts.map(|text| text.parse().expect("a network")).to_vec();
    let cidrs = nets(["10.244.0.0/16", "fd00:10:244::/56"]);
    let pools = vec![ipam::Pool { name: "default".into(), cidrs, ..ipam::Pool::default() }];
    let blocks = nets(["10.244.0.0/26", "fd00:10:244::/122"]);
    let layout = Arc::new(ipam::Layout { pools, blocks, ..ipam::Layout::default() });
    host.node.send_replace(Some(Arc::new(NodeState {
        ready: true,
        layout,
        addresses: Addresses::default(),
        mtu: 1450,
        revision: "2".to_owned(),
    })));
    host.namespace
        .enter(|| std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1"))
        .expect("a setting");
    host
}

#[test]
fn add_gives_an_address_of_each_family_that_works_at_once() {
    let host = dual();
    let (client, server) = (Pod::new("client"), Pod::new("server"));
    let result = host.add(&client).ok();
    assert_eq!(
        result["ips"],
        json!([{"address": "10.244.0.1/32", "gateway": "169.254.1.1", "interface": 1},
               {"address": "fd00:10:244::1/128", "gateway": "fe80::1", "interface": 1}])
    );
    host.add(&server).ok();
    let eth0 = client.namespace.ip("addr show eth0").unwrap();
    assert!(eth0.contains("inet6 fd00:10:244::1/128") && !eth0.contains("tentative"), "{eth0}");
    assert!(!eth0.contains("fe80"), "nothing but its own address: {eth0}");
    let routes = client.namespace.ip("-6 route").unwrap();
    assert!(routes.contains("default via fe80::1 dev eth0"), "{routes}");
    let outer = result["interfaces"][0]["mac"].as_str().unwrap();
    let gateway = client.namespace.ip("-6 neigh show fe80::1").unwrap();
    assert!(gateway.contains(outer) && gateway.contains("PERMANENT"), "{gateway}");
    let listener = server.namespace.enter(|| TcpListener::bind("[::]:80")).unwrap();
    let echo = thread::spawn(move || {
        for _ in 0..3 {
            let (mut stream, from) = listener.accept().unwrap();
            stream.write_all(from.ip().to_canonical().to_string().as_bytes()).unwrap();
        }
    });
    let ask = |namespace: &Namespace, to: &str| {
        let mut stream = namespace.enter(|| TcpStream::connect((to, 80))).unwrap();
        let mut seen = String::new();
        stream.read_to_string(&mut seen).unwrap();
        seen
    };
    assert_eq!(ask(&client.namespace, "fd00:10:244::2"), "fd00:10:244::1");
    assert_eq!(ask(&client.namespace, "10.244.0.2"), "10.244.0.1");
    host.namespace.ip("-6 addr add 2001:db8::1/128 dev lo nodad").unwrap();
    assert_eq!(ask(&host.namespace, "fd00:10:244::2"), "2001:db8::1", "the node reaches its pod");
    echo.join().unwrap();
}

#[test]
fn a_pod_with_both_families_is_one_to_check_del_and_the_tables() {
    let host = dual();
    let pod = Pod::new("a");
    let first = host.add(&pod).ok();
    assert_eq!(host.add(&pod).ok()["ips"], first["ips"], "the same again");
    let pods = host.datapath.pods();
    assert_eq!(pods.len(), 1, "{pods:?}");
    let link = pods.values().next().unwrap();
    assert_eq!(link.other_address.map(|ip| ip.to_string()).as_deref(), Some("fd00:10:244::1"));
    assert_eq!(host.pool().records().len(), 2, "a record an address");
    host.check(&pod).ok();
    host.namespace.ip("-6 route del fd00:10:244::1/128").unwrap();
    host.check(&pod).refused();
    host.del(&pod).ok();
    assert!(host.datapath.pods().is_empty());
    for family in ["-4", "-6"] {
        let routes = host.namespace.ip(&format!("{family} route show proto 110")).unwrap();
        assert!(routes.is_empty(), "{routes}");
    }
    drop(pod);
    eventually("the link goes with its namespace", || host.links().is_empty());
}
