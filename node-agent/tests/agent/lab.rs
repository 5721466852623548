//! A node of its own for each test: a child process with new network, mount and cgroup namespaces, a BPF file system and host folders.

use std::{
    any, env, fs,
    net::Ipv4Addr,
    path::Path,
    process::{self, Command},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use netkeel_agent::{
    agent::{Agent, Surroundings},
    args::Config,
    ipam::Pool,
    metrics::Metrics,
};
use netkeel_dataplane_loader::find_cgroup2;
use netkeel_telemetry::{admin::Health, metrics::Registry};
use nix::mount::{MsFlags, mount};

/// Says that a process is the child of a test.
const CHILD: &str = "NETKEEL_LAB";
/// The node's address on the underlay.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The node of one test.
pub(crate) struct Lab {
    pub(crate) config: Config,
}

/// Runs the test that this is called from in a process of its own, and fails as that one does.
pub(crate) fn isolated<F: FnOnce(&Lab)>(test: F) {
    let name = any::type_name::<F>();
    let name = name.trim_start_matches("agent::").trim_end_matches("::{{closure}}");
    match env::var_os(CHILD) {
        Some(_) => {
            let lab = Lab::enter();
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime = runtime.expect("threads");
            runtime.block_on(async { test(&lab) });
        }
        None => in_child(name),
    }
}

fn in_child(name: &str) {
    let root = find_cgroup2("/sys/fs/cgroup".as_ref()).expect("these tests need a cgroup2 hierarchy");
    let cgroup = root.join(format!("nkt-{}-{}", process::id(), name.replace("::", "-")));
    fs::create_dir_all(&cgroup).expect("these tests need root");
    // The whole process lives in the namespaces, not one of its threads: programs read /proc/self.
    let enter = "echo 0 >\"$1/cgroup.procs\"; shift; exec unshare --mount --net --cgroup -- \"$@\"";
    let output = Command::new("sh")
        .args(["-c", enter, "sh"])
        .arg(&cgroup)
        .arg(env::current_exe().expect("this program"))
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .expect("this program runs again");
    let removed = fs::remove_dir(&cgroup);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}{err}", output.status);
    removed.expect("a test ends all its processes");
}

impl Lab {
    fn enter() -> Self {
        let none = None::<&str>;
        mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), none).expect("a folder");
        for folder in ["bpf", "cgroup", "host/proc/sys/net", "run", "state"] {
            fs::create_dir_all(Path::new("/mnt").join(folder)).expect("a folder");
        }
        mount(Some("cgroup2"), "/mnt/cgroup", Some("cgroup2"), MsFlags::empty(), none)
            .expect("the test's cgroup");
        mount(Some("/proc/sys/net"), "/mnt/host/proc/sys/net", none, MsFlags::MS_BIND, none)
            .expect("settings");
        fs::copy(env!("CARGO_BIN_EXE_netkeel-cni"), "/mnt/plugin").expect("a plugin");
        for line in [
            "link set lo up",
            "link add uplink type veth peer name outside",
            "addr add 192.0.2.1/24 dev uplink",
            "link set uplink up",
            "link set outside up",
        ] {
            ip(line);
        }
        // The end that came up first hears of its peer from the kernel's link watcher, a moment later.
        let start = Instant::now();
        while ip("route show").contains("linkdown") {
            assert!(start.elapsed() < Duration::from_secs(5), "uplink does not come up");
            thread::sleep(Duration::from_millis(2));
        }
        Self { config: config() }
    }

    /// Mounts the BPF file system.
    pub(crate) fn mount_bpffs(&self) {
        netkeel_agent::bpffs::mount_missing(&self.config.bpffs).expect("a BPF file system");
    }

    /// An agent of this node, as a fresh process would make it.
    pub(crate) fn agent(&self) -> Agent {
        let registry = Registry::new("agent", "test");
        Agent::new(Surroundings {
            config: self.config.clone(),
            pool: Arc::new(Pool::open(&self.config.run_folder.join("ipam")).expect("a folder of addresses")),
            metrics: Metrics::new(&registry),
            ready: Health::default().readiness("agent"),
            telemetry: None,
        })
    }
}

fn config() -> Config {
    Config {
        node_name: "node-1".to_owned(),
        api_servers: Vec::new(),
        admin_address: ([127, 0, 0, 1], 0).into(),
        bpffs: "/mnt/bpf".into(),
        cgroup_root: Some("/mnt/cgroup".into()),
        host_prefix: "/mnt/host".into(),
        run_folder: "/mnt/run".into(),
        state_folder: "/mnt/state".into(),
        plugin: "/mnt/plugin".into(),
    }
}

/// Runs iproute2's `ip` here.
pub(crate) fn ip(line: &str) -> String {
    run("ip", &line.split(' ').collect::<Vec<_>>())
}

/// Runs a program here and gives what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program is installed");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {}: {out}{err}", arguments.join(" "));
    out.into_owned()
}
