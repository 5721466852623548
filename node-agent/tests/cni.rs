//! The plugin and the agent's CNI server on real links in namespaces; the kernel programs are a fake, so the host's
//! routes alone carry the packets.

#[path = "cni/bandwidth.rs"]
mod bandwidth;
#[path = "cni/disk.rs"]
mod disk;
#[path = "cni/drift.rs"]
mod drift;
#[path = "cni/dual.rs"]
mod dual;
#[path = "cni/full.rs"]
mod full;
#[path = "cni/host.rs"]
mod host;
#[path = "cni/ports.rs"]
mod ports;
#[path = "cni/real.rs"]
mod real;
#[path = "cni/refusals.rs"]
mod refusals;
#[path = "cni/restarts.rs"]
mod restarts;
#[path = "cni/wishes.rs"]
mod wishes;

use std::{
    collections::HashSet,
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use host::{Host, Pod, address, eventually};
use netkeel_testkit::lab::Namespace;
use serde_json::{Value, json};

#[test]
fn add_gives_a_working_link_and_says_how_it_looks() {
    let host = Host::started("10.244.0.0/26");
    let pod = Pod::new("a");
    let result = host.add(&pod).ok();
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(
        result["ips"][0],
        json!({"address": "10.244.0.1/32", "gateway": "169.254.1.1", "interface": 1})
    );
    assert_eq!(result["dns"]["nameservers"][0], "10.96.0.10");
    let (outer, inner) = (&result["interfaces"][0], &result["interfaces"][1]);
    assert_eq!(host.links(), [outer["name"].as_str().unwrap()]);
    assert_eq!(inner["sandbox"], pod.namespace.path().to_str().unwrap());
    let eth0 = pod.namespace.ip("addr show eth0").unwrap();
    for wanted in [inner["mac"].as_str().unwrap(), "mtu 1450", "inet 10.244.0.1/32", "LOWER_UP"] {
        assert!(eth0.contains(wanted), "{wanted} is not in {eth0}");
    }
    let routes = pod.namespace.ip("route").unwrap();
    assert!(routes.contains("default via 169.254.1.1 dev eth0") && routes.contains("onlink"), "{routes}");
    let gateway = pod.namespace.ip("neigh show 169.254.1.1").unwrap();
    assert!(gateway.contains(outer["mac"].as_str().unwrap()) && gateway.contains("PERMANENT"), "{gateway}");
    let route = host.namespace.ip("route show 10.244.0.1").unwrap();
    assert!(route.contains("proto 110") && route.contains("scope link"), "{route}");
    let forwarding = "ipv6/conf/default/accept_ra";
    let read = pod.namespace.run("cat", &[&format!("/proc/sys/net/{forwarding}")]).unwrap();
    assert_eq!(read.trim(), "0");
}

#[test]
fn two_pods_and_their_host_reach_each_other_over_tcp_and_udp() {
    let host = Host::started("10.244.0.0/26");
    let (client, server) = (Pod::new("client"), Pod::new("server"));
    let client_address = address(&host.add(&client).ok());
    let server_address = address(&host.add(&server).ok());
    let listener = server.namespace.enter(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    let echo = thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, from) = listener.accept().unwrap();
            stream.write_all(from.ip().to_string().as_bytes()).unwrap();
        }
    });
    let ask = |namespace: &Namespace| {
        let mut stream = namespace.enter(|| TcpStream::connect((server_address.as_str(), 80))).unwrap();
        let mut seen = String::new();
        stream.read_to_string(&mut seen).unwrap();
        seen
    };
    assert_eq!(ask(&client.namespace), client_address, "the server sees the pod's own address");
    host.namespace.ip("addr add 192.0.2.1/32 dev lo").unwrap();
    assert_eq!(ask(&host.namespace), "192.0.2.1", "the node reaches its pod");
    echo.join().unwrap();
    let udp = server.namespace.enter(|| UdpSocket::bind("0.0.0.0:53")).unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let sender = client.namespace.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    client.namespace.enter(|| sender.send_to(&[7; 1400], (server_address.as_str(), 53))).unwrap();
    let (length, from) = udp.recv_from(&mut [0; 2000]).unwrap();
    assert_eq!((length, from.ip().to_string()), (1400, client_address));
}

