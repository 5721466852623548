//! A client of a test: the workload program, run in a pod, as a process of a node, or outside the cluster. It prints one JSON line.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::manifest::{ECHO_PORT, KUBECTL};
use crate::config::addresses::{OUTSIDE, before_port};
use crate::images::LOOKUP;
use crate::{Cluster, process};

pub(super) const PROGRAM: &str = "/netkeel-e2e-peer";

/// Where the workload program is started.
enum Place {
    Pod { namespace: String, name: String },
    Node(String),
    Outside,
}

/// Something that opens connections.
pub struct Client<'a> {
    cluster: &'a Cluster,
    place: Place,
    /// Its own address, as text.
    pub address: String,
}

/// What a row of connections or datagrams came to.
#[derive(Debug, Deserialize)]
pub struct Seen {
    pub ok: u64,
    pub failed: u64,
    /// Name of the server that answered, how often.
    pub backends: BTreeMap<String, usize>,
    /// Address that the servers saw as the client's, how often.
    pub clients: BTreeMap<String, usize>,
    /// Error, how often; `refused` is ECONNREFUSED.
    pub errors: BTreeMap<String, usize>,
    /// Milliseconds between two answers, at most.
    pub longest_gap_ms: f64,
    seconds: f64,
}

impl Seen {
    /// How many were refused (ECONNREFUSED).
    #[must_use]
    pub fn refused(&self) -> usize {
        self.errors.get("refused").copied().unwrap_or_default()
    }

    /// The mean time until one was answered or failed.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let count = u32::try_from(self.ok + self.failed).unwrap_or(u32::MAX).max(1);
        Duration::from_secs_f64(self.seconds) / count
    }

    /// The error names what failed.
    pub fn none_failed(&self) -> Result<()> {
        ensure!(self.errors.is_empty() && self.ok > 0, "{:?} beside {:?}", self.errors, self.backends);
        Ok(())
    }
}

/// An answer of a name server.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// `NOERROR`, `NXDOMAIN`, ...
    pub code: String,
    answers: Vec<Record>,
}

#[derive(Debug, Deserialize)]
struct Record {
    data: String,
}

impl Answer {
    /// The records' data as text, sorted.
    #[must_use]
    pub fn data(&self) -> Vec<&str> {
        let mut data: Vec<_> = self.answers.iter().map(|record| record.data.as_str()).collect();
        data.sort_unstable();
        data
    }
}

/// What a payload that was sent there and back came to.
#[derive(Deserialize)]
pub struct Transfer {
    mbit_per_second: Option<f64>,
    error: Option<String>,
}

impl Transfer {
    /// Mbit/s; the error says what went wrong.
    pub fn rate(self) -> Result<f64> {
        self.mbit_per_second.with_context(|| self.error.unwrap_or_default())
    }
}

/// What long-lived connections came to.
#[derive(Debug, Deserialize)]
pub struct Streams {
    /// Connections that were ended by the other end, or in its name.
    pub resets: u64,
    /// Connections on which a number did not come back in time, or another came.
    pub lost: u64,
    /// Numbers that came back in order.
    pub exchanges: u64,
    pub longest_gap_ms: f64,
    pub errors: Vec<String>,
}

/// Traffic in the background.
pub struct Flow<T> {
    child: Child,
    result: PhantomData<T>,
}

impl<T: DeserializeOwned> Flow<T> {
    /// Whether it still goes on.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for the end of the traffic and returns what it came to.
    pub fn finish(self) -> Result<T> {
        parse(&self.child.wait_with_output()?)
    }
}

impl<'a> Client<'a> {
    /// A client in a pod.
    #[must_use]
    pub fn in_pod(cluster: &'a Cluster, namespace: &str, name: &str, address: String) -> Self {
        Self { cluster, place: Place::Pod { namespace: namespace.into(), name: name.into() }, address }
    }

    /// A client that is a process of a node, outside every pod.
    pub fn on_node(cluster: &'a Cluster, node: &str) -> Result<Self> {
        let known = cluster.nodes().iter().find(|known| known.name == node);
        let address = known.with_context(|| format!("there is no node {node}"))?.address.to_string();
        Ok(Self { cluster, place: Place::Node(node.into()), address })
    }

