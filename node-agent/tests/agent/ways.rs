//! The ways to other nodes in each mode, of a node on one subnet with the second and behind a router from the third.

use netkeel_agent::agent::Change;
use netkeel_client::Event;
use netkeel_crds::{NodeNetwork, node_network::BlockRelease};
use netkeel_dataplane_loader::pinned_links;
use serde_json::json;

use super::{
    feed,
    lab::{ip, isolated},
    node, stop, up,
};

/// The nodes' addresses; `encapsulation` of each.
fn nodes(encapsulation: [&str; 3], revision: &str) -> Change {
    let node = |number: usize, addresses: [&str; 2]| -> NodeNetwork {
        let blocks = [format!("10.244.{number}.0/26"), format!("fd00:10:244::{number}00/122")];
        let config = json!({"podCIDRs": ["10.244.0.0/16", "fd00:10:244::/56"], "vxlanPort": 8472, "mtu": 0,
            "encapsulation": encapsulation[number - 1], "masquerade": {"enabled": true, "excludedCIDRs": []}});
        let object = json!({"apiVersion": "netkeel.io/v1alpha1", "kind": "NodeNetwork",
            "metadata": {"name": format!("node-{number}")},
            "spec": {"nodeAddresses": addresses, "blocks": blocks, "revision": revision, "config": config}});
        serde_json::from_value(object).expect("a NodeNetwork")
    };
    let objects = vec![
        node(1, ["192.0.2.1", "fd00:18::1"]),
        node(2, ["192.0.2.2", "fd00:18::2"]),
        node(3, ["198.51.100.3", "fd00:19::3"]),
    ];
    Change::Node(Event::Reset { objects, undecodable: vec![] })
}

/// The routes to blocks, of both families, up to the device.
fn routes() -> Vec<String> {
    let shown = ["-4 route show proto 110", "-6 route show proto 110"].map(ip).concat();
    let routes = shown.lines().filter(|line| !line.starts_with("unreachable"));
    let up_to_device = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let device = words.iter().position(|word| *word == "dev").expect("a route over a device");
        words[..device + 2].join(" ")
    };
    routes.map(up_to_device).collect()
}

#[test]
fn each_node_is_reached_as_the_mode_says_and_changes_are_followed_at_once() {
    isolated(|lab| {
        let (mut agent, _server) = up(lab);
        ip("-6 addr add fd00:18::1/64 dev uplink nodad");
        let tunnelled = |block: &str| format!("{block} dev netkeel.vxlan");
        let hop = |block: &str, gateway: &str| format!("{block} via {gateway} dev uplink");
        let (four, six) = ("10.244.2.0/26", "fd00:10:244::200/122");
        let near_tunnelled = [tunnelled(four), tunnelled(six)];
        let near_hops = [hop(four, "192.0.2.2"), hop(six, "fd00:18::2")];
        let far = [tunnelled("10.244.3.0/26"), tunnelled("fd00:10:244::300/122")];

        for (encapsulation, near, far, mtu, told) in [
            (["VXLAN"; 3], &near_tunnelled, &far[..], 1450, false),
            (["VXLANCrossSubnet"; 3], &near_hops, &far[..], 1450, false),
            (["None"; 3], &near_hops, &[][..], 1500, true),
            // The second node has not been told yet, then the others have not.
            (["None", "VXLAN", "None"], &near_tunnelled, &[][..], 1500, true),
            (["VXLAN", "None", "None"], &near_tunnelled, &far[..], 1450, false),
            (["VXLAN"; 3], &near_tunnelled, &far[..], 1450, false),
        ] {
            let report = feed(&mut agent, [nodes(encapsulation, &encapsulation.join("-"))]);
            assert!(report.problems.is_empty(), "{encapsulation:?}: {report:?}");
            assert_eq!(report.revision, Some(encapsulation.join("-")));
            let mut wanted = [&near[..], far].concat();
            wanted.sort();
            let mut found = routes();
            found.sort();
            assert_eq!(found, wanted, "{encapsulation:?}");
            assert_eq!(report.datapath.expect("facts").mtu, mtu, "{encapsulation:?}");
            let asked: Vec<_> = agent.paths().0.borrow().peers.values().map(|peer| peer.mtu).collect();
            let carried = |tunnelled| if tunnelled { 1450 } else { u32::from(mtu) };
            let sizes = [carried(near[0] == near_tunnelled[0]), carried(!far.is_empty())];
            assert_eq!(asked, sizes, "{encapsulation:?}: the tunnel carries less while nodes change over");
            let of_node_3 =
                report.notes.iter().any(|note| note.contains("is on a subnet of node-3, whose pods"));
            assert_eq!(of_node_3, told, "{encapsulation:?}: {:?}", report.notes);
            let links = pinned_links(&lab.config.bpffs).expect("pins");
            for link in ["from_underlay-uplink", "from_overlay-netkeel_vxlan"] {
                assert!(
                    links.iter().any(|it| it.name == link && it.attached),
                    "{encapsulation:?}: {links:?}"
                );
            }
        }
        stop(agent);
    });
}

#[test]
fn a_node_that_is_on_no_subnet_any_more_is_tunnelled_until_it_is_again() {
    isolated(|lab| {
        let (mut agent, _server) = up(lab);
        let way = |agent: &mut _| {
            feed(agent, [nodes(["VXLANCrossSubnet"; 3], "r2")]);
            routes().into_iter().find(|route| route.starts_with("10.244.2.0/26")).expect("a route")
        };
        assert_eq!(way(&mut agent), "10.244.2.0/26 via 192.0.2.2 dev uplink");
        ip("addr del 192.0.2.1/24 dev uplink");
        ip("addr add 192.0.2.1/32 dev uplink");
        agent.network_stirred();
        assert_eq!(way(&mut agent), "10.244.2.0/26 dev netkeel.vxlan");
        ip("addr del 192.0.2.1/32 dev uplink");
        ip("addr add 192.0.2.1/24 dev uplink");
        agent.network_stirred();
        assert_eq!(way(&mut agent), "10.244.2.0/26 via 192.0.2.2 dev uplink");
        stop(agent);
    });
}

#[test]
fn the_nodes_address_in_a_block_that_is_given_back_stays_until_the_block_is_gone() {
    isolated(|lab| {
        let (mut agent, _server) = up(lab);
        let own = |blocks: &[&str], releasing: &[&str]| {
            let mut node = node(1, "Active");
            let cidr = |block: &&str| block.parse().expect("a block");
            let mark = |block| BlockRelease { cidr: cidr(block), ticket: "7".to_owned() };
            node.spec.blocks = blocks.iter().map(cidr).collect();
            node.spec.releasing = releasing.iter().map(mark).collect();
            Change::Node(Event::Apply(node))
        };
        let held = || {
            let shown = ip("-br -4 addr show netkeel.vxlan");
            let mut all: Vec<_> = shown.split_whitespace().skip(2).map(str::to_owned).collect();
            all.sort();
            all
        };
        let (old, new) = ("10.244.1.0/26", "10.244.9.0/26");
        assert_eq!(held(), ["10.244.1.0/32"]);
        feed(&mut agent, [own(&[new, old], &[old])]);
        assert_eq!(held(), ["10.244.1.0/32", "10.244.9.0/32"]);
        assert!(ip("route show 10.244.2.0/26").contains("src 10.244.9.0"));
        feed(&mut agent, [own(&[new], &[old])]);
        assert_eq!(held(), ["10.244.9.0/32"]);
        stop(agent);
    });
}
