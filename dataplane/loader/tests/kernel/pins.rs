//! Pins: loading again replaces in place, and removing removes everything.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use netkeel_dataplane_loader::{
    Changes, Datapath, Options, Table, TableError,
    common::{
        Address, Config, Protocol,
        endpoints::{self, Endpoint},
        policies::OPEN,
        tunnels::{Block, Tunnel},
    },
    converge, pinned_links, probe, remove,
};

use crate::lab::{Lab, chain, frontend, ifindex, ip, isolated, serve};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// Ids of the link and the program of every pin.
fn links(lab: &Lab) -> HashMap<String, (u32, u32)> {
    let pins = pinned_links(&lab.options.bpffs).unwrap();
    pins.into_iter().map(|pin| (pin.name, (pin.link, pin.program))).collect()
}

/// A connection to a service whose backend sends back what it gets.
fn conversation() -> (u16, impl FnOnce() -> TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() {
            stream.write_all(&byte).unwrap();
        }
    });
    (port, || TcpStream::connect((SERVICE, 80)).unwrap())
}

fn say(stream: &mut TcpStream, byte: u8) {
    stream.write_all(&[byte]).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [byte]);
}

#[test]
fn loading_again_replaces_programs_in_their_links_and_keeps_maps_and_connections() {
    isolated(|lab| {
        let first = lab.load();
        let (port, connect) = conversation();
        serve(&first, 1, frontend(SERVICE, 80, Protocol::Tcp), &[(Ipv4Addr::LOCALHOST, port)]);
        let mut stream = connect();
        say(&mut stream, 1);
        let before = links(lab);
        drop(first);

        let second = lab.load();
        say(&mut stream, 2);
        let after = links(lab);
        assert_eq!(before.len(), 8);
        for (pin, (link, program)) in &before {
            assert_eq!(&after[pin].0, link, "{pin} is another link");
            assert_ne!(&after[pin].1, program, "{pin} has the old program");
        }
        let services = second.services().unwrap().dump().unwrap();
        assert_eq!(services.len(), 1);
        assert!(TcpStream::connect((SERVICE, 80)).is_ok());
    });
}

#[test]
fn removing_detaches_everything_and_leaves_nothing() {
    isolated(|lab| {
        let datapath = lab.load();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        serve(&datapath, 1, frontend(SERVICE, 80, Protocol::Tcp), &[(Ipv4Addr::LOCALHOST, port)]);
        TcpStream::connect((SERVICE, 80)).unwrap();
        drop(datapath);
        remove(&lab.options.bpffs).unwrap();
        assert!(!lab.options.bpffs.join("netkeel").exists());
        let until = Instant::now() + Duration::from_secs(5);
        let error = loop {
            match TcpStream::connect((SERVICE, 80)) {
                Err(error) => break error,
                Ok(_) => assert!(Instant::now() < until, "the hooks still run"),
            }
            thread::sleep(Duration::from_millis(10)); // the kernel lets go of a link some time after its pin
        };
        assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
        remove(&lab.options.bpffs).unwrap();
    });
}

/// The ids of the programs that filter what comes from a device.
fn filters(device: &str) -> Vec<String> {
    let shown =
        Command::new("tc").args(["filter", "show", "dev", device, "ingress"]).output().expect("iproute2");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    shown.lines().filter_map(|line| line.split_once(" id ")).map(|(_, rest)| rest.to_owned()).collect()
}

#[test]
fn the_program_of_a_pod_is_replaced_in_place_and_goes_with_its_device() {
    isolated(|lab| {
        let datapath = lab.load();
        ip("link add nk0 type veth peer name p0");
        assert!(!datapath.pod_attached(ifindex("nk0")).unwrap());
        datapath.attach_pod(ifindex("nk0"), "nk0").unwrap();
        assert!(datapath.pod_attached(ifindex("nk0")).unwrap());
        let before = filters("nk0");
        drop(datapath);
        assert_eq!(filters("nk0"), before, "the program outlives its loader");
        let datapath = lab.load();
        datapath.attach_pod(ifindex("nk0"), "nk0").unwrap();
        let after = filters("nk0");
        assert_eq!((before.len(), after.len()), (1, 1), "{before:?} {after:?}");
        assert_ne!(before, after, "the old program is still there");
        let removed = Command::new("tc").args(["filter", "del", "dev", "nk0", "egress"]).status().unwrap();
        assert!(removed.success());
        assert!(!datapath.pod_attached(ifindex("nk0")).unwrap(), "half is not attached");
        ip("link del nk0");
        ip("link add nk0 type veth peer name p0");
        assert!(!datapath.pod_attached(ifindex("nk0")).unwrap(), "another device of that name");
    });
}