    /// A client outside the cluster.
    #[must_use]
    pub fn outside(cluster: &'a Cluster) -> Self {
        let address = OUTSIDE.first(cluster.ip_family()).to_string();
        Self { cluster, place: Place::Outside, address }
    }

    /// Opens that many connections, one after the other, and asks each server for its name.
    pub fn connect(&self, to: &str, port: u16, count: u32) -> Result<Seen> {
        self.run(&["connect", "--to", &at(to, port), "--count", &count.to_string()])
    }

    /// Opens one connection that a policy should forbid: gives up after 1.5 s, when the kernel has tried twice.
    pub fn try_connect(&self, to: &str, port: u16) -> Result<Seen> {
        self.run(&["connect", "--to", &at(to, port), "--timeout", "1500"])
    }

    /// Sends one datagram that a policy should keep from being answered: gives up after a second.
    pub fn try_udp(&self, to: &str, port: u16) -> Result<Seen> {
        self.run(&["udp", "--to", &at(to, port), "--connected", "false"])
    }

    /// Exchanges datagrams, one socket each.
    pub fn udp(&self, to: &str, port: u16, count: u32, connected: bool) -> Result<Seen> {
        let (count, connected) = (count.to_string(), connected.to_string());
        self.run(&["udp", "--to", &at(to, port), "--count", &count, "--connected", &connected])
    }

    /// Exchanges datagrams with a payload of that many bytes; each comes back behind the line of [`greeting`].
    pub fn udp_of(&self, to: &str, port: u16, size: usize) -> Result<Seen> {
        self.run(&["udp", "--to", &at(to, port), "--count", "5", "--size", &size.to_string()])
    }

    /// Sends that many bytes, which must come back unchanged; returns Mbit/s.
    pub fn transfer(&self, to: &str, port: u16, bytes: u64) -> Result<f64> {
        let done: Transfer = self.run(&["transfer", "--to", &at(to, port), "--bytes", &bytes.to_string()])?;
        done.rate().with_context(|| format!("{self} -> {to}"))
    }

    /// Connects ten times to an echo server and returns the addresses by which it saw this client.
    pub fn sources(&self, to: &str) -> Result<Vec<String>> {
        let seen = self.connect(to, ECHO_PORT, 10)?;
        seen.none_failed().with_context(|| format!("{self} -> {to}"))?;
        Ok(seen.clients.into_keys().collect())
    }

    /// The address by which a server outside the cluster, at its first address, sees this client.
    pub fn outside_source(&self) -> Result<String> {
        let outside = self.cluster.outside_addresses().remove(0).to_string();
        Ok(self.sources(&outside).context("outside the cluster")?.join(", "))
    }

    /// The API server's version as kubectl in this pod gets it, with the pod's service account, over TLS.
    /// `host` is put in the place of `KUBERNETES_SERVICE_HOST`. The pod needs [`super::Pod::kubectl`].
    pub fn api_version(&self, host: &str) -> Result<String> {
        let host = format!("KUBERNETES_SERVICE_HOST={host}");
        self.text(&["env", "HOME=/tmp", &host, KUBECTL, "get", "--raw", "/version"])
    }

    /// MTU of the client's `eth0`.
    pub fn mtu(&self) -> Result<usize> {
        let text = self.text(&["cat", "/sys/class/net/eth0/mtu"])?;
        text.trim().parse().with_context(|| format!("MTU of {self}: {text:?}"))
    }

    /// Asks the name server of the client's `resolv.conf`, the name as it is.
    pub fn resolve(&self, name: &str, kind: &str, tcp: bool) -> Result<Answer> {
        self.run(&["resolve", name, "--type", kind, "--tcp", &tcp.to_string()])
    }

    /// Asks this name server over UDP.
    pub fn resolve_at(&self, server: &str, name: &str, kind: &str) -> Result<Answer> {
        self.run(&["resolve", name, "--type", kind, "--server", server])
    }

