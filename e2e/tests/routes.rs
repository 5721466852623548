//! The ways between nodes, with and without the tunnel, and changes from one to another under traffic. All tests use the shared cluster
//! and leave it with the tunnel.

#[path = "routes/traffic.rs"]
mod traffic;

use std::thread;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::workload::{Client, ECHO_PORT, Pod, Workload, node_names, shared};
use traffic::{AFTER, Mode, STREAMS, Traffic, peers};

fn exchange(from: &Client<'_>, to: &Client<'_>) -> Result<()> {
    let seen = from.sources(&to.address)?;
    ensure!(seen == [from.address.as_str()], "{to} sees {from} as {seen:?}");
    from.udp(&to.address, ECHO_PORT, 5, false)?.none_failed().with_context(|| format!("{from} -> {to}"))
}

/// Headers of IPv4 and UDP.
const UDP_HEADERS: usize = 28;

/// Pods whose links are larger than the tunnel takes, since they were made without it: `one` and `other`, of two nodes. What they send
/// through it with "don't fragment" is answered by "too big", and the same again gets there in pieces. A connection that is full of
/// such segments goes on with smaller ones, and without the tunnel as before.
fn pods_learn_what_the_tunnel_takes(
    mode: &Mode,
    workload: &Workload<'static>,
    pods: [&str; 2],
) -> Result<()> {
    let [one, other] = [workload.client(pods[0])?, workload.client(pods[1])?];
    let full = one.mtu()? - UDP_HEADERS;
    let goes_on = workload.prober(pods[0])?.transfer(&other.address, ECHO_PORT)?;
    thread::sleep(AFTER);
    mode.set("VXLAN")?;
    let before = mode.tunnelled()?;
    ensure!(one.mtu()? == full + UDP_HEADERS && other.mtu()? == one.mtu()?, "the links stay as they are");
    // To a pod to which nothing large went before.
    let told = one.udp_of(&workload.address("second-1", false)?, ECHO_PORT, full)?;
    let too_long = told.errors.iter().filter(|(error, _)| error.contains("too long"));
    ensure!(too_long.map(|(_, count)| count).sum::<usize>() == 1 && told.ok == 4, "{told:?}");
    for (from, to) in [(&one, &other), (&other, &one)] {
        from.transfer(&to.address, ECHO_PORT, 8 << 20).context("with the tunnel")?;
        from.udp_of(&to.address, ECHO_PORT, full)?.none_failed().context("with the tunnel")?;
    }
    let after = mode.tunnelled()?;
    // Each node sends 16 MiB and more, in packets of 64 KiB at the most, as long as the kernel has not cut them.
    ensure!(before.iter().zip(&after).all(|(before, after)| after - before > 256), "{before:?} {after:?}");
    mode.set("None")?;
    one.transfer(&other.address, ECHO_PORT, 8 << 20).context("without the tunnel again")?;
    let rate = goes_on.end()?.rate().context("the connection that went on")?;
    println!("a connection over both changes: {rate:.0} Mbit/s there and back");
    Ok(())
}

#[test]
fn without_a_tunnel_pods_of_two_nodes_meet_as_next_hops_and_policy_holds() {
    let mode = Mode::new(shared());
    let (workload, nodes) = (peers(mode.cluster, "routes").unwrap(), node_names(mode.cluster));
    let client = |name: &str| workload.client(name).unwrap();
    for (encapsulation, mtu) in [("None", 1500), ("VXLANCrossSubnet", 1450)] {
        mode.set(encapsulation).unwrap();
        let before = mode.tunnelled().unwrap();
        for (from, to) in [("first-0", "first-1"), ("first-1", "first-0"), ("first-0", "guarded")] {
            exchange(&client(from), &client(to)).unwrap();
        }
        let refused = client("second-0").try_connect(&client("guarded").address, ECHO_PORT).unwrap();
        assert_eq!(refused.ok, 0, "{encapsulation}: policy lets the stranger pass: {refused:?}");
        let node = Client::on_node(mode.cluster, &nodes[0]).unwrap();
        node.sources(&client("first-1").address).context(encapsulation).unwrap();
        let outside = client("first-0").outside_source().unwrap();
        assert_eq!(outside, node.address, "{encapsulation}: the outside still sees the node");

        assert_eq!(before, mode.tunnelled().unwrap(), "{encapsulation}: nothing went into the tunnel");
        let routes = mode.cluster.node_exec(&nodes[0], &["ip", "route", "show", "proto", "110"]).unwrap();
        assert!(
            routes.contains(" via ") && !routes.contains("dev netkeel.vxlan"),
            "{encapsulation}:\n{routes}"
        );

        let fresh = [0, 1].map(|index| format!("fresh-{mtu}-{index}"));
        let pods = fresh.iter().zip(&nodes).map(|(name, node)| Pod::server(name, node).json());
        workload.apply(pods.collect()).unwrap();
        workload.ready().unwrap();
        assert_eq!(client(&fresh[0]).mtu().unwrap(), mtu, "{encapsulation}");
        client(&fresh[0]).transfer(&client("first-1").address, ECHO_PORT, 8 << 20).unwrap();
        if encapsulation == "None" {
            pods_learn_what_the_tunnel_takes(&mode, &workload, [&fresh[0], &fresh[1]]).unwrap();
        }
    }
    workload.end().unwrap();
}

#[test]
fn connections_go_on_while_the_way_between_nodes_changes() {
    let mode = Mode::new(shared());
    let (workload, nodes) = (peers(mode.cluster, "routes-live").unwrap(), node_names(mode.cluster));
    let node = Client::on_node(mode.cluster, &nodes[0]).unwrap();
    let target = workload.client("second-1").unwrap().address;
    let changes = ["None", "VXLANCrossSubnet", "VXLAN", "None", "VXLAN"];
    let traffic = Traffic::start(&workload, false).unwrap();
    let from_node = node.streams(&target, ECHO_PORT, STREAMS, 25).unwrap();
    mode.change(&changes).unwrap();
    traffic.end(changes.len()).unwrap();
    let from_node = from_node.finish().unwrap();
    assert!(
        from_node.errors.is_empty() && from_node.exchanges > 100,
        "a node's own connections: {from_node:?}"
    );
    workload.end().unwrap();
}
