//! An agent that is away, comes back, or died between two steps.
#![expect(clippy::unwrap_used, reason = "a failure of the fixture is a failure of the test")]

use std::{
    collections::HashMap,
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use netkeel_agent::{
    cni::{
        datapath::{Error, FakeDatapath, PodDatapath, PodLink},
        heartbeat,
    },
    ipam::since_boot,
    policy::{Entered, PodRef},
};
use netkeel_core::address::Address;
use netkeel_dataplane_loader::common::{backends::Backend, host_ports::HostPort};

use super::host::{Host, Pod, address, eventually, ready};

fn journal(host: &Host) -> usize {
    fs::read_dir(host.folder.path().join("journal")).map_or(0, Iterator::count)
}

#[test]
fn a_del_without_agent_is_made_up_for_before_the_next_agent_serves() {
    let mut host = Host::started("10.244.0.0/26");
    let (gone, stays) = (Pod::new("gone"), Pod::new("stays"));
    host.add(&gone).ok();
    host.add(&stays).ok();
    host.stop();
    host.del(&gone).ok();
    host.del(&gone).ok();
    assert_eq!(journal(&host), 1);
    drop(gone);
    host.start();
    host.check(&stays).ok();
    assert_eq!(host.pool().usage().used, 1);
    assert_eq!(host.datapath.pods().len(), 1);
    assert_eq!(journal(&host), 0);
}

#[test]
fn a_del_works_with_everything_gone_and_may_be_repeated() {
    let mut host = Host::started("10.244.0.0/26");
    let (pod, stays) = (Pod::new("a"), Pod::new("stays"));
    host.add(&pod).ok();
    host.add(&stays).ok();
    host.kill();
    for left in fs::read_dir(host.folder.path()).unwrap() {
        let path = left.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
    let Pod { namespace, id } = pod;
    drop(namespace);
    eventually("the end of the namespace", || host.links().len() == 1);
    // No agent, no socket, no state, no namespace, no earlier result; and what the runtime does not know is empty.
    for netns in ["/run/netns/gone", ""] {
        let environment = [
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", id.as_str()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", netns),
        ];
        host.plugin(&environment, &host.config().to_string()).ok();
    }
    assert_eq!(journal(&host), 1);
    host.start();
    eventually("the journal's end", || journal(&host) == 0);
    let environment = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", id.as_str()), ("CNI_IFNAME", "eth0")];
    host.plugin(&environment, &host.config().to_string()).ok();
    // Its record is lost, its route is not: the address was nobody else's, and is taken back.
    assert_eq!(host.pool().usage().used, 1);
    host.del(&stays).ok();
    assert_eq!(host.pool().usage().used, 0);
}

#[test]
fn an_add_does_not_fall_to_an_older_del_in_the_journal() {
    let mut host = Host::started("10.244.0.0/26");
    let pod = Pod::new("a");
    host.stop();
    host.del(&pod).ok();
    let entry = host.folder.path().join("journal");
    let saved = fs::read_dir(&entry).unwrap().next().unwrap().unwrap().path();
    let content = fs::read(&saved).unwrap();
    host.start();
    eventually("the journal's end", || journal(&host) == 0);
    fs::write(&saved, content).unwrap();
    host.add(&pod).ok();
    assert_eq!(journal(&host), 0, "the old DEL was done before the ADD");
    host.check(&pod).ok();
}

#[test]
fn an_add_waits_for_an_agent_that_is_restarted() {
    let mut host = Host::started("10.244.0.0/26");
    host.kill();
    let pod = Pod::new("a");
    let netns = pod.namespace.path();
    let environment = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "a"),
        ("CNI_NETNS", netns.to_str().unwrap()),
        ("CNI_IFNAME", "eth0"),
    ];
    let config = host.config().to_string();
    thread::scope(|scope| {
        let (plugin_host, later) = (Host::new("10.244.0.0/26"), Instant::now());
        let call = scope.spawn(move || (plugin_host.plugin(&environment, &config), later.elapsed()));
        thread::sleep(Duration::from_millis(500));
        host.start();
        let (answer, took) = call.join().unwrap();
        answer.ok();
        assert!(took < Duration::from_secs(3), "{took:?}");
    });
    host.check(&pod).ok();
}

