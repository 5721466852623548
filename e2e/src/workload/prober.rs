//! Probers: traffic that goes on in a pod while things break. They are started and stopped through the containerd of the
//! pod's node, since the API server may be what breaks.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Workload;
use super::client::{PROGRAM, Seen, Streams, Transfer, at, parse};
use super::sandbox::Sandbox;
use crate::{Cluster, http, process};

/// Longer than any test; a prober is stopped.
const SECONDS: &str = "1200";

/// A pod in which probers run.
pub struct Prober<'a> {
    cluster: &'a Cluster,
    namespace: String,
    pub pod: String,
    pub node: String,
    container: String,
    /// Its address, as text.
    pub address: String,
}

/// What numbered datagrams came to.
#[derive(Debug, Deserialize)]
pub struct Numbers {
    pub sent: u64,
    /// Numbers that came back.
    pub arrived: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// Datagrams that a full socket of the sender dropped, so the network did not lose them.
    pub overflowed: u64,
    pub longest_gap_ms: f64,
    pub errors: Vec<String>,
}

/// What tries of a flow that must never work came to.
#[derive(Debug, Deserialize)]
pub struct Forbidden {
    /// Tries over TCP.
    pub connects: u64,
    /// Those that worked.
    pub connected: u64,
    /// Tries over UDP.
    pub datagrams: u64,
    /// Those that were answered.
    pub answered: u64,
}

/// How questions to DNS are asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// `fresh`: each from a socket of its own, which is connected; `kept`: all from one that is not; `connected`: all from one that is, and
    /// another after a question that was lost.
    pub socket: &'static str,
    /// So many at a time.
    pub threads: u32,
    /// Between the beginnings of two questions of a thread.
    pub interval_us: u32,
    /// A question that is waited for so long is lost.
    pub timeout_ms: u32,
}

impl Default for Asked {
    fn default() -> Self {
        Self { socket: "fresh", threads: 1, interval_us: 500, timeout_ms: 2000 }
    }
}

/// What questions to DNS came to.
#[derive(Debug, Default, Deserialize)]
pub struct Names {
    pub asked: u64,
    /// With the address that was expected.
    pub answered: u64,
    /// Without a reply in time, or with an error of the socket.
    pub lost: u64,
    pub servfail: u64,
    /// With another address, or none.
    pub wrong: u64,
    /// Sockets that were opened anew after a question was lost.
    pub reconnects: u64,
    pub longest_ms: f64,
    /// Without an answer, of one thread.
    pub longest_gap_ms: f64,
    /// Replies that are errors, but for SERVFAIL.
    pub codes: BTreeMap<String, u64>,
    pub errors: BTreeMap<String, u64>,
}

/// What a server got from one client, since the server started.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Received {
    pub connections: u64,
    pub datagrams: u64,
    /// Datagrams of all clients that the server's full socket dropped.
    pub overflowed: u64,
}

/// Traffic that goes on until it is told to end.
pub struct Probe<T> {
    child: Child,
    stop: Command,
    result: PhantomData<T>,
}

impl<T: DeserializeOwned> Probe<T> {
    /// Ends the traffic and returns what it came to.
    ///
    /// # Errors
    /// The prober broke off, or its container did.
    pub fn end(mut self) -> Result<T> {
        process::run(&mut self.stop)?;
        parse(&self.child.wait_with_output()?)
    }

    /// Fails where the traffic has ended by itself.
    ///
    /// # Errors
    /// It has.
    pub fn goes_on(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("a prober ended by itself: {status}"),
        }
    }
}

impl<'a> Prober<'a> {
    /// The pod of this name, which runs.
    pub(super) fn new(workload: &Workload<'a>, pod: &str) -> Result<Self> {
        let path = "jsonpath={.spec.nodeName} {.status.podIP} {.status.containerStatuses[0].containerID}";
        let text = workload.kubectl(&["get", "pod", pod, "-o", path])?;
        let mut words = text.split_ascii_whitespace();
        let (Some(node), Some(address), Some(container)) = (words.next(), words.next(), words.next()) else {
            anyhow::bail!("pod {pod} does not run: {text}");
        };
        Ok(Self {
            cluster: workload.cluster,
            namespace: workload.namespace.clone(),
            pod: pod.into(),
            node: node.into(),
            container: container.trim_start_matches("containerd://").into(),
            address: address.into(),
        })
    }

