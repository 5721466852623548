//! A place of its own for each test: a child process with new network and mount namespaces, a BPF file
//! system, and a cgroup below the machine's cgroup2 root.

use std::{
    any,
    collections::HashMap,
    env,
    fs::{self, File},
    io, mem,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    panic,
    path::{Path, PathBuf},
    process::{self, Command},
    thread,
    time::{Duration, Instant},
};

use netkeel_dataplane_loader::{
    Datapath, Options, Table,
    common::{
        Address, Protocol, Reason,
        backends::{Backend, Slot},
        services::{Frontend, Service},
    },
    find_cgroup2,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

/// Names the cgroup of a child process, and says that it is one.
const CHILD: &str = "NETKEEL_LAB_CGROUP";

/// What a test gets.
pub(crate) struct Lab {
    pub(crate) options: Options,
}

/// Runs the test that this is called from in a process of its own, and fails as that one does.
pub(crate) fn isolated<F: FnOnce(&Lab)>(test: F) {
    let name = any::type_name::<F>();
    let name = name.trim_start_matches("kernel::").trim_end_matches("::{{closure}}");
    match env::var_os(CHILD) {
        Some(cgroup) => test(&Lab::enter(PathBuf::from(cgroup))),
        None => in_child(name),
    }
}

fn in_child(name: &str) {
    let root = find_cgroup2("/sys/fs/cgroup".as_ref()).expect("these tests need a cgroup2 hierarchy");
    let cgroup = root.join(format!("nkt-{}-{}", process::id(), name.replace("::", "-")));
    fs::create_dir_all(&cgroup).expect("these tests need root");
    let output = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, &cgroup)
        .output()
        .unwrap();
    let removed = fs::remove_dir(&cgroup);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}{err}", output.status);
    removed.expect("a test ends all its processes");
}

impl Lab {
    fn enter(cgroup: PathBuf) -> Self {
        fs::write(cgroup.join("cgroup.procs"), "0").expect("join the test's cgroup");
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("new namespaces");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
        mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), none).expect("a folder");
        ip("link set lo up");
        Self { options: Options { bpffs: bpffs("/mnt/bpf"), cgroup } }
    }

    /// The options of another node: the same cgroup, pins of its own.
    pub(crate) fn other_node(&self) -> Options {
        Options { bpffs: bpffs("/mnt/other"), cgroup: self.options.cgroup.clone() }
    }

    /// Loads the programs.
    pub(crate) fn load(&self) -> Datapath {
        Datapath::load(&self.options).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }
}

/// A new BPF file system.
fn bpffs(path: &str) -> PathBuf {
    fs::create_dir(path).unwrap();
    mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), None::<&str>).expect("a BPF file system");
    PathBuf::from(path)
}

/// An error with everything that caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Runs `ip` with these arguments in the namespace of this thread.
pub(crate) fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().expect("iproute2");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until a device of this thread's namespace sends. The end of a veth pair that is brought up first gets its
/// queue from the kernel's link watcher, some time after the other end is up; until then it drops everything.
pub(crate) fn wait_until_up(device: &str) {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let output =
            Command::new("ip").args(["-o", "link", "show", "dev", device]).output().expect("iproute2");
        let state = String::from_utf8_lossy(&output.stdout).into_owned();
        if state.contains(" state UP ") {
            break;
        }
        assert!(Instant::now() < until, "{device} does not come up: {state}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The index of a device in the namespace of this thread.
pub(crate) fn ifindex(device: &str) -> u32 {
    nix::net::if_::if_nametoindex(device).unwrap_or_else(|error| panic!("{device}: {error}"))
}

/// From now on what is sent over this device of this thread's namespace has its checksums filled in, and a receiver
/// believes none that is wrong.
pub(crate) fn with_checksums(device: &str) {
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    const SET_TX_CHECKSUMS: u32 = 0x17;
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    let mut value = Value { command: SET_TX_CHECKSUMS, data: 0 };
    // SAFETY: integers and a union of them: all zero is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // SAFETY: request and value outlive the call and have the form that `ethtool.h` gives them.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    assert_eq!(done, 0, "{device}: {}", io::Error::last_os_error());
}

/// Sends a frame, as it is, over a device of this thread's namespace.
pub(crate) fn send_frame(device: &str, frame: &[u8]) {
    // SAFETY: takes three numbers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
    assert!(socket >= 0, "{device}: {}", io::Error::last_os_error());
    // SAFETY: made just now, for nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: integers: all zero is a value.
    let mut to: libc::sockaddr_ll = unsafe { mem::zeroed() };
    to.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
    to.sll_ifindex = ifindex(device).cast_signed();
    let (to, size) = ((&raw const to).cast(), u32::try_from(mem::size_of_val(&to)).unwrap());
    // SAFETY: frame and address outlive the call, of the sizes that are said.
    let sent = unsafe { libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, to, size) };
    assert!(sent >= 0, "{device}: {}", io::Error::last_os_error());
}

/// Sets a number of a socket.
pub(crate) fn set_option(socket: &impl AsRawFd, (level, name): (i32, i32), value: i32) {
    let size = u32::try_from(mem::size_of_val(&value)).unwrap();
    // SAFETY: the value outlives the call, of the size that is said.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    assert_eq!(set, 0, "option {name}: {}", io::Error::last_os_error());
}

/// Reads a number of a socket.
pub(crate) fn option(socket: &impl AsRawFd, (level, name): (i32, i32)) -> i32 {
    let (mut value, mut size) = (0, u32::try_from(mem::size_of::<i32>()).unwrap());
    // SAFETY: value and size outlive the call.
    let read =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut size) };
    assert_eq!(read, 0, "option {name}: {}", io::Error::last_os_error());
    value
}

/// Puts a service with these backends, in slots from 0, into the tables.
pub(crate) fn serve(
    datapath: &Datapath,
    id: u32,
    frontend: Frontend,
    to: &[(impl Into<Address> + Copy, u16)],
) {
    let mut backends = datapath.backends().unwrap();
    for (slot, (address, port)) in (0..).zip(to) {
        backends.put(&Slot { service: id, slot }, &Backend::new((*address).into(), *port)).unwrap();
    }
    let count = u32::try_from(to.len()).unwrap();
    datapath.services().unwrap().put(&frontend, &Service { id, count }).unwrap();
}

/// The frontend of a service.
pub(crate) fn frontend(address: impl Into<Address>, port: u16, protocol: Protocol) -> Frontend {
    Frontend::new(address.into(), port, protocol)
}

/// What was counted, without the zeros.
pub(crate) fn counted(datapath: &Datapath) -> HashMap<Reason, u64> {
    datapath.counters().unwrap().into_iter().filter(|(_, count)| *count > 0).collect()
}

/// Another network namespace. It goes, with its devices, when this is dropped and no process is in it.
pub(crate) struct Netns(File);

impl Netns {
    /// A new one, with its loopback device up.
    pub(crate) fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(made.join().unwrap())
    }

    /// A path that `ip link set … netns` takes.
    pub(crate) fn path(&self) -> String {
        let path = format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd());
        assert!(Path::new(&path).exists());
        path
    }

    /// Runs `task` in it.
    pub(crate) fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            let entered = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                task()
            });
            entered.join()
        });
        result.unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    }
}
