//! A node of the test's own: a namespace, a state folder, the agent's CNI server and the real plugin.
#![expect(clippy::unwrap_used, reason = "a failure of the fixture is a failure of the test")]

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use netkeel_agent::{
    cni::{
        self, CniContext,
        datapath::{FakeDatapath, PodDatapath},
    },
    ipam::{Pool, since_boot},
    monitor::{Alarm, Monitor},
    node::NodeState,
};
use netkeel_core::{address::Addresses, ipam};
use netkeel_testkit::lab::Namespace;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    runtime,
    sync::{oneshot, watch},
};
use tokio_util::sync::CancellationToken;

pub(crate) struct Host {
    pub(crate) namespace: Namespace,
    pub(crate) folder: TempDir,
    pub(crate) datapath: Arc<FakeDatapath>,
    /// Takes the fake's place.
    pub(crate) real: Option<Arc<dyn PodDatapath>>,
    pub(crate) node: watch::Sender<Option<Arc<NodeState>>>,
    pub(crate) settings: String,
    /// The agent hears the kernel's notices.
    pub(crate) watches: bool,
    agent: Option<Agent>,
}

struct Agent {
    shutdown: CancellationToken,
    kill: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    pool: Arc<Pool>,
}

/// A sandbox: a namespace and the id that the runtime gave it.
pub(crate) struct Pod {
    pub(crate) namespace: Namespace,
    pub(crate) id: String,
}

/// What the plugin did.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) success: bool,
    pub(crate) output: Value,
}

impl Pod {
    pub(crate) fn new(id: impl Into<String>) -> Self {
        Self { namespace: Namespace::new().unwrap(), id: id.into() }
    }
}

impl Answer {
    pub(crate) fn ok(self) -> Value {
        assert!(self.success, "{}", self.output);
        self.output
    }

    /// The code of the error, with all that was said.
    pub(crate) fn refused(self) -> (u64, String) {
        assert!(!self.success, "it worked: {}", self.output);
        (self.output["code"].as_u64().unwrap(), self.output.to_string())
    }
}

/// The address of a result, without its prefix length.
pub(crate) fn address(result: &Value) -> String {
    result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().to_owned()
}

pub(crate) fn ready(blocks: &[&str]) -> Arc<NodeState> {
    let blocks = blocks.iter().map(|block| block.parse().unwrap()).collect();
    let cidrs = vec!["10.244.0.0/16".parse().unwrap()];
    let pools = vec![ipam::Pool { name: "default".into(), cidrs, ..ipam::Pool::default() }];
    let layout = Arc::new(ipam::Layout { pools, blocks, ..ipam::Layout::default() });
    let addresses = Addresses::default();
    Arc::new(NodeState { ready: true, layout, addresses, mtu: 1450, revision: "1".to_owned() })
}

impl Host {
    /// A node with one block and no agent yet.
    pub(crate) fn new(block: &str) -> Self {
        Self {
            namespace: Namespace::new().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            datapath: Arc::default(),
            real: None,
            node: watch::Sender::new(Some(ready(&[block]))),
            settings: "/proc/sys/net".to_owned(),
            watches: false,
            agent: None,
        }
    }

    /// A node whose agent runs.
    pub(crate) fn started(block: &str) -> Self {
        let mut host = Self::new(block);
        host.start();
        host
    }

    pub(crate) fn start(&mut self) {
        assert!(self.agent.is_none());
        let datapath = self.real.clone().unwrap_or_else(|| self.datapath.clone());
        let context = context(self.folder.path(), &self.settings, &self.node, datapath);
        let (pool, shutdown, (kill, killed)) =
            (context.pool.clone(), CancellationToken::new(), oneshot::channel());
        let (token, socket) = (shutdown.clone(), self.folder.path().join("agent.sock"));
        let (listens, listening) = mpsc::channel();
        let watches = self.watches;
        let thread = self.namespace.spawn(move || run(&socket, context, token, killed, &listens, watches));
        listening.recv().unwrap();
        self.agent = Some(Agent { shutdown, kill, thread, pool });
    }