    /// What the resolver of a C library, `musl` or `glibc`, says of each of these names, of one family or of both: its addresses, sorted, or
    /// `none`, or an error. Only pods have the program.
    pub fn look_up(&self, library: &str, ipv6: Option<bool>, names: &[&str]) -> Result<Vec<String>> {
        let family = ipv6.map_or("-a", |ipv6| if ipv6 { "-6" } else { "-4" });
        let program = format!("{LOOKUP}{library}");
        let text = self.text(&[&[program.as_str(), family], names].concat())?;
        let said = |line: &str| line.split_once(' ').map(|(_, said)| said.to_owned());
        let said: Vec<String> = text.lines().filter_map(said).collect();
        ensure!(said.len() == names.len(), "{library} says of {names:?}: {text}");
        Ok(said)
    }

    /// Long-lived connections in the background that exchange numbers for that long.
    pub fn streams(&self, to: &str, port: u16, count: u32, seconds: u64) -> Result<Flow<Streams>> {
        let (count, seconds) = (count.to_string(), seconds.to_string());
        self.background(&["stream", "--to", &at(to, port), "--streams", &count, "--seconds", &seconds])
    }

    /// New connections in the background, one after the other, for that long.
    pub fn knock(&self, to: &str, port: u16, seconds: u64) -> Result<Flow<Seen>> {
        self.background(&["connect", "--to", &at(to, port), "--seconds", &seconds.to_string()])
    }

    /// Runs any program there and returns what it printed.
    pub fn text(&self, command: &[&str]) -> Result<String> {
        match &self.place {
            Place::Pod { namespace, name } => self.cluster.kubectl(&exec(namespace, name, command)),
            Place::Node(_) | Place::Outside => process::text(self.command()?.args(command)),
        }
    }

    fn run<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        parse(&match &self.place {
            Place::Pod { namespace, name } => {
                let command = [&[PROGRAM], arguments].concat();
                self.cluster.kubectl_output(&exec(namespace, name, &command), "")?
            }
            Place::Node(_) | Place::Outside => self.peer(arguments)?.output()?,
        })
    }

    fn background<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<Flow<T>> {
        let mut command = self.peer(arguments)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().with_context(|| process::describe(&command))?;
        Ok(Flow { child, result: PhantomData })
    }

    fn peer(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.command()?;
        command.arg(self.program()).args(arguments);
        Ok(command)
    }

    fn command(&self) -> Result<Command> {
        match &self.place {
            Place::Node(node) => self.cluster.node_command(node),
            Place::Outside => self.cluster.outside_command(Path::new("/usr/bin/env")),
            Place::Pod { namespace, name } => {
                let mut command = self.cluster.kubectl_command()?;
                command.args(exec(namespace, name, &[]));
                Ok(command)
            }
        }
    }

    fn program(&self) -> String {
        match &self.place {
            Place::Pod { .. } => PROGRAM.into(),
            // The cluster's folder is at the same path on every node.
            Place::Node(_) | Place::Outside => format!("{}{PROGRAM}", self.cluster.folder().display()),
        }
    }
}

impl fmt::Display for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Pod { name, .. } => write!(f, "pod {name}"),
            Place::Node(node) => write!(f, "process of {node}"),
            Place::Outside => f.write_str("outside"),
        }
    }
}

fn exec<'a>(namespace: &'a str, pod: &'a str, command: &[&'a str]) -> Vec<&'a str> {
    [&["exec", "-n", namespace, pod, "--"], command].concat()
}

pub(super) fn at(to: &str, port: u16) -> String {
    format!("{}:{port}", before_port(to))
}

/// Reads the JSON line. The program ends with 1 when something failed, and still says what.
pub(super) fn parse<T: DeserializeOwned>(output: &Output) -> Result<T> {
    serde_json::from_slice(&output.stdout).with_context(|| {
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        format!("{PROGRAM} ended with {}: {}", output.status, String::from_utf8_lossy(&said).trim())
    })
}

/// What an echo server puts before a datagram.
#[must_use]
pub fn greeting(server: &str, client: &str) -> String {
    // Ports of clients have five digits.
    format!("{server} {client}:65535\n")
}