#[test]
fn del_takes_everything_away_and_may_be_repeated() {
    let host = Host::started("10.244.0.0/26");
    let pod = Pod::new("a");
    host.add(&pod).ok();
    assert_eq!(host.datapath.pods().len(), 1);
    assert_eq!(host.del(&pod).ok(), Value::Null);
    assert!(host.datapath.pods().is_empty(), "the data path forgets the pod at once");
    assert_eq!(host.namespace.ip("route").unwrap(), "", "and so does the host");
    let usage = host.pool().usage();
    assert_eq!((usage.used, usage.resting), (0, 1));
    host.del(&pod).ok();
    host.del(&Pod::new("never-added")).ok();
    eventually("removal of a link whose namespace stays", || host.links().is_empty());
}

#[test]
fn a_link_goes_with_its_namespace_and_del_comes_after() {
    let host = Host::started("10.244.0.0/26");
    let Pod { namespace, id } = Pod::new("a");
    host.add(&Pod { namespace: Namespace::new().unwrap(), id: id.clone() }).ok();
    drop(namespace);
    eventually("removal of the namespace", || host.links().is_empty());
    let environment =
        [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", id.as_str()), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "")];
    host.plugin(&environment, &host.config().to_string()).ok();
    assert_eq!(host.pool().usage().used, 0);
    assert!(host.datapath.pods().is_empty());
}

#[test]
fn add_after_del_of_the_same_sandbox_makes_a_new_link_that_stays() {
    let host = Host::started("10.244.0.0/26");
    let pod = Pod::new("a");
    let first = address(&host.add(&pod).ok());
    host.del(&pod).ok();
    let second = address(&host.add(&pod).ok());
    assert_ne!(first, second, "the first address rests");
    thread::sleep(Duration::from_millis(2500));
    host.check(&pod).ok();
}

#[test]
fn a_repeated_add_changes_nothing() {
    let host = Host::started("10.244.0.0/26");
    let pod = Pod::new("a");
    let first = host.add(&pod).ok();
    let index = host.namespace.run("sh", &["-c", "cat /sys/class/net/*/ifindex"]);
    assert_eq!(host.add(&pod).ok(), first);
    assert_eq!(host.namespace.run("sh", &["-c", "cat /sys/class/net/*/ifindex"]).ok(), index.ok());
    assert_eq!(host.pool().usage().used, 1);
}

#[test]
fn check_finds_what_was_broken() {
    let host = Host::started("10.244.0.0/26");
    let pod = Pod::new("a");
    let result = host.add(&pod).ok();
    let mut config = host.config();
    config["prevResult"] = result.clone();
    host.call("CHECK", &pod, &config).ok();
    config["prevResult"]["ips"][0]["address"] = "10.244.0.9/32".into();
    assert!(host.call("CHECK", &pod, &config).refused().1.contains("prevResult"));
    let link = result["interfaces"][0]["name"].as_str().unwrap();
    let broken = |said: &str| {
        let (code, text) = host.check(&pod).refused();
        assert!(code == 101 && text.contains(said), "{text}");
    };
    pod.namespace.ip("addr add 10.9.9.9/32 dev eth0").unwrap();
    pod.namespace.ip("addr del 10.244.0.1/32 dev eth0").unwrap();
    broken("lacks 10.244.0.1");
    host.namespace.ip("route del 10.244.0.1").unwrap();
    broken("route");
    host.namespace.ip(&format!("link set {link} down")).unwrap();
    broken("down");
    host.del(&pod).ok();
    broken("no address");
}

#[test]
fn gc_takes_back_what_the_runtime_does_not_know() {
    let host = Host::started("10.244.0.0/26");
    let pods: Vec<_> = ["keep", "lose"].map(Pod::new).into();
    for pod in &pods {
        host.add(pod).ok();
    }
    let mut config = host.config();
    config["cni.dev/valid-attachments"] = json!([{"containerID": "keep", "ifname": "eth0"}]);
    let gc = |config: &Value| host.plugin(&[("CNI_COMMAND", "GC")], &config.to_string());
    config["name"] = "another".into();
    gc(&config).ok();
    assert_eq!(host.pool().usage().used, 2, "another network's GC is none of ours");
    config["name"] = "netkeel".into();
    gc(&config).ok();
    host.check(&pods[0]).ok();
    host.check(&pods[1]).refused();
    assert_eq!(gc(&host.config()).refused().0, 7, "without a list nothing is taken");
    assert_eq!(host.pool().usage().used, 1);
}

#[test]
fn a_plugin_that_others_come_before_in_their_chain_hands_on_what_they_made() {
    let host = Host::started("10.244.0.0/26");
    let pod = Pod::new("a");
    let mut config = host.config();
    config["prevResult"] = json!({"cniVersion": "1.1.0",
        "interfaces": [{"name": "net1", "sandbox": pod.namespace.path()}],
        "ips": [{"address": "192.0.2.7/24", "interface": 0}], "routes": [], "dns": {}});
    config["runtimeConfig"] = json!({"portMappings": []});
    let result = host.call("ADD", &pod, &config).ok();
    assert_eq!(
        (&result["interfaces"][0]["name"], &result["ips"][0]["address"]),
        (&json!("net1"), &json!("192.0.2.7/24"))
    );
    let ours = result["ips"][1]["interface"].as_u64().unwrap();
    assert_eq!(result["interfaces"][usize::try_from(ours).unwrap()]["name"], "eth0");
    assert_eq!(host.call("ADD", &pod, &config).ok(), result, "and so does a repeated one");
    // Later plugins change the result, and CHECK and DEL get theirs.
    config["prevResult"] = result;
    config["prevResult"]["ips"].as_array_mut().unwrap().push(json!({"address": "192.0.2.8/24"}));
    host.call("CHECK", &pod, &config).ok();
    host.call("DEL", &pod, &config).ok();
    assert_eq!(host.pool().usage().used, 0);

    config["prevResult"] = json!({"interfaces": [{"name": "eth0", "sandbox": "/run/netns/b"}]});
    let (code, text) = host.call("ADD", &Pod::new("b"), &config).refused();
    assert!(code == 7 && text.contains("an earlier plugin of the chain has made eth0"), "{text}");
    assert_eq!(host.pool().usage().used, 0);
}

#[test]
fn thirty_two_adds_at_once_all_work() {
    let host = Host::started("10.244.0.0/26");
    let pods: Vec<_> = (0..32).map(|n| Pod::new(format!("pod-{n}"))).collect();
    let addresses: HashSet<_> = thread::scope(|scope| {
        let calls: Vec<_> = pods.iter().map(|pod| scope.spawn(|| address(&host.add(pod).ok()))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(addresses.len(), 32);
    assert_eq!(host.links().len(), 32);
    for pod in &pods {
        host.check(pod).ok();
    }
    thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| host.del(pod).ok());
        }
    });
    assert_eq!(host.pool().usage().used, 0);
    assert!(host.datapath.pods().is_empty());
}

#[test]
fn no_descriptor_of_a_pod_stays_in_the_agent() {
    let host = Host::started("10.244.0.0/26");
    let namespaces = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        links
            .filter(|link| {
                std::fs::read_link(link.path()).is_ok_and(|to| to.to_string_lossy().contains("net:["))
            })
            .count()
    };
    let (pod, before) = (Pod::new("a"), namespaces());
    host.add(&pod).ok();
    host.check(&pod).ok();
    // Tests of other hosts run beside this one; the count must come back, not stay.
    eventually("closing of the pod's descriptors", || namespaces() <= before + 1);
    drop(pod);
    eventually("the end of the pod's namespace", || host.links().is_empty());
}
