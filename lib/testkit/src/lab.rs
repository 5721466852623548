//! Network namespaces for tests. They have no name and no mount: they live as long as a descriptor or a link holds
//! them, so nothing is left behind, however the test ends. Needs root.

use std::{
    fs::{self, File},
    io,
    net::Ipv4Addr,
    os::fd::AsRawFd,
    path::PathBuf,
    process::Command,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

/// One network namespace of the test's own.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// A new, empty namespace with `lo` up.
    ///
    /// # Errors
    /// Without the right to make one (root).
    pub fn new() -> io::Result<Self> {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let namespace = Self { file: made.join().map_err(|_| io::Error::other("the thread panicked"))?? };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// A path that opens this namespace in any process, while this value lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// Runs `work` on a thread inside the namespace; threads and processes that it starts are inside as well.
    ///
    /// # Panics
    /// When the namespace cannot be entered, or with the panic of `work`.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).expect("root enters its own namespace");
            work()
        };
        let outcome = thread::scope(|scope| scope.spawn(inside).join());
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts `work` on a thread of its own inside the namespace, for servers.
    ///
    /// # Panics
    /// When the descriptor cannot be copied; the thread panics when the namespace cannot be entered.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let file = self.file.try_clone().expect("a descriptor can be copied");
        thread::spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).expect("root enters its own namespace");
            drop(file);
            work()
        })
    }

    /// Runs a program inside and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be started or fails; the text carries what it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> io::Result<String> {
        let output = self.enter(|| Command::new(program).args(arguments).output())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(io::Error::other(format!("{program} {}: {text}{said}", arguments.join(" "))))
    }

    /// Runs iproute2's `ip` with the words of `line`.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn ip(&self, line: &str) -> io::Result<String> {
        self.run("ip", &line.split_whitespace().collect::<Vec<_>>())
    }

    /// Sets `/proc/sys/net/<key>` inside.
    ///
    /// # Errors
    /// When there is no such key or value.
    pub fn sysctl(&self, key: &str, value: &str) -> io::Result<()> {
        self.enter(|| fs::write(PathBuf::from("/proc/sys/net").join(key), value))
    }

    /// Names of the links inside, `lo` left out.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn links(&self) -> io::Result<Vec<String>> {
        let text = self.ip("-o link show")?;
        let name = |line: &str| {
            line.split(": ").nth(1).map(|name| name.split('@').next().unwrap_or(name).to_owned())
        };
        Ok(text.lines().filter_map(name).filter(|name| name != "lo").collect())
    }
}

/// Joins two namespaces by a veth pair, both ends up, with an address and prefix length each.
///
/// # Errors
/// What `ip` said.
pub fn join(a: (&Namespace, &str, Ipv4Addr), b: (&Namespace, &str, Ipv4Addr), prefix: u8) -> io::Result<()> {
    let peer = b.0.path();
    a.0.ip(&format!("link add {} type veth peer name {} netns {}", a.1, b.1, peer.display()))?;
    for (namespace, link, address) in [a, b] {
        namespace.ip(&format!("addr add {address}/{prefix} dev {link}"))?;
        namespace.ip(&format!("link set {link} up"))?;
    }
    Ok(())
}
