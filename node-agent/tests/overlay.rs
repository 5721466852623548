//! The overlay's device, routes and masquerading in real network namespaces.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::Path,
    time::Duration,
};

use ipnet::IpNet;
use netkeel_agent::{
    link::netlink::Rtnetlink,
    masquerade::{self, Outcome},
    overlay::{self, DEVICE, Interfaces},
    route::{self, Way},
};
use netkeel_core::address::Addresses;
use netkeel_testkit::lab::{Namespace, join};

const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SETTINGS: &str = "/proc/sys/net";

fn device() -> overlay::Wanted {
    let (node, addresses) =
        (Addresses::of([NODE.into()]), Addresses::of([Ipv4Addr::new(10, 244, 0, 0).into()]));
    overlay::Wanted { port: 8472, mtu: 1450, node, addresses, over_ipv6: false }
}

/// The same of a node with IPv6 alone.
fn device6() -> overlay::Wanted {
    let one = |text: &str| Addresses::of([text.parse().expect("an address")]);
    overlay::Wanted {
        mtu: 1430,
        node: one("fd00:18::1"),
        addresses: one("fd00:10:244::"),
        over_ipv6: true,
        ..device()
    }
}

fn converge(node: &Namespace, wanted: &overlay::Wanted) -> Result<u32, overlay::Error> {
    node.enter(|| {
        let mut net = Rtnetlink::open()?;
        let index = overlay::converge(&mut net, wanted, Path::new(SETTINGS))?.index;
        overlay::tidy(&mut net, index, wanted, &[])?;
        Ok(index)
    })
}

#[test]
fn a_former_address_stays_until_its_block_goes() {
    let node = Namespace::new().unwrap();
    let index = converge(&node, &device()).unwrap();
    let moved = overlay::Wanted { addresses: Addresses::of([Ipv4Addr::new(10, 9, 0, 0).into()]), ..device() };
    let former = [Ipv4Addr::new(10, 244, 0, 0).into()];
    for (former, there) in [(&former[..], true), (&[], false)] {
        node.enter(|| {
            let mut net = Rtnetlink::open().unwrap();
            assert_eq!(overlay::converge(&mut net, &moved, Path::new(SETTINGS)).unwrap().index, index);
            overlay::tidy(&mut net, index, &moved, former).unwrap();
        });
        let shown = node.ip(&format!("addr show {DEVICE}")).unwrap();
        assert!(shown.contains("inet 10.9.0.0/32"), "{shown}");
        assert_eq!(shown.contains("inet 10.244.0.0/32"), there, "{shown}");
    }
}

#[test]
fn the_device_is_made_once_and_then_left_alone() {
    let node = Namespace::new().unwrap();
    let index = converge(&node, &device()).unwrap();
    let shown = node.ip(&format!("-d addr show {DEVICE}")).unwrap();
    for wanted in [
        "mtu 1450",
        "NOARP",
        ",UP",
        "external",
        "nolearning",
        "dstport 8472",
        "02:6e:c0:00:02:01",
        "inet 10.244.0.0/32",
    ] {
        assert!(shown.contains(wanted), "{wanted} is not in\n{shown}");
    }
    assert!(!shown.contains("inet6"), "nothing is announced over the overlay:\n{shown}");
    assert_eq!(converge(&node, &device()).unwrap(), index, "made only once");
}

#[test]
fn the_device_carries_ipv6_over_ipv6_and_announces_nothing() {
    let node = Namespace::new().unwrap();
    let index = converge(&node, &device6()).unwrap();
    let shown = node.ip(&format!("-d addr show {DEVICE}")).unwrap();
    for wanted in ["mtu 1430", "NOARP", "external", "udp6zerocsumrx", "inet6 fd00:10:244::/128"] {
        assert!(shown.contains(wanted), "{wanted} is not in\n{shown}");
    }
    assert!(!shown.contains("fe80") && !shown.contains("tentative"), "{shown}");
    let both = Addresses { ipv4: device().addresses.ipv4, ..device6().addresses };
    let dual = overlay::Wanted { addresses: both, ..device6() };
    assert_eq!(converge(&node, &dual).unwrap(), index, "an address more");
    assert!(node.ip(&format!("addr show {DEVICE}")).unwrap().contains("inet 10.244.0.0/32"));
    node.ip(&format!("-6 addr add fd00:bad::1/64 dev {DEVICE}")).unwrap();
    assert_eq!(converge(&node, &device6()).unwrap(), index);
    let shown = node.ip(&format!("addr show {DEVICE}")).unwrap();
    assert!(!shown.contains("inet ") && !shown.contains("fd00:bad::1"), "{shown}");
}

