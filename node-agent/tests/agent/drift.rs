//! What somebody takes from the node's network while the agent runs is back within a second, and nothing else is written.

use std::{
    fs::{self, File},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use futures::StreamExt;
use netkeel_agent::{
    agent::Change,
    node::NodeWatch,
    run,
    status::{Part, Report},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, block_in_place},
};
use tokio_util::sync::CancellationToken;

use super::{
    lab::{Lab, ip, isolated, run as program},
    nodes_of, up,
};

/// An agent that runs by itself, as the program does.
pub(crate) struct Running {
    pub(crate) changes: futures::channel::mpsc::UnboundedSender<Change>,
    pub(crate) reports: watch::Receiver<Report>,
    /// What CNI calls know.
    node: NodeWatch,
    stop: CancellationToken,
    agent: JoinHandle<()>,
    _server: TcpListener,
}

impl Running {
    pub(crate) fn start(lab: &Lab) -> Self {
        let (agent, server) = up(lab);
        let (changes, events) = futures::channel::mpsc::unbounded();
        let (reports, node, stop) = (agent.reports(), agent.node(), CancellationToken::new());
        let agent = tokio::spawn(run::work(agent, events.boxed(), stop.clone()));
        let running = Self { changes, reports, node, stop, agent, _server: server };
        running.settle();
        running
    }

    pub(crate) fn report(&self) -> Report {
        self.reports.borrow().clone()
    }

    /// Waits until the agent has done all that its start led to: only a notice can repair anything then.
    fn settle(&self) {
        thread::sleep(Duration::from_millis(1500));
        assert!(self.report().problems.is_empty(), "{:?}", self.report());
    }

    pub(crate) fn end(self) {
        self.stop.cancel();
        block_in_place(|| tokio::runtime::Handle::current().block_on(self.agent)).expect("the agent ends");
    }
}

/// Waits for something that must happen within a second.
pub(crate) fn within_a_second(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(1), "{what} took more than a second");
        thread::sleep(Duration::from_millis(5));
    }
}

/// All that Netkeel made, shown with its index or handle where it has one: shown alike, it is the same one.
fn made() -> Vec<(&'static str, String)> {
    let show = |line: &str| {
        Command::new("ip")
            .args(line.split(' '))
            .output()
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default()
    };
    let table = Command::new("nft").args(["-a", "list", "table", "inet", "netkeel"]).output();
    vec![
        ("device", show("-o link show netkeel.vxlan")),
        ("address", show("-o -4 addr show dev netkeel.vxlan")),
        ("route to node 2", show("route show 10.244.2.0/26")),
        ("route to node 3", show("route show 10.244.3.0/26")),
        ("own block", show("route show 10.244.1.0/26")),
        (
            "table",
            table.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default(),
        ),
    ]
}

/// What the kernel tells of writes while something is repaired.
struct Heard {
    route: Child,
    table: Child,
}

impl Heard {
    fn begin() -> Self {
        let listen = |program: &str, arguments: &[&str], file: &str| {
            let file = File::create(file).expect("a file");
            Command::new(program)
                .args(arguments)
                .stdout(file)
                .stderr(Stdio::null())
                .spawn()
                .expect("it is installed")
        };
        let heard = Self {
            route: listen("ip", &["-o", "monitor", "link", "address", "route"], "/mnt/heard-route"),
            table: listen("nft", &["monitor"], "/mnt/heard-table"),
        };
        // A change of nobody's shows that both listen.
        Self::mark("begin");
        heard
    }

    /// Makes a change of nobody's and waits until both have told it: all that came before has been told then.
    fn mark(name: &str) {
        ip(&format!("link add {name} type veth peer name {name}-peer"));
        program("nft", &["add", "table", "ip", name]);
        let told = |file: &str| fs::read_to_string(file).is_ok_and(|text| text.contains(name));
        let start = Instant::now();
        while !(told("/mnt/heard-route") && told("/mnt/heard-table")) {
            assert!(start.elapsed() < Duration::from_secs(5), "the monitors do not hear");
            ip(&format!("link del {name}"));
            program("nft", &["delete", "table", "ip", name]);
            thread::sleep(Duration::from_millis(20));
            ip(&format!("link add {name} type veth peer name {name}-peer"));
            program("nft", &["add", "table", "ip", name]);
        }
        ip(&format!("link del {name}"));
        program("nft", &["delete", "table", "ip", name]);
    }

