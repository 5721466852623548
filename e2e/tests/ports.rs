//! Host ports on a real node: whoever can reach the node reaches the pod, by every way, and the pod sees who it is.

use std::{sync::OnceLock, time::Duration};

use anyhow::{Context, Result, ensure};
use netkeel_e2e::{
    wait_until,
    workload::{Client, ECHO_PORT, Pod, Workload, client::Seen, node_names, shared},
};
use serde_json::{Value, json};

/// The server's port on its node, TCP and UDP.
const PORT: u16 = 18070;

struct Peers {
    workload: Workload<'static>,
    nodes: Vec<String>,
}

/// A server with host ports and a client on the first node, a client on the second.
fn peers() -> &'static Peers {
    static PEERS: OnceLock<Peers> = OnceLock::new();
    PEERS.get_or_init(|| make_peers().expect("the pods of the tests"))
}

fn make_peers() -> Result<Peers> {
    let workload = Workload::new(shared(), "ports")?;
    let nodes = node_names(shared());
    workload.apply(vec![
        with_ports("server", &nodes[0], &[("TCP", PORT, ECHO_PORT), ("UDP", PORT, ECHO_PORT)]),
        Pod::server("near", &nodes[0]).json(),
        Pod::server("far", &nodes[1]).json(),
    ])?;
    workload.ready()?;
    Ok(Peers { workload, nodes })
}

/// A server with ports of its node: protocol, host's port, its own port.
fn with_ports(name: &str, node: &str, ports: &[(&str, u16, u16)]) -> Value {
    let port = |(protocol, host, own): &(&str, u16, u16)| json!({"protocol": protocol, "hostPort": host, "containerPort": own});
    let mut pod = Pod::server(name, node).json();
    pod["spec"]["containers"][0]["ports"] = ports.iter().map(port).collect();
    pod
}

/// A client, the address that it asks, and the address by which it must be seen; `None` for any.
struct Way {
    from: Client<'static>,
    to: String,
    seen_as: Option<String>,
}

impl Peers {
    fn node(&self, index: usize) -> Client<'static> {
        Client::on_node(shared(), &self.nodes[index]).expect("a process of a node")
    }

    fn ways(&self) -> Vec<Way> {
        let to = self.node(0).address;
        let far = self.node(1).address;
        let pod = |name| self.workload.client(name).expect(name);
        let own = |client: &Client<'_>| Some(client.address.clone());
        let outside = Client::outside(shared());
        let way = |from: Client<'static>, seen_as| Way { from, to: to.clone(), seen_as };
        let (near, itself) = (pod("near"), pod("server"));
        let (as_outside, as_near, as_itself) = (own(&outside), own(&near), own(&itself));
        vec![
            way(outside, as_outside),
            way(self.node(1), Some(far.clone())),
            way(pod("far"), Some(far)),
            way(near, as_near),
            way(itself, as_itself),
            way(self.node(0), None),
            Way { to: "127.0.0.1".to_owned(), ..way(self.node(0), None) },
        ]
    }
}

fn all_seen_as(seen: &Seen, way: &Way) -> Result<()> {
    seen.none_failed()?;
    ensure!(seen.backends.keys().eq(["server"]), "{:?}", seen.backends);
    let wanted = way.seen_as.as_ref().is_none_or(|address| seen.clients.keys().eq([address]));
    ensure!(wanted, "seen as {:?}, not as {:?}", seen.clients.keys(), way.seen_as);
    Ok(())
}

#[test]
fn everybody_who_reaches_the_node_reaches_the_pod_and_is_seen_as_who_they_are() {
    for way in peers().ways() {
        let Way { from, to, .. } = &way;
        let told = || format!("{from} -> {to}:{PORT}");
        let seen = from.connect(to, PORT, 10).and_then(|seen| all_seen_as(&seen, &way));
        seen.with_context(told).unwrap();
        for connected in [true, false] {
            let seen = from.udp(to, PORT, 5, connected).and_then(|seen| all_seen_as(&seen, &way));
            seen.with_context(|| format!("{}, UDP, connected {connected}", told())).unwrap();
        }
    }
}

#[test]
fn policy_judges_clients_of_a_host_port_by_their_own_addresses() {
    let peers = peers();
    let outside = Client::outside(shared());
    let open_to = |cidr: &str| {
        peers.workload.let_in("from", "guarded", &[json!({"ipBlock": {"cidr": cidr}})]).unwrap();
    };
    open_to(&format!("{}/32", outside.address));
    peers
        .workload
        .apply(vec![with_ports("guarded", &peers.nodes[0], &[("TCP", PORT + 1, ECHO_PORT)])])
        .unwrap();
    peers.workload.wait_ready("guarded").unwrap();
    let to = peers.node(0).address;
    let (near, far) = (peers.workload.client("near").unwrap(), peers.node(1));
    let passes = |from: &Client<'_>| from.try_connect(&to, PORT + 1).unwrap().failed == 0;
    assert!(passes(&outside) && passes(&peers.node(0)));
    assert!(!passes(&near) && !passes(&far));
    open_to(&format!("{}/32", far.address));
    wait_until("the other policy is in force", Duration::from_secs(5), || {
        ensure!(!passes(&outside) && passes(&far), "not yet");
        Ok(())
    })
    .unwrap();
    assert!(!passes(&near));
    peers.workload.delete("networkpolicy", "from").unwrap();
    peers.workload.delete("pod", "guarded").unwrap();
}

#[test]
fn a_port_goes_with_its_pod_and_the_next_pod_gets_it() {
    let peers = peers();
    let (outside, to) = (Client::outside(shared()), peers.node(0).address);
    for name in ["one", "two"] {
        peers
            .workload
            .apply(vec![with_ports(name, &peers.nodes[0], &[("TCP", PORT + 2, ECHO_PORT)])])
            .unwrap();
        peers.workload.wait_ready(name).unwrap();
        let seen = outside.connect(&to, PORT + 2, 3).unwrap();
        assert!(seen.backends.keys().eq([name]), "{:?} {:?}", seen.backends, seen.errors);
        peers.workload.delete("pod", name).unwrap();
        assert_eq!(outside.try_connect(&to, PORT + 2).unwrap().refused(), 1, "nobody has it");
    }
}

#[test]
fn a_port_that_cannot_be_forwarded_is_told_in_the_pods_events() {
    let peers = peers();
    peers.workload.apply(vec![with_ports("wrong", &peers.nodes[0], &[("SCTP", PORT, 5000)])]).unwrap();
    let said =
        "pod ports/wrong cannot have its host ports: host port 18070/sctp: only TCP and UDP can be forwarded";
    wait_until("the event", Duration::from_secs(30), || {
        let events =
            peers.workload.kubectl(&["get", "events", "--field-selector", "involvedObject.name=wrong"])?;
        ensure!(events.contains(said), "{events}");
        Ok(())
    })
    .unwrap();
    peers.workload.delete("pod", "wrong").unwrap();
}