#[test]
fn routes_of_both_families_are_converged() {
    let node = Namespace::new().unwrap();
    let ifindex = converge(&node, &device6()).unwrap();
    let source = device6().addresses.first().unwrap();
    let block = |text: &str| text.parse::<IpNet>().unwrap();
    let set = |wanted: &BTreeMap<_, _>| {
        node.enter(|| route::converge(&mut Rtnetlink::open().unwrap(), wanted)).unwrap()
    };
    let wanted = BTreeMap::from([
        (block("fd00:10:244::/122"), Way::Unreachable),
        (block("fd00:10:244::40/122"), Way::Overlay { ifindex, source }),
        (block("10.244.0.0/26"), Way::Unreachable),
    ]);
    node.ip(&format!("-6 route add fd00:10:50::/64 dev {DEVICE}")).unwrap();
    node.ip(&format!("-6 route add fd00:10:244::5/128 dev {DEVICE} proto 0x6e")).unwrap();
    assert_eq!(set(&wanted), route::Changes { written: 3, removed: 0 });
    assert_eq!(set(&wanted), route::Changes::default());
    let shown = node.ip("-6 route show").unwrap();
    assert!(
        shown.contains(&format!("fd00:10:244::40/122 dev {DEVICE} proto 110 src fd00:10:244::")),
        "{shown}"
    );
    assert!(shown.contains("unreachable fd00:10:244::/122"), "{shown}");
    assert_eq!(set(&BTreeMap::new()), route::Changes { written: 0, removed: 3 });
    let shown = node.ip("-6 route show").unwrap();
    assert!(
        shown.contains("fd00:10:50::/64") && shown.contains("fd00:10:244::5"),
        "others' and a pod's: {shown}"
    );
}

#[test]
fn drift_of_the_device_is_repaired_in_place() {
    let node = Namespace::new().unwrap();
    let index = converge(&node, &device()).unwrap();
    for change in [
        format!("link set {DEVICE} down mtu 1400 arp on address 02:00:00:00:00:01"),
        format!("addr del 10.244.0.0/32 dev {DEVICE}"),
        format!("addr add 10.9.9.9/24 dev {DEVICE}"),
    ] {
        node.ip(&change).unwrap();
    }
    assert_eq!(converge(&node, &device()).unwrap(), index);
    let shown = node.ip(&format!("-d addr show {DEVICE}")).unwrap();
    for wanted in ["mtu 1450", "NOARP", ",UP", "02:6e:c0:00:02:01", "inet 10.244.0.0/32"] {
        assert!(shown.contains(wanted), "{wanted} is not in\n{shown}");
    }
    assert!(!shown.contains("10.9.9.9"), "{shown}");
}

#[test]
fn another_port_makes_the_device_anew() {
    let node = Namespace::new().unwrap();
    let index = converge(&node, &device()).unwrap();
    let moved = overlay::Wanted { port: 4789, ..device() };
    assert_ne!(converge(&node, &moved).unwrap(), index);
    assert!(node.ip(&format!("-d link show {DEVICE}")).unwrap().contains("dstport 4789"));
    node.enter(|| overlay::remove(&mut Rtnetlink::open().unwrap())).unwrap();
    node.enter(|| overlay::remove(&mut Rtnetlink::open().unwrap())).unwrap();
    assert!(node.links().unwrap().is_empty());
}

#[test]
fn anothers_device_on_the_port_is_a_conflict_that_names_it() {
    let node = Namespace::new().unwrap();
    node.ip("link add flannel.1 type vxlan id 1 dstport 8472 dev lo").unwrap();
    let error = converge(&node, &device()).unwrap_err();
    assert!(
        matches!(&error, overlay::Error::Conflict { device, port: 8472 } if device == "flannel.1"),
        "{error}"
    );
    assert_eq!(node.links().unwrap(), ["flannel.1"], "nothing was touched");
}