#[test]
fn a_refused_attach_names_program_and_device() {
    isolated(|lab| {
        let error = lab.load().attach_pod(4242, "nk0").unwrap_err();
        assert!(chain(&error).starts_with("attach from_pod to nk0: No such device"), "{}", chain(&error));
    });
}

#[test]
fn what_is_missing_is_named_before_anything_is_touched() {
    isolated(|lab| {
        assert!(probe(&lab.options).unwrap().kernel.starts_with(char::is_numeric));
        let no_bpffs = Options { bpffs: "/mnt".into(), ..lab.options.clone() };
        assert_eq!(
            probe(&no_bpffs).unwrap_err().to_string(),
            "no BPF file system at /mnt: run `mount -t bpf bpf /mnt`"
        );
        let no_cgroup = Options { cgroup: "/mnt".into(), ..lab.options.clone() };
        assert!(probe(&no_cgroup).unwrap_err().to_string().starts_with("no cgroup2 hierarchy at /mnt"));
        assert!(Datapath::load(&no_bpffs).is_err());
        assert!(!Path::new("/mnt/netkeel").exists());
    });
}

#[test]
fn tables_hold_what_was_written() {
    isolated(|lab| {
        let datapath = lab.load();
        let mut tunnels = datapath.tunnels().unwrap();
        let want: HashMap<Block, Tunnel> = (0..=255)
            .map(|third| {
                let node = Address::v4([172, 18, 0, third]);
                (Block::new(Ipv4Addr::new(10, 244, third, 0), 24), Tunnel::to(node))
            })
            .collect();
        assert_eq!(converge(&mut tunnels, &want).unwrap(), Changes { written: 256, removed: 0 });
        assert_eq!(tunnels.dump().unwrap(), want);
        let pod = Block::single(Address::v4([10, 244, 7, 9]));
        assert_eq!(tunnels.get(&pod).unwrap().unwrap().node, Address::v4([172, 18, 0, 7]));
        assert_eq!(converge(&mut tunnels, &HashMap::new()).unwrap(), Changes { written: 0, removed: 256 });
        assert!(tunnels.dump().unwrap().is_empty());
        assert_eq!(tunnels.get(&pod).unwrap(), None);
        tunnels.remove(&pod).unwrap();
    });
}

#[test]
fn a_full_table_says_so_and_big_ones_are_read_whole() {
    isolated(|lab| {
        let datapath = lab.load();
        let mut pods = datapath.endpoints().unwrap();
        let endpoint = Endpoint::new(1, OPEN);
        let address = |number: u32| Address::v4(number.to_be_bytes());
        for number in 0..endpoints::MAX {
            pods.put(&address(number), &endpoint).unwrap();
        }
        assert_eq!(pods.dump().unwrap().len(), endpoints::MAX as usize);
        let error = pods.put(&address(endpoints::MAX), &endpoint).unwrap_err();
        assert!(
            matches!(error, TableError::Full { table: "ENDPOINTS", capacity: endpoints::MAX }),
            "{error}"
        );
        pods.put(&address(0), &endpoint).unwrap();
    });
}

#[test]
fn the_memory_of_all_maps_is_known_and_small_when_they_are_empty() {
    isolated(|lab| {
        let datapath = lab.load();
        datapath.set_config(&Config::new(&[Address::v4([172, 18, 0, 1])], 7)).unwrap();
        let bytes = datapath.map_bytes().unwrap();
        assert_eq!(bytes.len(), 16);
        let tries = ["TUNNELS", "CIDRS", "POLICIES"]; // they have no table of buckets
        assert!(bytes.iter().all(|(name, bytes)| *bytes > 0 || tries.contains(name)), "{bytes:?}");
        let sum: u64 = bytes.iter().map(|(_, bytes)| bytes).sum();
        assert!(sum < 96 << 20, "{bytes:?}");
    });
}

#[test]
fn a_cgroup_of_another_place_gets_links_of_its_own() {
    isolated(|lab| {
        drop(lab.load());
        let before = links(lab);
        let inner = lab.options.cgroup.join("inner");
        fs::create_dir(&inner).unwrap();
        assert_ne!(fs::metadata(&inner).unwrap().ino(), fs::metadata(&lab.options.cgroup).unwrap().ino());
        drop(Datapath::load(&Options { cgroup: inner.clone(), ..lab.options.clone() }).unwrap());
        let after = links(lab);
        assert!(before.iter().all(|(pin, (link, _))| after[pin].0 != *link));
        fs::remove_dir(inner).unwrap();
    });
}