    /// Is the agent of the host with this folder, in this process and namespace, until it is killed.
    pub(crate) fn serve_in(folder: &Path) {
        let node = watch::Sender::new(Some(ready(&["10.244.0.0/26"])));
        let context = context(folder, "/proc/sys/net", &node, Arc::<FakeDatapath>::default());
        let (_kill, killed) = oneshot::channel();
        run(&folder.join("agent.sock"), context, CancellationToken::new(), killed, &mpsc::channel().0, false);
    }

    /// Ends the agent as SIGTERM does.
    pub(crate) fn stop(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.shutdown.cancel();
        agent.thread.join().unwrap();
    }

    /// Ends the agent without a farewell. What runs on its threads ends first, as threads cannot be killed alone:
    /// deaths between two steps are played by tests that take the later steps back.
    pub(crate) fn kill(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.kill.send(()).unwrap();
        agent.thread.join().unwrap();
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.agent.as_ref().unwrap().pool
    }

    pub(crate) fn config(&self) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "netkeel", "type": "netkeel-cni", "unknown": {"to": "us"},
            "stateDir": self.folder.path(), "dns": {"nameservers": ["10.96.0.10"]},
        })
    }

    /// Runs the plugin as the runtime does, with this environment and standard input.
    pub(crate) fn plugin(&self, environment: &[(&str, &str)], input: &str) -> Answer {
        let output = self.namespace.enter(|| {
            let mut child = Command::new(env!("CARGO_BIN_EXE_netkeel-cni"))
                .env_clear()
                .envs(environment.iter().copied())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            // A plugin that has seen enough may end without reading.
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            child.wait_with_output().unwrap()
        });
        let text = String::from_utf8(output.stdout).unwrap();
        let output_value = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
        Answer { success: output.status.success(), output: output_value }
    }

    pub(crate) fn call(&self, verb: &str, pod: &Pod, config: &Value) -> Answer {
        let netns = pod.namespace.path();
        let environment = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", pod.id.as_str()),
            ("CNI_NETNS", netns.to_str().unwrap()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0"),
        ];
        self.plugin(&environment, &config.to_string())
    }

    pub(crate) fn add(&self, pod: &Pod) -> Answer {
        self.call("ADD", pod, &self.config())
    }

    pub(crate) fn del(&self, pod: &Pod) -> Answer {
        self.call("DEL", pod, &self.config())
    }

    pub(crate) fn check(&self, pod: &Pod) -> Answer {
        self.call("CHECK", pod, &self.config())
    }

    pub(crate) fn status(&self) -> Answer {
        self.plugin(&[("CNI_COMMAND", "STATUS")], &self.config().to_string())
    }

    /// Host sides that exist.
    pub(crate) fn links(&self) -> Vec<String> {
        self.namespace.links().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.agent.is_some() && !std::thread::panicking() {
            self.stop();
        }
    }
}

static AHEAD: AtomicU64 = AtomicU64::new(0);

/// The time of all agents' addresses.
fn clock() -> Duration {
    since_boot() + Duration::from_millis(AHEAD.load(Ordering::Relaxed))
}

/// Lets the rests of addresses pass faster, for all agents.
pub(crate) fn pass(time: Duration) {
    AHEAD.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
}

fn context(
    folder: &Path,
    settings: &str,
    node: &watch::Sender<Option<Arc<NodeState>>>,
    datapath: Arc<dyn PodDatapath>,
) -> CniContext {
    CniContext {
        node_name: "node-1".to_owned(),
        state_folder: folder.to_owned(),
        settings: settings.into(),
        node: node.subscribe(),
        pool: Arc::new(Pool::with_clock(&folder.join("ipam"), clock).unwrap()),
        datapath,
        drift: Alarm::default(),
        fights: Arc::default(),
    }
}

fn run(
    socket: &Path,
    context: CniContext,
    shutdown: CancellationToken,
    killed: oneshot::Receiver<()>,
    listens: &mpsc::Sender<()>,
    watches: bool,
) {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = cni::bind(socket).unwrap();
        if watches {
            tokio::spawn(Monitor::open().unwrap().run(context.drift.clone()));
        }
        // Nobody waits for an agent in a process of its own.
        let _ = listens.send(());
        tokio::select! {
            _ = cni::serve(listener, context, shutdown) => {}
            Ok(()) = killed => {}
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
}

/// Waits until something holds, for things that happen after an answer.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen in 10 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}