#[test]
fn the_underlay_is_the_interface_with_the_nodes_address_and_its_subnets_are_the_nodes() {
    let (node, other) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    join((&node, "uplink", NODE), (&other, "uplink", Ipv4Addr::new(192, 0, 2, 2)), 24).unwrap();
    node.ip("link set uplink mtu 1400").unwrap();
    node.ip("-6 addr add fd00:18::1/64 dev uplink nodad").unwrap();
    node.ip("addr add 198.51.100.1/32 dev lo").unwrap();
    converge(&node, &device()).unwrap();
    let interfaces = node.enter(|| Interfaces::read(&mut Rtnetlink::open().unwrap())).unwrap();
    let found = interfaces.underlay(&Addresses::of([NODE.into()])).unwrap();
    assert_eq!(found, overlay::Underlay { device: "uplink".to_owned(), mtu: 1400 });
    let error = interfaces.underlay(&Addresses::of([IpAddr::from([192, 0, 2, 9])])).unwrap_err();
    assert!(error.to_string().contains("192.0.2.9"));
    let mut subnets: Vec<_> = interfaces.subnets().into_iter().map(|subnet| subnet.net.to_string()).collect();
    subnets.sort();
    assert_eq!(subnets, ["192.0.2.1/24", "fd00:18::1/64"], "no loopback, nothing of the overlay's");
    node.ip("link set uplink down").unwrap();
    let interfaces = node.enter(|| Interfaces::read(&mut Rtnetlink::open().unwrap())).unwrap();
    assert_eq!(interfaces.subnets(), [], "nobody is a next hop over a link that is down");
    assert!(interfaces.underlay(&Addresses::of([NODE.into()])).is_ok());
}

/// A node is the next hop, then behind the tunnel, then the next hop again: the route changes in one step.
#[test]
fn routes_of_both_families_change_between_tunnel_and_next_hop_in_place() {
    let (node, other) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    join((&node, "uplink", NODE), (&other, "uplink", Ipv4Addr::new(192, 0, 2, 2)), 24).unwrap();
    node.ip("-6 addr add fd00:18::1/64 dev uplink nodad").unwrap();
    let both = Addresses { ipv4: device().addresses.ipv4, ..device6().addresses };
    let tunnel = converge(&node, &overlay::Wanted { addresses: both, ..device6() }).unwrap();
    let ifindex = node.enter(|| nix::net::if_::if_nametoindex("uplink").unwrap());
    let blocks = [
        ("10.244.0.64/26", "10.244.0.0", "192.0.2.2"),
        ("fd00:10:244::40/122", "fd00:10:244::", "fd00:18::2"),
    ];
    let wanted = |direct: bool| -> BTreeMap<IpNet, Way> {
        let way = |source: &str, gateway: &str| {
            let (source, gateway) = (source.parse().unwrap(), gateway.parse().unwrap());
            if direct {
                Way::Direct { ifindex, gateway, source }
            } else {
                Way::Overlay { ifindex: tunnel, source }
            }
        };
        blocks.iter().map(|(block, source, gateway)| (block.parse().unwrap(), way(source, gateway))).collect()
    };
    let set =
        |direct| node.enter(|| route::converge(&mut Rtnetlink::open().unwrap(), &wanted(direct))).unwrap();
    for direct in [false, true, false, true] {
        assert_eq!(set(direct), route::Changes { written: 2, removed: 0 });
        assert_eq!(set(direct), route::Changes::default());
        for (block, source, gateway) in blocks {
            let family = if block.contains(':') { "-6" } else { "-4" };
            let shown = node.ip(&format!("{family} route show {block}")).unwrap();
            let way = if direct { format!("via {gateway} dev uplink") } else { format!("dev {DEVICE}") };
            let wanted = format!("{block} {way} proto 110");
            assert!(shown.starts_with(&wanted) && shown.contains(&format!("src {source}")), "{shown}");
            assert_eq!(shown.lines().count(), 1, "{shown}");
        }
    }
    assert_eq!(
        node.enter(|| route::converge(&mut Rtnetlink::open().unwrap(), &BTreeMap::new())).unwrap(),
        route::Changes { written: 0, removed: 2 }
    );
}

