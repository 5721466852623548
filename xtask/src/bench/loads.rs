//! The load program where a figure needs it: servers and clients in pods, and as processes of nodes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::workload::Pod;
use netkeel_e2e::{process, wait_until};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::bed::Bed;
use super::figure::Unit;
use super::machine::Ticks;

/// The first of the three ports of `bench-serve`: one request a connection.
pub(super) const PORT: u16 = 9000;
/// Its third port, which closes every connection at once.
pub(super) const CLOSING_PORT: u16 = PORT + 2;
/// The load program in a pod.
pub(super) const PEER: &str = "/netkeel-e2e-peer";
/// CPU masks of taskset(1): clients have the first CPU, servers the second.
const CLIENT_CPU: &str = "1";
const SERVER_CPU: &str = "2";
const REACH: &str = "200";

/// A pod that serves on the second CPU.
pub(super) fn server(name: &str, node: &str) -> Value {
    let mut pod = pod(name, node);
    let container = &mut pod["spec"]["containers"][0];
    container["command"] = json!(["/bin/taskset", SERVER_CPU, PEER]);
    container["args"] = json!(["bench-serve", "--port", PORT.to_string()]);
    // Looks until it serves, and then no more: probes would be in the figure.
    container["startupProbe"] =
        json!({"tcpSocket": {"port": PORT}, "periodSeconds": 1, "failureThreshold": 30});
    pod
}

/// A pod that is a place for clients.
pub(super) fn client(name: &str, node: &str) -> Value {
    pod(name, node)
}

/// Without a request the kernel would give a pod a five-hundredth of what a process of the node gets.
fn pod(name: &str, node: &str) -> Value {
    let mut pod = Pod { role: "pause", ..Pod::server(name, node) }.json();
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "500m"}});
    pod
}

/// The load program under this one's control: it ends when its standard input does.
pub(super) struct Attached {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Attached {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| process::describe(command))?;
        let output = child.stdout.take().context("stdout is piped")?;
        Ok(Self { input: child.stdin.take(), output: BufReader::new(output), child })
    }

    /// `bench-serve` as a process of a node, on the second CPU.
    pub(super) fn node_server(bed: &Bed, node: &str) -> Result<Self> {
        Self::server(bed, bed.cluster.node_command(node)?)
    }

    /// `bench-serve` on the second CPU, where a command line that ends so leads.
    pub(super) fn server(bed: &Bed, mut command: Command) -> Result<Self> {
        command.args(["taskset", SERVER_CPU]).arg(bed.peer());
        Self::start(command.args(["bench-serve", "--attached", "true", "--port", &PORT.to_string()]))
    }

    /// The load program on the first CPU, where a command line that ends so leads; its own arguments follow.
    pub(super) fn client(bed: &Bed, mut command: Command) -> Command {
        command.args(["taskset", CLIENT_CPU]).arg(bed.peer());
        command
    }

    /// Says it a line.
    pub(super) fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("stdin is piped")?;
        Ok(writeln!(input, "{line}")?)
    }

    /// The next line that it says.
    pub(super) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    /// A command of the load program in a pod.
    pub(super) fn in_pod(bed: &Bed, namespace: &str, pod: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = bed.cluster.kubectl_command()?;
        command.args(["exec", "-i", "-n", namespace, pod, "--"]).args(arguments);
        Self::start(&mut command)
    }

    /// Lets it end, and returns what it says last.
    pub(super) fn finish<T: DeserializeOwned>(mut self) -> Result<T> {
        self.input = None;
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        serde_json::from_str(&text).with_context(|| format!("output of the load program: {text}"))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.input = None;
        drop(self.child.wait());
    }
}

/// What is repeated in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exchange {
    /// Request and response on one connection.
    RoundTrip,
    /// Connect, request, response, close.
    Connection,
    /// A connection full of data; a second's worth is in Gbit.
    Bulk,
}

impl Exchange {
    fn order(self) -> &'static str {
        match self {
            Self::RoundTrip => "rr",
            Self::Connection => "crr",
            Self::Bulk => "bulk",
        }
    }

    /// How names of its figures end.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RoundTrip => "rr",
            Self::Connection => "crr",
            Self::Bulk => "gbit",
        }
    }

    /// Of its rate.
    pub(super) fn unit(self) -> Unit {
        match self {
            Self::RoundTrip => Unit::RoundTrips,
            Self::Connection => Unit::Connections,
            Self::Bulk => Unit::Gigabits,
        }
    }

    /// CPU time of a portion of it, over all of these slices of this length.
    pub(super) fn cpu_time(self, slices: &[Slice], length: Duration) -> f64 {
        let portion = if self == Self::Bulk { 1.0 } else { 10_000.0 };
        let done: f64 = slices.iter().map(|slice| slice.per_second * length.as_secs_f64()).sum();
        slices.iter().map(|slice| slice.busy).sum::<f64>() / done * portion
    }

    /// Of that time.
    pub(super) fn cpu_unit(self) -> Unit {
        if self == Self::Bulk { Unit::CpuPerGigabit } else { Unit::CpuPerTenThousand }
    }
}

/// What a slice came to.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) struct Slice {
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// CPU seconds that the whole machine used meanwhile.
    #[serde(skip)]
    pub(super) busy: f64,
}

#[derive(Deserialize)]
struct Reached {
    reached: bool,
}

/// A client that runs slices when it is told to, so that clients in different places can take turns.
pub(super) struct Lane {
    /// For errors.
    what: String,
    /// Address of its server.
    server: String,
    program: Attached,
}