    /// Lines about things of ours.
    fn end(mut self) -> Vec<String> {
        Self::mark("end");
        for child in [&mut self.route, &mut self.table] {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
        let read = |file: &str| fs::read_to_string(file).expect("the file");
        let all = read("/mnt/heard-route") + &read("/mnt/heard-table");
        let ours = |line: &&str| line.contains("10.244.") || line.contains("netkeel");
        all.lines().filter(ours).map(str::to_owned).collect()
    }
}

/// Takes something away, and checks that it is back within a second and that only writes that concern it were made.
fn taken(what: &str, take: impl FnOnce(), same: &[&str], concerns: impl Fn(&str) -> bool) {
    let before = made();
    let heard = Heard::begin();
    take();
    let is = |name: &str| same.contains(&name);
    let start = Instant::now();
    loop {
        let now = made();
        let whole = |now: &(&str, String), before: &(&str, String)| {
            if is(now.0) { now == before } else { !now.1.is_empty() }
        };
        if now.iter().zip(&before).all(|(now, before)| whole(now, before)) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(1), "{what} took more than a second: {now:#?}");
    }
    // Our own writes lead to one more look, which must find nothing to write.
    thread::sleep(Duration::from_millis(700));
    let lines = heard.end();
    let others: Vec<_> = lines.iter().filter(|line| !concerns(line)).collect();
    assert!(others.is_empty(), "{what}: written besides: {others:?}");
    for ((name, now), (_, before)) in made().iter().zip(&before).filter(|(now, _)| is(now.0)) {
        assert_eq!(now, before, "{what}: {name}");
    }
}

const ALL: [&str; 6] = ["device", "address", "route to node 2", "route to node 3", "own block", "table"];

fn all_but(changed: &[&str]) -> Vec<&'static str> {
    ALL.into_iter().filter(|name| !changed.contains(name)).collect()
}

#[test]
fn each_thing_that_somebody_takes_alone_is_back_within_a_second_and_the_others_are_not_written() {
    isolated(|lab| {
        let mut running = Running::start(lab);
        running.changes.start_send(nodes_of(&[1, 2, 3])).expect("the agent listens");
        within_a_second("node 3", || ip("route show").contains("10.244.3.0/26"));
        thread::sleep(Duration::from_millis(700));

        taken(
            "a route to a node",
            || drop(ip("route del 10.244.2.0/26")),
            &ALL,
            |line| line.contains("10.244.2.0/26"),
        );
        taken(
            "the own block's route",
            || drop(ip("route del unreachable 10.244.1.0/26")),
            &ALL,
            |line| line.contains("10.244.1.0/26"),
        );
        let table = || drop(program("nft", &["delete", "table", "inet", "netkeel"]));
        taken("the table", table, &all_but(&["table"]), |line| !line.contains("10.244.2.0/26 dev"));
        let rule = || drop(program("nft", &["flush", "chain", "inet", "netkeel", "postrouting"]));
        taken("the rules of a chain", rule, &all_but(&["table"]), |line| !line.contains("10.244.2.0/26 dev"));
        let of_device = |line: &str| {
            line.contains("dev netkeel.vxlan")
                || line.contains("netkeel.vxlan:")
                || line.contains(": netkeel.vxlan")
                || line.contains("10.244.1.0")
        };
        let address = || drop(ip("addr del 10.244.1.0/32 dev netkeel.vxlan"));
        taken("the overlay's address", address, &all_but(&["address"]), of_device);
        let down = || drop(ip("link set netkeel.vxlan down"));
        taken("the overlay's state", down, &ALL, of_device);
        let mtu = || drop(ip("link set netkeel.vxlan mtu 1300"));
        taken("the overlay's MTU", mtu, &ALL, of_device);
        let device = || drop(ip("link del netkeel.vxlan"));
        taken("the device", device, &["table", "own block"], of_device);
        assert!(running.report().problems.is_empty(), "{:?}", running.report());
        running.end();
    });
}

#[test]
fn a_settled_node_is_not_looked_at_again_because_of_our_own_writes() {
    isolated(|lab| {
        let (agent, _server) = up(lab);
        let alarm = agent.alarm();
        let (tell, told) = mpsc::channel();
        let monitor = netkeel_agent::monitor::Monitor::open().expect("a socket");
        tokio::spawn(monitor.run(alarm.clone()));
        tokio::spawn(async move {
            loop {
                alarm.network.notified().await;
                let _ = tell.send(());
            }
        });
        let mut agent = agent;
        let mut look = |patience| {
            let stirred = block_in_place(|| told.recv_timeout(patience)).is_ok();
            if stirred {
                agent.network_stirred();
                block_in_place(|| agent.work(Instant::now()));
            }
            stirred
        };
        assert!(look(Duration::from_secs(2)), "the first look is at the start");
        ip("link del netkeel.vxlan");
        let mut looks = 0;
        while look(Duration::from_millis(1500)) {
            looks += 1;
            assert!(looks < 5, "it goes on for ever");
        }
        assert!((1..5).contains(&looks) && ip("route show").contains("10.244.2.0/26"), "{looks}");
        super::stop(agent);
    });
}