#[test]
fn routes_to_blocks_are_converged_and_others_routes_are_left() {
    let node = Namespace::new().unwrap();
    let ifindex = converge(&node, &device()).unwrap();
    let overlay = Way::Overlay { ifindex, source: device().addresses.first().unwrap() };
    let block = |text: &str| text.parse().unwrap();
    let set = |wanted: &BTreeMap<_, _>| {
        node.enter(|| route::converge(&mut Rtnetlink::open().unwrap(), wanted)).unwrap()
    };
    node.ip(&format!("route add 10.50.0.0/24 dev {DEVICE}")).unwrap();
    node.ip(&format!("route add 10.244.0.5/32 dev {DEVICE} proto 0x6e")).unwrap();

    let first = BTreeMap::from([
        (block("10.244.0.0/26"), Way::Unreachable),
        (block("10.244.0.64/26"), overlay),
        (block("10.244.0.128/26"), overlay),
    ]);
    assert_eq!(set(&first), route::Changes { written: 3, removed: 0 });
    assert_eq!(set(&first), route::Changes::default());
    let shown = node.ip("route show").unwrap();
    assert!(
        shown.contains("10.244.0.64/26 dev netkeel.vxlan proto 110 scope link src 10.244.0.0"),
        "{shown}"
    );
    assert!(shown.contains("unreachable 10.244.0.0/26 proto 110"), "{shown}");

    node.ip("route del 10.244.0.64/26").unwrap();
    let mut second = first.clone();
    second.remove(&block("10.244.0.128/26"));
    assert_eq!(set(&second), route::Changes { written: 1, removed: 1 });
    let shown = node.ip("route show").unwrap();
    assert!(
        shown.contains("10.50.0.0/24") && shown.contains("10.244.0.5 "),
        "others' routes and pods' stay:\n{shown}"
    );
    assert!(!shown.contains("10.244.0.128/26"), "{shown}");
}

#[test]
fn thousands_of_routes_are_set_at_once_and_a_refused_one_is_named() {
    let node = Namespace::new().unwrap();
    let block = |n: u32| IpNet::new_assert(Ipv4Addr::from(0x0af4_0000 + n * 16).into(), 28);
    let set =
        |wanted: &BTreeMap<_, _>| node.enter(|| route::converge(&mut Rtnetlink::open().unwrap(), wanted));
    node.ip(&format!("route add unreachable {}", block(400))).unwrap();
    let wanted: BTreeMap<_, _> = (0..5000).map(|n| (block(n), Way::Unreachable)).collect();
    let error = set(&wanted).unwrap_err().to_string();
    assert!(error.contains(&format!("set the route to {}", block(400))), "{error}");
    node.ip(&format!("route del unreachable {}", block(400))).unwrap();
    assert_eq!(set(&wanted).unwrap(), route::Changes { written: 1, removed: 0 }, "the others were set");
    assert_eq!(set(&BTreeMap::new()).unwrap(), route::Changes { written: 0, removed: 5000 });
}

fn table() -> masquerade::Wanted {
    let net = |a, b| IpNet::new_assert(Ipv4Addr::new(a, b, 0, 0).into(), 16);
    let pods = vec![net(10, 244), "fd00:10:244::/56".parse().expect("a network")];
    let excluded = vec![net(192, 168), "fd00:99::/32".parse().expect("a network")];
    masquerade::Wanted { vxlan_port: 8472, masqueraded: pods.clone(), pods, excluded }
}

#[test]
fn the_table_is_written_once_and_reads_as_meant() {
    let node = Namespace::new().unwrap();
    node.run("nft", &["add table ip other"]).unwrap();
    assert_eq!(node.enter(|| masquerade::converge(&table())).unwrap(), Outcome::Replaced);
    assert_eq!(node.enter(|| masquerade::converge(&table())).unwrap(), Outcome::Unchanged);
    let shown = node.run("nft", &["list", "table", "inet", "netkeel"]).unwrap();
    for wanted in [
        "type nat hook postrouting priority srcnat; policy accept;",
        "oifname \"netkeel.vxlan\" accept",
        "ip daddr 10.244.0.0/16 accept",
        "ip daddr 192.168.0.0/16 accept",
        "ip6 daddr fd00:10:244::/56 accept",
        "ip6 daddr fd00:99::/32 accept",
        "ip saddr 10.244.0.0/16 masquerade to :8473-65535 fully-random",
        "ip6 saddr fd00:10:244::/56 masquerade to :8473-65535 fully-random",
        "type filter hook prerouting priority raw; policy accept;",
        "type filter hook output priority raw; policy accept;",
        "udp dport 8472 notrack",
    ] {
        assert!(shown.contains(wanted), "{wanted} is not in\n{shown}");
    }
    let place = |rule: &str| shown.find(rule).unwrap();
    let order = ["oifname", "ip daddr 10.244.0.0/16", "ip daddr 192.168.0.0/16", "ip saddr"].map(place);
    assert!(order.is_sorted(), "the first rule that matches decides:\n{shown}");
}

