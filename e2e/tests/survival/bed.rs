//! Where the faults strike: a few pods, a Service, and a policy that lets one client in and nothing out.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netkeel_e2e::workload::{Client, ECHO_PORT, Pod, Prober, Workload, install, node_names};
use netkeel_e2e::{Cluster, IpFamily, wait_until};
use serde_json::{Value, json};

/// Whatever was broken works again within this.
pub(crate) const HEALED: Duration = Duration::from_mins(1);

/// One test's namespace.
pub(crate) struct Bed {
    pub(crate) workload: Workload<'static>,
    /// Address of the Service of pod `server`.
    pub(crate) service: String,
}

impl Bed {
    /// Runs these pods, each on the node of that index, and waits until the policy is in force. `server` and `stranger`
    /// must be among them, and `client`.
    pub(crate) fn new(name: &str, pods: &[(&str, usize)]) -> Result<Self> {
        let workload = Workload::new(cluster(), name)?;
        let nodes = node_names(cluster());
        let pods = pods.iter().map(|(pod, node)| tokenless(pod, &nodes[*node]));
        workload.apply(pods.chain([policy()]).collect())?;
        let service = workload.service("server")?;
        workload.ready()?;
        workload.wait_endpoints("server", 1)?;
        let bed = Self { workload, service };
        bed.enforced("server")?;
        Ok(bed)
    }

    pub(crate) fn prober(&self, pod: &str) -> Result<Prober<'static>> {
        self.workload.prober(pod)
    }

    fn client(&self, pod: &str) -> Result<Client<'static>> {
        self.workload.client(pod)
    }

    /// Waits until `client` reaches a pod and `stranger` does not.
    pub(crate) fn enforced(&self, pod: &str) -> Result<()> {
        let address = self.client(pod)?.address;
        let (client, stranger) = (self.client("client")?, self.client("stranger")?);
        wait_until(&format!("the policy for {pod} is in force"), HEALED, || {
            client.connect(&address, ECHO_PORT, 3)?.none_failed()?;
            client.connect(&self.service, ECHO_PORT, 3)?.none_failed()?;
            let seen = stranger.try_connect(&address, ECHO_PORT)?;
            ensure!(seen.ok == 0, "the stranger gets in: {seen:?}");
            Ok(())
        })
    }
}

/// Without a token the kubelet can make the pod's sandbox again while there is no API server.
fn tokenless(name: &str, node: &str) -> Value {
    let mut pod = Pod::server(name, node).json();
    pod["spec"]["automountServiceAccountToken"] = json!(false);
    pod
}

/// `server` and `phoenix` take the echo port from `client` alone, and may not begin anything.
fn policy() -> Value {
    let echo = |protocol: &str| json!({"protocol": protocol, "port": ECHO_PORT});
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "only-the-client"},
        "spec": {
            "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["server", "phoenix"]}]},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
                "ports": [echo("TCP"), echo("UDP")],
            }],
        },
    })
}

/// Waits until no rollout of Netkeel is under way and the network says that it is available.
pub(crate) fn settled() -> Result<()> {
    for (namespace, owner) in [
        (install::NAMESPACE, "daemonset/netkeel-agent"),
        (install::NAMESPACE, "deployment/netkeel-operator"),
        ("kube-system", "deployment/netkeel-dns"),
    ] {
        cluster().kubectl(&["-n", namespace, "rollout", "status", owner, "--timeout=90s"])?;
    }
    install::wait_available(cluster())
}

/// Ends a program of Netkeel on a node as a crash would; whether one ran.
pub(crate) fn kill(node: &str, program: &str) -> bool {
    let line = format!("kill -KILL $(pidof {program})");
    cluster().node_exec(node, &["sh", "-c", &line]).is_ok()
}

/// The cluster of these tests alone: nobody else's pod may be felt in what the probers count.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| install::installed("survival", IpFamily::Ipv4).expect("a cluster with Netkeel"))
}

/// Numbers without a pattern, the same for the same seed (xorshift64).
pub(crate) struct Random(u64);

impl Random {
    /// From the clock, or from `NETKEEL_E2E_SEED`; printed, so that a run can be had again.
    pub(crate) fn new() -> Self {
        let given = std::env::var("NETKEEL_E2E_SEED").ok().and_then(|text| text.parse().ok());
        let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = given.unwrap_or_else(|| clock().map_or(1, |time| u64::from(time.subsec_nanos()))) | 1;
        println!("NETKEEL_E2E_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn pause(&mut self, longest: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        longest.mul_f64(f64::from(u16::try_from(self.0 >> 48).unwrap_or_default()) / f64::from(u16::MAX))
    }
}

/// Sleeps until so much time has passed since `start`.
pub(crate) fn until(start: Instant, passed: Duration) {
    std::thread::sleep(passed.saturating_sub(start.elapsed()));
}
