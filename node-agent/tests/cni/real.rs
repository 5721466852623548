//! The same over the real kernel programs: pods reach each other past the host's stack, nobody borrows an address,
//! and what the agent pins goes with the pod.
#![expect(clippy::unwrap_used, reason = "a failure of the fixture is a failure of the test")]

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use netkeel_agent::{
    cni::kernel::KernelDatapath,
    policy::{Known, Programmer, Wanted, maps::Maps},
};
use netkeel_core::{
    name::ObjectName,
    policy::{Isolation, Rules, Table as Side},
};
use netkeel_dataplane_loader::{
    Datapath, Options, Table,
    common::{
        Reason,
        policies::{CLOSED, FIRST_TABLE, OPEN},
    },
    find_cgroup2, netns_cookie,
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use super::host::{Host, Pod, address, eventually};

/// A BPF file system and a cgroup of the test's own, in a mount namespace that only this thread and its children see.
pub(crate) struct Kernel {
    options: Options,
}

impl Kernel {
    pub(crate) fn new(name: &str) -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let bpffs = PathBuf::from(format!("/tmp/nkt-bpf-{}-{name}", std::process::id()));
        fs::create_dir(&bpffs).unwrap();
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        let root = find_cgroup2(Path::new("/sys/fs/cgroup")).unwrap();
        let cgroup = root.join(format!("nkt-cni-{}-{name}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        Self { options: Options { bpffs, cgroup } }
    }

    pub(crate) fn load(&self) -> Arc<Datapath> {
        Arc::new(Datapath::load(&self.options).unwrap())
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = umount2(&self.options.bpffs, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.options.bpffs);
        let _ = fs::remove_dir(&self.options.cgroup);
    }
}

fn dropped(datapath: &Datapath, reason: Reason) -> u64 {
    datapath.counters().unwrap().into_iter().find(|(other, _)| *other == reason).map_or(0, |(_, count)| count)
}

/// A host over the programs, whose pods no policy isolates.
pub(crate) fn use_datapath(host: &mut Host, datapath: &Arc<Datapath>) {
    with_policy(host, datapath, Some(Side::Open));
}

/// The same, with this ingress of the pod that the runtime names, or without any knowledge of it.
fn with_policy(host: &mut Host, datapath: &Arc<Datapath>, ingress: Option<Side>) -> Arc<Programmer> {
    let programmer = Arc::new(Programmer::restore(Maps::of(datapath).unwrap(), Arc::default()).unwrap());
    say(&programmer, ingress);
    let netns = host.namespace.enter(netns_cookie).unwrap();
    host.real = Some(Arc::new(KernelDatapath::new(datapath.clone(), programmer.clone(), netns)));
    programmer
}

fn say(programmer: &Programmer, ingress: Option<Side>) {
    let known = |ingress| {
        let isolation = Isolation { ingress, egress: Side::Open };
        (ObjectName::new("shop", "cart-0"), Known { uid: "".into(), isolation })
    };
    let (identities, cidrs) = (HashMap::new(), HashMap::new());
    let pods = ingress.map(known).into_iter().collect();
    programmer.program(&Wanted { identities: &identities, cidrs: &cidrs, pods: &pods, complete: true });
}

#[test]
fn pods_talk_through_the_programs_and_keep_talking_while_the_agent_is_replaced() {
    let kernel = Kernel::new("talk");
    let datapath = kernel.load();
    let mut host = Host::new("10.244.0.0/26");
    use_datapath(&mut host, &datapath);
    host.start();
    let (client, server) = (Pod::new("client"), Pod::new("server"));
    let client_address = address(&host.add(&client).ok());
    let server_address = address(&host.add(&server).ok());
    assert_eq!(datapath.endpoints().unwrap().dump().unwrap().len(), 2);
    let listener = server.namespace.enter(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    let mut out = client.namespace.enter(|| TcpStream::connect((server_address.as_str(), 80))).unwrap();
    let (mut back, from) = listener.accept().unwrap();
    assert_eq!(from.ip().to_string(), client_address);
    let mut talk = || {
        out.write_all(&vec![7; 100_000]).unwrap();
        back.read_exact(&mut vec![0; 100_000]).unwrap();
    };
    talk();
    let forwarded = || host.namespace.run("cat", &["/proc/net/snmp"]).unwrap();
    let counter =
        |text: &str| text.lines().nth(1).and_then(|line| line.split(' ').nth(6)?.parse::<u64>().ok());
    let before = counter(&forwarded());
    talk();
    assert_eq!(counter(&forwarded()), before, "the host's stack forwards nothing between its pods");
    host.kill();
    drop(datapath);
    talk();
    let datapath = kernel.load();
    use_datapath(&mut host, &datapath);
    host.start();
    host.check(&client).ok();
    talk();
}

#[test]
fn a_pod_cannot_borrow_an_address() {
    let kernel = Kernel::new("borrow");
    let datapath = kernel.load();
    let mut host = Host::new("10.244.0.0/26");
    use_datapath(&mut host, &datapath);
    host.start();
    let (thief, victim) = (Pod::new("thief"), Pod::new("victim"));
    host.add(&thief).ok();
    let victim_address = address(&host.add(&victim).ok());
    thief.namespace.ip("addr add 10.244.0.60/32 dev eth0").unwrap();
    let open = victim.namespace.enter(|| UdpSocket::bind("0.0.0.0:53")).unwrap();
    open.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let send = |source: &str| {
        let socket = thief.namespace.enter(|| UdpSocket::bind((source, 0))).unwrap();
        thief.namespace.enter(|| socket.send_to(b"x", (victim_address.as_str(), 53))).unwrap();
        open.recv_from(&mut [0; 9]).is_ok()
    };
    assert!(send("10.244.0.1"), "its own address passes");
    let before = dropped(&datapath, Reason::SpoofedSource);
    assert!(!send("10.244.0.60"));
    assert!(dropped(&datapath, Reason::SpoofedSource) > before);
}

#[test]
fn tables_go_with_the_pod() {
    let kernel = Kernel::new("gone");
    let datapath = kernel.load();
    let mut host = Host::new("10.244.0.0/26");
    use_datapath(&mut host, &datapath);
    host.start();
    let pods: Vec<_> = (0..3).map(|n| Pod::new(format!("pod-{n}"))).collect();
    for pod in &pods {
        host.add(pod).ok();
    }
    host.del(&pods[0]).ok();
    let tables = || {
        (datapath.endpoints().unwrap().dump().unwrap().len(), datapath.links().unwrap().dump().unwrap().len())
    };
    assert_eq!(tables(), (2, 2), "at once");
    eventually("removal of the link", || host.links().len() == 2);
    host.stop();
    // The runtime removes the second pod while the agent is away, and the third one's DEL never comes.
    host.del(&pods[1]).ok();
    drop(pods);
    eventually("the end of the namespaces", || host.links().is_empty());
    host.start();
    eventually("the collection of tables", || tables() == (0, 0));
}

#[test]
fn a_pods_tables_stand_before_add_returns_and_a_replaced_agent_changes_none_of_them() {
    let kernel = Kernel::new("policy");
    let datapath = kernel.load();
    let mut host = Host::new("10.244.0.0/26");
    let nobody = || Some(Side::Rules(Arc::new(Rules::new())));
    with_policy(&mut host, &datapath, nobody());
    host.start();
    let pod = Pod::new("a");
    host.add(&pod).ok();
    let sides = || {
        let endpoints = datapath.endpoints().unwrap().dump().unwrap();
        let links = datapath.links().unwrap().dump().unwrap();
        (endpoints.values().next().unwrap().ingress, links.values().next().unwrap().egress)
    };
    let before = sides();
    assert!(before.0 >= FIRST_TABLE && before.1 == OPEN, "{before:?}");
    host.kill();
    let programmer = with_policy(&mut host, &datapath, None);
    host.start();
    host.check(&pod).ok();
    assert_eq!(sides(), before, "nothing is known of the pod yet");
    say(&programmer, Some(Side::Open));
    assert_eq!(sides(), (OPEN, OPEN));
}

#[test]
fn a_pod_that_nobody_knows_is_added_closed_and_gets_its_tables_when_it_is_known() {
    let kernel = Kernel::new("closed");
    let datapath = kernel.load();
    let mut host = Host::new("10.244.0.0/26");
    let programmer = with_policy(&mut host, &datapath, None);
    host.start();
    let pod = Pod::new("a");
    let before = Instant::now();
    host.add(&pod).ok();
    let waited = before.elapsed();
    assert!(waited > Duration::from_secs(2) && waited < Duration::from_secs(4), "{waited:?}");
    let ingress = || datapath.endpoints().unwrap().dump().unwrap().values().next().unwrap().ingress;
    assert_eq!(ingress(), CLOSED);
    say(&programmer, Some(Side::Open));
    assert_eq!(ingress(), OPEN);
}

#[test]
fn programs_that_somebody_takes_from_a_pods_link_are_back_within_a_second() {
    let kernel = Kernel::new("taken");
    let datapath = kernel.load();
    let mut host = Host::new("10.244.0.0/26");
    use_datapath(&mut host, &datapath);
    host.watches = true;
    host.start();
    let pod = Pod::new("a");
    let link = host.add(&pod).ok()["interfaces"][0]["name"].as_str().unwrap().to_owned();
    host.check(&pod).ok();
    for what in [["qdisc", "del", "dev", &link, "clsact"], ["filter", "del", "dev", &link, "ingress"]] {
        host.namespace.run("tc", &what).unwrap();
        let taken = Instant::now();
        while !host.check(&pod).success {
            assert!(taken.elapsed() < Duration::from_secs(1), "{what:?}");
        }
        let shown = host.namespace.run("tc", &["filter", "show", "dev", &link, "ingress"]).unwrap();
        assert!(shown.contains("from_pod"), "{what:?}: {shown}");
    }
}