#[test]
fn an_add_gives_up_on_an_agent_that_stays_away() {
    let host = Host::new("10.244.0.0/26");
    let start = Instant::now();
    let (code, text) = host.add(&Pod::new("a")).refused();
    assert!(code == 11 && text.contains("agent.sock"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_node_that_is_not_ready_yet_is_waited_for() {
    let host = Host::new("10.244.0.0/26");
    host.node.send_replace(None);
    let mut host = host;
    host.start();
    let pod = Pod::new("a");
    thread::scope(|scope| {
        let call = scope.spawn(|| host.add(&pod));
        thread::sleep(Duration::from_millis(300));
        host.node.send_replace(Some(ready(&["10.244.7.0/26"])));
        assert_eq!(address(&call.join().unwrap().ok()), "10.244.7.1");
    });
}

#[test]
fn status_fails_only_when_the_agent_has_been_away_for_minutes() {
    let mut host = Host::new("10.244.0.0/26");
    let (code, text) = host.status().refused();
    assert!(code == 50 && text.contains("not run since boot"), "{text}");
    host.start();
    host.status().ok();
    eventually("a sign of life", || heartbeat::silence(host.folder.path(), since_boot()).is_some());
    host.kill();
    host.status().ok();
    heartbeat::write(host.folder.path(), since_boot().saturating_sub(Duration::from_secs(181))).unwrap();
    assert_eq!(host.status().refused().0, 50);
}

#[test]
fn pods_of_an_earlier_agent_are_known_to_the_next() {
    let mut host = Host::started("10.244.0.0/26");
    let pods: Vec<_> = (0..3).map(|n| Pod::new(format!("pod-{n}"))).collect();
    let before: Vec<_> = pods.iter().map(|pod| address(&host.add(pod).ok())).collect();
    let tables = host.datapath.pods();
    host.kill();
    host.datapath = Arc::default();
    host.start();
    for (pod, address_before) in pods.iter().zip(&before) {
        host.check(pod).ok();
        assert_eq!(address(&host.add(pod).ok()), *address_before);
    }
    assert_eq!(host.datapath.pods(), tables);
}

#[test]
fn tables_that_could_not_be_restored_are_tried_again() {
    let mut host = Host::started("10.244.0.0/26");
    let pod = Pod::new("a");
    host.add(&pod).ok();
    let tables = host.datapath.pods();
    host.kill();
    host.datapath = Arc::default();
    host.datapath.refuse(true);
    host.start();
    thread::sleep(Duration::from_millis(100));
    assert!(host.datapath.pods().is_empty());
    host.datapath.refuse(false);
    eventually("the pod in the tables", || host.datapath.pods() == tables);
}

/// Tables that lose a pod while they are restored.
#[derive(Default)]
struct Forgetful(Arc<FakeDatapath>);

impl PodDatapath for Forgetful {
    fn await_policy(&self, pod: &PodRef) -> bool {
        self.0.await_policy(pod)
    }

    fn add(&self, pod: &PodLink) -> Result<Entered, Error> {
        self.0.add(pod)
    }

    fn remove(&self, pod_address: Address) -> Result<(), Error> {
        self.0.remove(pod_address)
    }

    fn holds(&self, pod: &PodLink) -> Result<bool, Error> {
        self.0.holds(pod)
    }

    fn netns(&self) -> u64 {
        self.0.netns()
    }

    fn ports(&self) -> Result<HashMap<HostPort, Backend>, Error> {
        self.0.ports()
    }

    fn open_ports(&self, ports: &HashMap<HostPort, Backend>) -> Result<(), Error> {
        self.0.open_ports(ports)
    }

    fn close_ports(&self, ports: &[HostPort]) -> Result<(), Error> {
        self.0.close_ports(ports)
    }

    fn restore(&self, pods: &[PodLink]) -> Result<(), Error> {
        self.0.restore(pods.get(1..).unwrap_or_default())
    }
}

#[test]
fn a_pod_that_the_tables_lack_is_entered_again() {
    let mut host = Host::started("10.244.0.0/26");
    let pods = ["a", "b"].map(Pod::new);
    for pod in &pods {
        host.add(pod).ok();
    }
    let tables = host.datapath.pods();
    host.kill();
    host.datapath = Arc::default();
    host.real = Some(Arc::new(Forgetful(host.datapath.clone())));
    // The first sweep is at the start.
    host.start();
    eventually("both pods in the tables", || host.datapath.pods() == tables);
}

#[test]
fn a_route_that_somebody_took_is_set_anew() {
    let mut host = Host::started("10.244.0.0/26");
    let pod = Pod::new("a");
    host.add(&pod).ok();
    host.kill();
    host.namespace.ip("route del 10.244.0.1").unwrap();
    host.namespace.ip("neigh flush all nud permanent").unwrap();
    // The first sweep is at the start.
    host.start();
    eventually("the repair of the route", || {
        host.namespace.ip("route show 10.244.0.1").unwrap().contains("proto 110")
    });
    host.check(&pod).ok();
}

#[test]
fn an_add_that_died_at_any_step_is_finished_by_its_repetition() {
    let mut host = Host::started("10.244.0.0/26");
    let pod = Pod::new("a");
    let result = host.add(&pod).ok();
    let link = result["interfaces"][0]["name"].as_str().unwrap().to_owned();
    for left in ["address", "link", "link up", "pod without route"] {
        match left {
            "address" => host.namespace.ip(&format!("link del {link}")),
            "link" => host.namespace.ip(&format!("link set {link} down")),
            "link up" => pod.namespace.ip("link set eth0 down"),
            _ => pod.namespace.ip("route flush dev eth0"),
        }
        .unwrap();
        host.kill();
        host.datapath = Arc::default();
        host.start();
        assert_eq!(address(&host.add(&pod).ok()), address(&result), "{left}");
        host.check(&pod).ok();
    }
    assert_eq!(host.links(), [link]);
}

#[test]
fn adds_under_way_while_agents_come_and_go_all_work() {
    let mut host = Host::started("10.244.0.0/26");
    let pods: Vec<_> = (0..12).map(|n| Pod::new(format!("pod-{n}"))).collect();
    for (round, pods) in pods.chunks(4).enumerate() {
        let caller = Host::new("10.244.0.0/26");
        let config = host.config();
        thread::scope(|scope| {
            let calls: Vec<_> =
                pods.iter().map(|pod| scope.spawn(|| caller.call("ADD", pod, &config).ok())).collect();
            thread::sleep(Duration::from_millis(3 * round as u64 + 2));
            host.kill();
            host.start();
            for call in calls {
                call.join().unwrap();
            }
        });
    }
    for pod in &pods {
        host.check(pod).ok();
    }
    assert_eq!(host.pool().usage().used, 12);
    assert_eq!(host.links().len(), 12);
}

/// Says that this process is the agent of another test process, and where its folder is.
const AGENT_OF: &str = "NETKEEL_TEST_AGENT";

#[test]
fn an_agent_killed_at_any_moment_loses_no_address() {
    if let Some(folder) = env::var_os(AGENT_OF) {
        return Host::serve_in(Path::new(&folder));
    }
    let mut host = Host::new("10.244.0.0/26");
    let pods: Vec<_> = (0..16).map(|n| Pod::new(format!("pod-{n}"))).collect();
    for (round, pods) in pods.chunks(4).enumerate() {
        let mut agent = own_process(&host);
        let (host, config) = (&host, host.config());
        thread::scope(|scope| {
            let calls: Vec<_> =
                pods.iter().map(|pod| scope.spawn(|| host.call("ADD", pod, &config).ok())).collect();
            wait_for_first_address(host, 4 * round);
            thread::sleep(Duration::from_micros(700 * round as u64));
            agent.kill().unwrap();
            agent.wait().unwrap();
            agent = own_process(host);
            for call in calls {
                call.join().unwrap();
            }
        });
        agent.kill().unwrap();
        agent.wait().unwrap();
    }
    host.start();
    for pod in &pods {
        host.check(pod).ok();
    }
    let usage = host.pool().usage();
    assert_eq!((usage.used, usage.resting), (16, 0));
    assert_eq!(host.links().len(), 16);
}

/// The agent of `host` as a process that can be killed.
fn own_process(host: &Host) -> Child {
    let name = "restarts::an_agent_killed_at_any_moment_loses_no_address";
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([name, "--exact"]).env(AGENT_OF, host.folder.path()).stdout(Stdio::null());
    host.namespace.enter(|| command.spawn()).unwrap()
}

fn wait_for_first_address(host: &Host, before: usize) {
    let folder = host.folder.path().join("ipam");
    eventually("the first address", || fs::read_dir(&folder).is_ok_and(|files| files.count() > before));
}

#[test]
fn an_address_in_use_is_nobody_elses_when_its_record_is_lost() {
    let mut host = Host::started("10.244.0.0/30");
    let pods: Vec<_> = (0..3).map(|n| Pod::new(format!("pod-{n}"))).collect();
    let first = address(&host.add(&pods[0]).ok());
    host.kill();
    std::fs::remove_dir_all(host.folder.path().join("ipam")).unwrap();
    host.start();
    let others = [&pods[1], &pods[2]].map(|pod| address(&host.add(pod).ok()));
    assert!(!others.contains(&first), "{first} is in {others:?}");
    assert_eq!(host.add(&Pod::new("another")).refused().0, 11);
    assert_eq!(host.pool().usage().used, 3);
}