#[test]
fn destinations_that_are_excluded_see_the_pods_own_address() {
    let (pod, node, outside) =
        (Namespace::new().unwrap(), Namespace::new().unwrap(), Namespace::new().unwrap());
    join((&pod, "eth0", [10, 244, 0, 2].into()), (&node, "pod", [10, 244, 0, 1].into()), 24).unwrap();
    join((&node, "uplink", NODE), (&outside, "uplink", [192, 0, 2, 2].into()), 24).unwrap();
    outside.ip("addr add 192.168.0.1/32 dev lo").unwrap();
    outside.ip(&format!("route add default via {NODE}")).unwrap();
    node.ip("route add 192.168.0.0/16 via 192.0.2.2").unwrap();
    pod.ip("route add default via 10.244.0.1").unwrap();
    node.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap();
    node.enter(|| masquerade::converge(&table())).unwrap();
    let seen_by = |address: &str| {
        let server = outside.enter(|| UdpSocket::bind((address, 9)).unwrap());
        server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let client = pod.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        client.send_to(b"x", (address, 9)).unwrap();
        server.recv_from(&mut [0; 8]).unwrap().1.ip().to_string()
    };
    assert_eq!(seen_by("192.168.0.1"), "10.244.0.2");
    assert_eq!(seen_by("192.0.2.2"), NODE.to_string());
    let others = "10.245.0.0/16".parse().expect("a network");
    let wanted =
        masquerade::Wanted { pods: vec![others, table().pods[0]], masqueraded: vec![others], ..table() };
    node.enter(|| masquerade::converge(&wanted)).unwrap();
    assert_eq!(seen_by("192.0.2.2"), "10.244.0.2", "only pods of the other pool are masqueraded");
}

#[test]
fn a_masqueraded_datagram_never_leaves_from_the_overlays_port() {
    let (pod, node, outside) =
        (Namespace::new().unwrap(), Namespace::new().unwrap(), Namespace::new().unwrap());
    let address = |last| Ipv4Addr::new(192, 0, 2, last);
    let pod_address = |last| Ipv4Addr::new(10, 244, 0, last);
    join((&pod, "eth0", pod_address(2)), (&node, "pod", pod_address(1)), 24).unwrap();
    join((&node, "uplink", NODE), (&outside, "uplink", address(2)), 24).unwrap();
    pod.ip("route add default via 10.244.0.1").unwrap();
    node.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap();
    let wanted = masquerade::Wanted { vxlan_port: 32_000, excluded: Vec::new(), ..table() };
    node.enter(|| masquerade::converge(&wanted)).unwrap();
    let server = outside.enter(|| UdpSocket::bind((address(2), 9)).unwrap());
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut buffer = [0; 8];
    for _ in 0..100 {
        let client = pod.enter(|| UdpSocket::bind((pod_address(2), 0)).unwrap());
        client.send_to(b"x", (address(2), 9)).unwrap();
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(from.ip(), NODE);
        assert!(from.port() > 32_000, "{from}");
    }
}

#[test]
fn a_changed_or_damaged_table_is_replaced_whole_and_others_tables_stay() {
    let node = Namespace::new().unwrap();
    node.run("nft", &["add table ip other"]).unwrap();
    node.enter(|| masquerade::converge(&table())).unwrap();
    node.run("nft", &["flush chain inet netkeel postrouting"]).unwrap();
    assert_eq!(node.enter(|| masquerade::converge(&table())).unwrap(), Outcome::Replaced);

    let off = masquerade::Wanted { masqueraded: Vec::new(), ..table() };
    assert_eq!(node.enter(|| masquerade::converge(&off)).unwrap(), Outcome::Replaced);
    let shown = node.run("nft", &["list", "ruleset"]).unwrap();
    assert!(
        !shown.contains("masquerade") && shown.contains("notrack") && shown.contains("table ip other"),
        "{shown}"
    );

    node.enter(masquerade::remove).unwrap();
    node.enter(masquerade::remove).unwrap();
    assert_eq!(node.run("nft", &["list", "tables"]).unwrap(), "table ip other\n");
}
