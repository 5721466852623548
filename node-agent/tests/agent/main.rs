//! The agent over the real kernel, fed with events: start, restart, drift, trouble, and the way back.

mod disk;
mod dns;
mod drift;
mod lab;
mod ways;

use std::{
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use netkeel_agent::{
    agent::{Agent, Change, PolicyChange},
    status::{Part, Report},
};
use netkeel_client::{Event, Undecodable};
use netkeel_crds::NodeNetwork;
use netkeel_index::SeenSlice;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use lab::{Lab, NODE, ip, isolated, run};

const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const CONFIGURATION: &str = "/mnt/host/etc/cni/net.d/05-netkeel.conflist";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

fn node(number: u8, state: &str) -> NodeNetwork {
    let object = json!({"apiVersion": "netkeel.io/v1alpha1", "kind": "NodeNetwork",
        "metadata": {"name": format!("node-{number}")},
        "spec": {"nodeAddresses": [format!("192.0.2.{number}")], "blocks": [format!("10.244.{number}.0/26")],
            "revision": "r1", "state": state, "config": {"podCIDRs": ["10.244.0.0/16"], "vxlanPort": 8472, "mtu": 0,
            "masquerade": {"enabled": true, "excludedCIDRs": []}}}});
    serde_json::from_value(object).expect("a NodeNetwork")
}

/// These nodes, all of them active.
fn nodes_of(numbers: &[u8]) -> Change {
    let objects = numbers.iter().map(|number| node(*number, "Active")).collect();
    Change::Node(Event::Reset { objects, undecodable: vec![] })
}

fn nodes(state: &str) -> Change {
    Change::Node(Event::Reset { objects: vec![node(1, state), node(2, "Active")], undecodable: vec![] })
}

fn services() -> Change {
    let object = json!({"metadata": {"namespace": "shop", "name": "cart"}, "spec": {"clusterIP": CLUSTER_IP,
        "clusterIPs": [CLUSTER_IP], "ports": [{"port": 80}]}});
    let objects = vec![serde_json::from_value(object).expect("a Service")];
    Change::Service(Event::Reset { objects, undecodable: vec![] })
}

fn slice(port: u16, addresses: &[Ipv4Addr]) -> Value {
    let endpoints: Vec<Value> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    json!({"metadata": {"namespace": "shop", "name": "cart-1", "labels": {"kubernetes.io/service-name": "cart"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": port}], "endpoints": endpoints})
}

fn slices(port: u16, addresses: &[Ipv4Addr]) -> Change {
    let object = serde_json::from_value(slice(port, addresses)).expect("a slice");
    let objects = vec![SeenSlice::read(&object, "node-1")];
    Change::Slice(Event::Reset { objects, undecodable: vec![] })
}

/// No pods, one namespace, and one policy.
fn policies() -> [Change; 3] {
    let namespace = serde_json::from_value(json!({"metadata": {"name": "shop"}})).expect("a Namespace");
    let policy = json!({"metadata": {"namespace": "shop", "name": "web", "uid": "u", "generation": 1},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": "web"}]}]}});
    let policy = serde_json::from_value(policy).expect("a NetworkPolicy");
    [
        Change::Policy(PolicyChange::Pod(Event::Reset { objects: vec![], undecodable: vec![] })),
        Change::Policy(PolicyChange::Namespace(Event::Reset {
            objects: vec![namespace],
            undecodable: vec![],
        })),
        Change::Policy(PolicyChange::Policy(Event::Reset { objects: vec![policy], undecodable: vec![] })),
    ]
}

/// Works until the CNI server has found the pods of an earlier agent: policy waits for that.
fn until_policed(agent: &mut Agent) -> Report {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let report = work(agent, Duration::ZERO);
        if report.policy.is_some() || Instant::now() > deadline {
            return report;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn work(agent: &mut Agent, after: Duration) -> Report {
    block_in_place(|| agent.work(Instant::now() + after));
    agent.reports().borrow().clone()
}

fn feed(agent: &mut Agent, changes: impl IntoIterator<Item = Change>) -> Report {
    changes.into_iter().for_each(|change| agent.take(change));
    work(agent, Duration::ZERO)
}

/// Whether pods may be added.
fn ready(agent: &Agent) -> bool {
    agent.node().borrow().as_ref().expect("the node is known").ready
}

fn stop(mut agent: Agent) {
    block_in_place(|| tokio::runtime::Handle::current().block_on(agent.stop()));
}

/// Whether the node forwards packets, as its kernel says it.
fn forwarding() -> String {
    fs::read_to_string(FORWARDING).expect("a setting")
}

/// Connects through the Service from this process, whose cgroup is the node's.
fn connect() -> std::io::Result<TcpStream> {
    block_in_place(|| TcpStream::connect_timeout(&(CLUSTER_IP, 80).into(), Duration::from_secs(2)))
}

/// Names of all links, which become up at their own pace.
fn links() -> Vec<String> {
    let shown = ip("-br link show");
    shown.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// A node that is up, with the Service's one endpoint.
fn up(lab: &Lab) -> (Agent, TcpListener) {
    lab.mount_bpffs();
    let server = TcpListener::bind((NODE, 0)).expect("a port");
    let port = server.local_addr().expect("its port").port();
    let mut agent = lab.agent();
    let changes = [nodes("Active"), services(), slices(port, &[NODE])];
    let report = feed(&mut agent, changes.into_iter().chain(policies()));
    assert_eq!(report.problems.into_iter().collect::<Vec<_>>(), []);
    (agent, server)
}

#[test]
fn everything_stands_before_the_runtime_may_call() {
    isolated(|lab| {
        lab.mount_bpffs();
        let mut agent = lab.agent();
        let report = work(&mut agent, Duration::ZERO);
        assert_eq!(report.problems[&Part::NodeNetwork].reason, "Waiting");
        let report = feed(&mut agent, [nodes("Active")]);
        assert_eq!(report.revision.as_deref(), Some("r1"));
        assert_eq!(report.problems[&Part::Install].reason, "Starting");
        assert!(!Path::new(CONFIGURATION).exists(), "Services are not known yet");
        assert!(!ready(&agent), "nor would a pod find any, whatever configuration an earlier agent left");

        let report = feed(&mut agent, [services(), slices(80, &[])]);
        assert_eq!(report.problems[&Part::Install].reason, "Starting", "policies are not known yet");
        assert!(!Path::new(CONFIGURATION).exists());

        let report = feed(&mut agent, policies());
        assert!(report.problems.is_empty() && ready(&agent), "{report:?}");
        assert!(Path::new(CONFIGURATION).exists() && Path::new("/mnt/host/opt/cni/bin/netkeel-cni").exists());
        let facts = report.datapath.expect("facts");
        assert_eq!(facts.mtu, 1450);
        assert_eq!(facts.vxlan.expect("the overlay").address, Some(Ipv4Addr::new(10, 244, 1, 0).into()));
        assert!(facts.programs.contains(&"connect4".to_owned()), "{:?}", facts.programs);
        assert!(
            ip("route show").contains("10.244.2.0/26 dev netkeel.vxlan proto 110 scope link src 10.244.1.0")
        );
        assert!(
            run("nft", &["list", "table", "inet", "netkeel"])
                .contains("masquerade to :8473-65535 fully-random")
        );
        stop(agent);
    });
}

#[test]
fn a_cluster_ip_connects_follows_its_endpoints_and_refuses_without_any() {
    isolated(|lab| {
        let (mut agent, server) = up(lab);
        assert_eq!(connect().expect("the endpoint").peer_addr().expect("its name"), (CLUSTER_IP, 80).into());
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = other.local_addr().expect("its port").port();
        feed(&mut agent, [slices(port, &[Ipv4Addr::LOCALHOST])]);
        drop(server);
        connect().expect("the new endpoint");
        feed(&mut agent, [slices(port, &[])]);
        assert_eq!(connect().expect_err("no endpoint").kind(), ErrorKind::ConnectionRefused);
        stop(agent);
    });
}

#[test]
fn a_restart_without_the_api_server_knows_its_node_and_services_go_on() {
    isolated(|lab| {
        let (agent, _server) = up(lab);
        stop(agent);
        connect().expect("nobody needs an agent");
        let index = fs::read_to_string("/sys/class/net/netkeel.vxlan/ifindex").ok();

        let mut again = lab.agent();
        let report = work(&mut again, Duration::ZERO);
        assert_eq!(report.revision.as_deref(), Some("r1"), "known from disk: {report:?}");
        assert_eq!(report.problems[&Part::Install].reason, "Starting");
        connect().expect("the service is still there");
        assert!(ready(&again), "pods may be added with the Services that the kernel has");
        assert!(Path::new("/mnt/run/agent.sock").exists());
        assert_eq!(
            fs::read_to_string("/sys/class/net/netkeel.vxlan/ifindex").ok(),
            index,
            "the device is the same"
        );
        stop(again);
    });
}

#[test]
fn drift_is_repaired_at_the_next_look() {
    isolated(|lab| {
        let (mut agent, _server) = up(lab);
        ip("link del netkeel.vxlan");
        run("nft", &["delete", "table", "inet", "netkeel"]);
        let report = work(&mut agent, Duration::from_secs(31));
        assert!(report.problems.is_empty(), "{report:?}");
        assert!(ip("route show").contains("10.244.2.0/26 dev netkeel.vxlan"));
        assert!(run("nft", &["list", "tables"]).contains("inet netkeel"));
        stop(agent);
    });
}

#[test]
fn trouble_is_named_and_healed() {
    isolated(|lab| {
        let mut agent = lab.agent();
        let changes = [nodes("Active"), services(), slices(80, &[])];
        let report = feed(&mut agent, changes.into_iter().chain(policies()));
        let problem = &report.problems[&Part::Datapath];
        assert_eq!(problem.reason, "NoBpffs");
        assert!(problem.message.contains("mount -t bpf bpf /mnt/bpf"), "{}", problem.message);

        lab.mount_bpffs();
        ip("link add flannel.1 type vxlan id 1 dstport 8472 dev uplink");
        fs::create_dir_all("/mnt/host/etc/cni/net.d").expect("a folder");
        fs::write("/mnt/host/etc/cni/net.d/00-other.conflist", "{}").expect("a file");
        let report = work(&mut agent, Duration::from_secs(2));
        assert_eq!(report.problems[&Part::Network].reason, "OverlayConflict");
        ip("link del flannel.1");
        let report = work(&mut agent, Duration::from_secs(5));
        assert_eq!(report.problems[&Part::Install].reason, "RivalConfiguration");
        assert!(!Path::new(CONFIGURATION).exists());
        fs::remove_file("/mnt/host/etc/cni/net.d/00-other.conflist").expect("it is there");
        let report = work(&mut agent, Duration::from_secs(10));
        assert!(report.problems.is_empty(), "{report:?}");
        stop(agent);
    });
}

#[test]
fn an_object_that_cannot_be_read_is_named_and_stops_nothing() {
    isolated(|lab| {
        let (mut agent, _server) = up(lab);
        let broken = |name: &str| Undecodable {
            namespace: Some("shop".to_owned()),
            name: name.to_owned(),
            error: "spec.ports: not a list".to_owned(),
        };
        let report = feed(
            &mut agent,
            [
                Change::Service(Event::Undecodable(broken("cart"))),
                Change::Slice(Event::Undecodable(broken("cart-1"))),
            ],
        );
        assert!(report.problems.is_empty(), "{report:?}");
        assert_eq!(report.notes[0], "EndpointSlice shop/cart-1 is ignored: spec.ports: not a list");
        connect().expect("what was known stays in force");
        stop(agent);
    });
}

#[test]
fn what_a_policy_asks_for_in_vain_is_named_and_kept_over_a_restart_without_the_api_server() {
    isolated(|lab| {
        let (mut agent, _server) = up(lab);
        let report = until_policed(&mut agent);
        let policy = report.policy.expect("policy is looked at");
        assert_eq!((policy.good, policy.reason), (false, "Unsupported"));
        assert!(
            policy.message.contains("shop/web") && policy.message.contains("spec.ingress[0].ports[0].port")
        );
        let complaints = agent.complaints().borrow().clone();
        let complaint = complaints.first().expect("one for the policy's author");
        assert_eq!((&*complaint.uid, complaint.generation, complaints.len()), ("u", 1, 1));
        work(&mut agent, Duration::from_secs(2));
        stop(agent);
        let mut again = lab.agent();
        work(&mut again, Duration::ZERO);
        let report = until_policed(&mut again);
        assert_eq!(report.policy.expect("known from disk").reason, "Unsupported");
        stop(again);
    });
}

#[test]
fn removal_leaves_the_node_as_it_was() {
    isolated(|lab| {
        fs::write(FORWARDING, "0").expect("the node does not forward");
        let before = (links(), ip("route show"), run("nft", &["list", "ruleset"]), forwarding());
        let (mut agent, _server) = up(lab);
        assert_eq!(forwarding(), "1\n");
        ip("link add nk0123456789ab type veth peer name pod");
        let report = feed(&mut agent, [nodes("Removing")]);
        assert!(report.removed, "{report:?}");
        let after = (links(), ip("route show"), run("nft", &["list", "ruleset"]), forwarding());
        assert_eq!(after, before);
        assert!(!Path::new("/mnt/bpf/netkeel").exists());
        for folder in ["/mnt/run", "/mnt/state", "/mnt/host/etc/cni/net.d", "/mnt/host/opt/cni/bin"] {
            let left: Vec<_> = fs::read_dir(folder).expect("the folder stays").collect();
            assert!(left.is_empty(), "{folder}: {left:?}");
        }
        assert!(!agent.is_wanted_again());
        feed(&mut agent, [nodes("Active")]);
        assert!(
            agent.is_wanted_again() && !Path::new(CONFIGURATION).exists(),
            "only a new process starts over"
        );
    });
}

#[test]
fn removal_waits_for_a_call_that_is_under_way() {
    isolated(|lab| {
        let (mut agent, _server) = up(lab);
        // A plugin that has connected and not yet said what it wants: the agent waits for it longer than for its own end.
        let call = UnixStream::connect("/mnt/run/agent.sock").expect("the agent listens");
        thread::sleep(Duration::from_millis(500));
        let report = feed(&mut agent, [nodes("Removing")]);
        assert_eq!(report.problems[&Part::Cleanup].reason, "CallsUnderWay", "{report:?}");
        assert!(!report.removed && Path::new("/mnt/bpf/netkeel").exists(), "the call may still need it");
        drop(call);
        let removed = (1..20).any(|seconds| {
            thread::sleep(Duration::from_millis(50));
            work(&mut agent, Duration::from_secs(seconds * 30)).removed
        });
        assert!(removed && !Path::new("/mnt/bpf/netkeel").exists());
    });
}