    /// The pod's sandbox, as it is now.
    pub fn sandbox(&self) -> Result<Sandbox<'a>> {
        Sandbox::of(self.cluster, &self.node, &self.namespace, &self.pod)
    }

    /// Long-lived connections that exchange numbers, each 100 a second.
    pub fn streams(&self, to: &str, port: u16, count: u32) -> Result<Probe<Streams>> {
        self.start(&["stream", "--to", &at(to, port), "--streams", &count.to_string(), "--stall", "15000"])
    }

    /// Numbered datagrams, 1000 a second.
    pub fn numbers(&self, to: &str, port: u16) -> Result<Probe<Numbers>> {
        self.start(&["numbers", "--to", &at(to, port)])
    }

    /// Questions for a name whose address must be `expected`.
    pub fn names(&self, name: &str, expected: &str, asked: Asked) -> Result<Probe<Names>> {
        let Asked { socket, threads, interval_us, timeout_ms } = asked;
        let numbers = [threads, interval_us, timeout_ms].map(|number| number.to_string());
        let [threads, interval, timeout] = &numbers;
        let name = ["names", name, "--expect", expected, "--socket", socket];
        let how = ["--threads", threads, "--interval-us", interval, "--timeout", timeout];
        self.start(&[name, how].concat())
    }

    /// One connection full of large segments in both directions, about 3 MB a second.
    pub fn transfer(&self, to: &str, port: u16) -> Result<Probe<Transfer>> {
        self.start(&["transfer", "--to", &at(to, port), "--bytes", "1000000000000", "--pause", "10"])
    }

    /// New connections, about 100 a second.
    pub fn connects(&self, to: &str, port: u16) -> Result<Probe<Seen>> {
        self.start(&["connect", "--to", &at(to, port), "--pause", "10"])
    }

    /// So many connections, one after the other.
    pub fn connect(&self, to: &str, port: u16, count: u32) -> Result<Seen> {
        let mut command = self.exec();
        command.args([PROGRAM, "connect", "--to", &at(to, port), "--count", &count.to_string()]);
        parse(&command.output()?)
    }

    /// A flow that must never work, over TCP and UDP.
    pub fn forbidden(&self, to: &str, port: u16) -> Result<Probe<Forbidden>> {
        self.start(&["forbidden", "--to", &at(to, port)])
    }

    /// What the server in this pod got from a client. Its own node asks, whatever policies say: `ctr` may lose what a program writes that
    /// ends at once, for it gives up pipes that it has not opened by then.
    pub fn received(&self, client: &str) -> Result<Received> {
        let server = SocketAddr::new(self.address.parse()?, super::HTTP_PORT);
        let path = format!("/received/{client}");
        let text = http::get_from(self.cluster, &self.node, server, &path)?;
        serde_json::from_str(&text).with_context(|| format!("{path} of {}: {text:?}", self.pod))
    }

    fn start<T>(&self, arguments: &[&str]) -> Result<Probe<T>> {
        let stop = format!("/tmp/stop-{}", number());
        let mut command = self.exec();
        command.arg(PROGRAM).args(arguments).args(["--seconds", SECONDS, "--stop", &stop]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().with_context(|| process::describe(&command))?;
        let mut command = self.exec();
        command.args(["/bin/touch", &stop]);
        Ok(Probe { child, stop: command, result: PhantomData })
    }

    /// A command in the pod's container, to be completed.
    fn exec(&self) -> Command {
        let mut command = self.cluster.node_command(&self.node).expect("a pod is on a node of the cluster");
        let id = format!("prober-{}", number());
        command.args(["ctr", "-n", "k8s.io", "tasks", "exec", "--exec-id", &id, &self.container]);
        command
    }
}

/// A number that no other process of these tests has.
fn number() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