#[test]
fn a_node_address_that_goes_is_told_at_once_and_healed_when_it_is_back() {
    isolated(|lab| {
        let running = Running::start(lab);
        ip("addr del 192.0.2.1/24 dev uplink");
        let told = || running.report().problems.get(&Part::Network).cloned();
        within_a_second("the word about the address", || {
            told().is_some_and(|problem| problem.reason == "NodeAddressMissing")
        });
        let problem = told().expect("it was there");
        assert!(
            problem.message.contains("192.0.2.1") && problem.message.contains("InternalIP"),
            "{}",
            problem.message
        );
        ip("addr add 192.0.2.1/24 dev uplink");
        within_a_second("the network", || running.report().problems.is_empty());
        running.end();
    });
}

#[test]
fn the_nodes_mtu_is_followed_from_the_interface_with_its_address_alone() {
    isolated(|lab| {
        ip("link add vpn mtu 1280 type veth peer name vpn-peer");
        ip("addr add 100.64.0.1/10 dev vpn");
        ip("link set vpn up");
        let mut running = Running::start(lab);
        let is = |running: &Running, mtu: u16| {
            let facts = running.report().datapath.map(|facts| facts.mtu);
            let pods = running.node.borrow().as_ref().map(|node| node.mtu);
            let device = ip("link show netkeel.vxlan").contains(&format!("mtu {mtu} "));
            facts == Some(mtu) && pods == Some(mtu.into()) && device
        };
        assert!(is(&running, 1450));
        ip("link set uplink mtu 1400");
        within_a_second("the smaller MTU, of new pods too", || is(&running, 1350));
        ip("link set vpn mtu 1200");
        ip("link set uplink mtu 1500");
        within_a_second("the larger MTU", || is(&running, 1450));

        let mut fixed = super::node(1, "Active");
        fixed.spec.config.mtu = 1500;
        let change = Change::Node(netkeel_client::Event::Apply(fixed));
        running.changes.start_send(change).expect("the agent listens");
        let told = || running.report().notes.concat();
        within_a_second("the word about an MTU that does not fit", || {
            told().contains("do not fit into uplink")
        });
        assert!(running.report().problems.is_empty(), "smaller packets pass: {:?}", running.report());
        ip("link set uplink mtu 1600");
        within_a_second("room for it", || told().is_empty());
        running.end();
    });
}

#[test]
fn a_change_of_the_nodes_address_is_followed() {
    isolated(|lab| {
        let mut running = Running::start(lab);
        ip("link add second type veth peer name second-peer");
        ip("addr add 198.51.100.1/24 dev second");
        ip("link set second mtu 1400 up");
        let mut moved = super::node(1, "Active");
        moved.spec.node_addresses = vec!["198.51.100.1".parse().expect("an address")];
        moved.spec.revision = "r2".to_owned();
        let change = Change::Node(netkeel_client::Event::Apply(moved));
        running.changes.start_send(change).expect("the agent listens");
        within_a_second("the new address", || {
            running.report().revision.as_deref() == Some("r2")
                && ip("link show netkeel.vxlan").contains("02:6e:c6:33:64:01")
        });
        assert!(ip("link show netkeel.vxlan").contains("mtu 1350"), "{}", ip("link show netkeel.vxlan"));
        running.end();
    });
}

#[test]
fn settings_that_somebody_changes_are_back_within_a_second_and_a_fight_over_one_is_told() {
    isolated(|lab| {
        let running = Running::start(lab);
        let file = |path: &str| format!("/proc/sys/net/ipv4/{path}");
        let change = |path: &str, value: &str, wanted: &str| {
            fs::write(file(path), value).expect("a setting");
            within_a_second(path, || {
                fs::read_to_string(file(path)).is_ok_and(|found| found.trim() == wanted)
            });
        };
        change("ip_forward", "0", "1");
        change("conf/uplink/forwarding", "0", "1");
        change("conf/netkeel.vxlan/forwarding", "0", "1");
        let told = || running.report().notes.concat();
        assert_eq!(told(), "", "each was changed once");
        for _ in 0..3 {
            change("conf/netkeel.vxlan/rp_filter", "1", "2");
        }
        let note = "net.ipv4.conf.netkeel.vxlan.rp_filter is set to 1 by another program again and again";
        within_a_second("the word about it", || told().contains(note));
        assert!(running.report().problems.is_empty(), "pods have their network: {:?}", running.report());
        running.end();
    });
}

#[test]
fn settings_that_cannot_be_written_are_told_with_what_to_do() {
    isolated(|lab| {
        program("mount", &["-o", "remount,bind,ro", "/mnt/host/proc/sys/net"]);
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("the node does not forward");
        lab.mount_bpffs();
        let mut agent = lab.agent();
        let report = super::feed(&mut agent, [super::nodes("Active")]);
        let problem = &report.problems[&Part::Network];
        assert_eq!(problem.reason, "SettingsFailed");
        assert!(problem.message.contains("mount the host's /proc/sys/net writable"), "{}", problem.message);
        program("mount", &["-o", "remount,bind,rw", "/mnt/host/proc/sys/net"]);
        let report = super::work(&mut agent, Duration::from_secs(2));
        assert!(!report.problems.contains_key(&Part::Network), "{report:?}");
        super::stop(agent);
    });
}