impl Lane {
    /// In a pod, on the first CPU. `server` has the ports of `bench-serve`.
    pub(super) fn in_pod(bed: &Bed, namespace: &str, pod: &str, server: &str) -> Result<Self> {
        let to = endpoint(server, PORT)?;
        let command = ["/bin/taskset", CLIENT_CPU, PEER, "bench-lane", "--to", &to];
        let program = Attached::in_pod(bed, namespace, pod, &command)?;
        Ok(Self { what: format!("pod {pod} to {to}"), server: server.into(), program })
    }

    /// As a process of a node, on the first CPU.
    pub(super) fn on_node(bed: &Bed, node: &str, server: &str) -> Result<Self> {
        Self::with(bed, bed.cluster.node_command(node)?, node, server)
    }

    /// On the first CPU, where a command line that ends so leads; `place` is for errors.
    pub(super) fn with(bed: &Bed, command: Command, place: &str, server: &str) -> Result<Self> {
        let to = endpoint(server, PORT)?;
        let mut command = Attached::client(bed, command);
        command.args(["bench-lane", "--to", &to]);
        let what = format!("process of {place} to {to}");
        Ok(Self { what, server: server.into(), program: Attached::start(&mut command)? })
    }

    pub(super) fn slice(&mut self, exchange: Exchange, length: Duration) -> Result<Slice> {
        let before = Ticks::read()?;
        let slice: Slice = self.order(&format!("{} {}", exchange.order(), length.as_millis()))?;
        Ok(Slice { busy: Ticks::read()?.busy_since(&before), ..slice })
    }

    /// Whether a connection to an address and port is accepted.
    pub(super) fn reaches(&mut self, address: &str, port: u16) -> Result<bool> {
        let to = endpoint(address, port)?;
        Ok(self.order::<Reached>(&format!("reach {to} {REACH}"))?.reached)
    }

    /// Waits until its server accepts.
    pub(super) fn wait_served(&mut self) -> Result<()> {
        let (what, server) = (self.what.clone(), self.server.clone());
        wait_until(&what, Duration::from_secs(20), || {
            ensure!(self.reaches(&server, PORT)?, "no connection is accepted");
            Ok(())
        })
    }

    fn order<T: DeserializeOwned>(&mut self, order: &str) -> Result<T> {
        let input = self.program.input.as_mut().context("stdin is piped")?;
        let mut answer = String::new();
        // A program that has ended says why on stderr, which is this one's; here it is the line that is missing.
        let asked = writeln!(input, "{order}").and_then(|()| self.program.output.read_line(&mut answer));
        asked.with_context(|| format!("{}: {order}", self.what))?;
        serde_json::from_str(&answer).with_context(|| format!("{}: {order}: {answer:?}", self.what))
    }
}

/// An address of either family with a port, as it is written.
pub(super) fn endpoint(address: &str, port: u16) -> Result<String> {
    let ip: IpAddr = address.parse().with_context(|| format!("an IP address: {address:?}"))?;
    Ok(SocketAddr::new(ip, port).to_string())
}

/// Runs the rounds, one slice of each lane a round; who comes first rotates. Returns the slices of each lane.
pub(super) fn take_turns(
    lanes: &mut [Lane],
    exchange: Exchange,
    rounds: usize,
    length: Duration,
) -> Result<Vec<Vec<Slice>>> {
    let mut seen = vec![Vec::new(); lanes.len()];
    for round in 0..rounds {
        for turn in 0..lanes.len() {
            let index = (round + turn) % lanes.len();
            if let (Some(lane), Some(slices)) = (lanes.get_mut(index), seen.get_mut(index)) {
                slices.push(lane.slice(exchange, length)?);
            }
        }
    }
    Ok(seen)
}

/// One number of every slice.
pub(super) fn column(slices: &[Slice], number: impl Fn(&Slice) -> f64) -> Vec<f64> {
    slices.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lane whose program answers each order with its own number and a count of the orders.
    fn lane(number: u32) -> Lane {
        let script = format!(
            r#"i=0; while read order; do i=$((i+1)); echo "{{\"per_second\":{number}$i,\"p50_us\":1,\"p99_us\":2}}"; done"#
        );
        let program = Attached::start(Command::new("sh").args(["-c", &script])).unwrap();
        Lane { what: format!("lane {number}"), server: String::new(), program }
    }

    #[test]
    fn every_lane_has_a_slice_a_round() {
        let mut lanes = [lane(1), lane(2), lane(3)];
        let seen = take_turns(&mut lanes, Exchange::RoundTrip, 4, Duration::from_millis(1)).unwrap();
        let rates: Vec<_> = seen.iter().map(|slices| column(slices, |slice| slice.per_second)).collect();
        let expected =
            [[11.0, 12.0, 13.0, 14.0], [21.0, 22.0, 23.0, 24.0], [31.0, 32.0, 33.0, 34.0]].map(Vec::from);
        assert_eq!(rates, expected);
    }

    #[test]
    fn addresses_of_either_family_take_a_port() {
        assert_eq!(endpoint("10.0.0.1", 80).unwrap(), "10.0.0.1:80");
        assert_eq!(endpoint("fd00::1", 80).unwrap(), "[fd00::1]:80");
        assert!(endpoint("", 80).unwrap_err().to_string().contains("an IP address"));
    }

    #[test]
    fn a_lane_whose_program_ended_is_named() {
        let program = Attached::start(&mut Command::new("true")).unwrap();
        let mut lane = Lane { what: "pod client".into(), server: String::new(), program };
        let error = lane.reaches("10.0.0.1", 80).unwrap_err();
        assert!(error.to_string().starts_with("pod client: reach 10.0.0.1:80"), "{error}");
    }
}
