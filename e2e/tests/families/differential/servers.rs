//! Both servers, side by side on one node, and what they say to the same packets.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use netkeel_e2e::{Cluster, Progress, coredns, images, process, wait_until};

/// Of both, in seconds: what kubeadm tells `CoreDNS`.
const TTL: &str = "30";
const OURS: &str = "127.0.0.1:5301";
const THEIRS: &str = "127.0.0.1:5302";
const READY: Duration = Duration::from_secs(30);
/// Starts a program in the background, which ends when the standard input of this one does.
const ATTACHED: &str = r#""$@" & pid=$!; cat >/dev/null; kill $pid; wait $pid"#;
/// The service account of a pod, where a pod has it: the CA's file and the token come first.
const ACCOUNT: &str = r#"account=/var/run/secrets/kubernetes.io/serviceaccount
mkdir -p /var/run/secrets && mount -t tmpfs none /var/run/secrets && mkdir -p $account || exit
cp "$1" $account/ca.crt && printf %s "$2" >$account/token && printf default >$account/namespace || exit
shift 2
"#;

/// Where the servers run, and whom they follow.
pub(crate) struct Place<'a> {
    /// A command there, program and arguments to be added.
    pub(crate) command: Box<dyn Fn() -> Result<Command> + 'a>,
    /// For `CoreDNS`'s configuration.
    pub(crate) folder: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) ca: PathBuf,
    /// Of the service account `netkeel-dns`.
    pub(crate) token: String,
    /// `ADDRESS:PORT` of the API server.
    pub(crate) api: String,
    /// The workload program.
    pub(crate) peer: PathBuf,
    pub(crate) netkeel_dns: PathBuf,
    /// Address of the resolver for names outside.
    pub(crate) upstream: String,
}

impl<'a> Place<'a> {
    /// The first node of a cluster with Netkeel.
    pub(crate) fn of(cluster: &'a Cluster, upstream: &str) -> Result<Self> {
        let path = "jsonpath={.endpoints[0].addresses[0]}:{.ports[0].port}";
        let node = cluster.nodes()[0].name.clone();
        Ok(Self {
            command: Box::new(move || cluster.node_command(&node)),
            folder: cluster.folder().into(),
            kubeconfig: cluster.kubeconfig(),
            ca: cluster.folder().join("pki/ca.crt"),
            token: cluster.kubectl(&["create", "token", "-n", "kube-system", "netkeel-dns"])?.trim().into(),
            api: cluster.kubectl(&["get", "endpointslice", "kubernetes", "-o", path])?.trim().into(),
            peer: cluster.folder().join("netkeel-e2e-peer"),
            netkeel_dns: images::static_folder().join("netkeel-dns"),
            upstream: upstream.into(),
        })
    }

    fn ours(&self) -> Result<Attached> {
        let mut command = (self.command)()?;
        command.args(["unshare", "--mount", "sh", "-c", &format!("{ACCOUNT}{ATTACHED}"), "sh"]);
        command.arg(&self.ca).arg(&self.token);
        command.args(["env", &format!("NETKEEL_API_SERVERS={}", self.api)]).arg(&self.netkeel_dns);
        command.args([
            "--lame-duck",
            "0",
            "--listen",
            OURS,
            "--admin",
            "127.0.0.1:5311",
            "--upstream",
            &self.upstream,
        ]);
        let ranges = ["--service-cidr", "10.96.0.0/16", "--service-cidr", "fd00:10:96::/112"];
        command.args(["--ttl", TTL]).args(ranges);
        Attached::start(command)
    }

    /// As kubeadm configures it, without a cache.
    fn theirs(&self) -> Result<Attached> {
        let corefile = self.folder.join("differential.corefile");
        let kubeconfig = self.kubeconfig.display();
        let zones = "cluster.local in-addr.arpa ip6.arpa";
        let text = format!(
            ".:5302 {{\n bind 127.0.0.1\n errors\n kubernetes {zones} {{\n  kubeconfig {kubeconfig}\n  pods insecure\n  \
             fallthrough in-addr.arpa ip6.arpa\n  ttl {TTL}\n }}\n forward . {}\n}}\n",
            self.upstream
        );
        std::fs::write(&corefile, text)?;
        let mut command = (self.command)()?;
        command
            .args(["sh", "-c", ATTACHED, "sh"])
            .arg(coredns(&Progress::start())?)
            .arg("-conf")
            .arg(corefile);
        Attached::start(command)
    }
}

/// A program that ends with this.
struct Attached {
    child: Child,
    input: Option<ChildStdin>,
}

impl Attached {
    fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().with_context(|| process::describe(&command))?;
        Ok(Self { input: child.stdin.take(), child })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.input = None;
        drop(self.child.wait());
    }
}

/// Netkeel's and `CoreDNS`.
pub(crate) struct Servers<'a> {
    place: Place<'a>,
    _running: [Attached; 2],
}

impl<'a> Servers<'a> {
    /// Both know all that there is when this returns.
    pub(crate) fn start(place: Place<'a>) -> Result<Self> {
        let running = [place.ours()?, place.theirs()?];
        let servers = Self { place, _running: running };
        let mut probe = Message::new(1, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii("kubernetes.default.svc.cluster.local.")?;
        probe.add_query(Query::query(name, RecordType::A));
        let probe = [(false, probe.to_vec()?)];
        wait_until("both servers answer", READY, || {
            let [replies] = servers.ask(&probe)?.try_into().ok().context("one pair of replies")?;
            for reply in replies {
                let reply = Message::from_vec(&reply.context("no reply")?)?;
                ensure!(reply.answers.len() == 1, "{}", reply.metadata.response_code);
            }
            Ok(())
        })?;
        Ok(servers)
    }

    /// What both say to each packet, over TCP or UDP.
    pub(crate) fn ask(&self, packets: &[(bool, Vec<u8>)]) -> Result<Vec<[Option<Vec<u8>>; 2]>> {
        let line = |(tcp, packet): &(bool, Vec<u8>)| {
            format!("{} {}\n", if *tcp { "tcp" } else { "udp" }, hex(packet))
        };
        let input: String = packets.iter().map(line).collect();
        let mut command = (self.place.command)()?;
        command.arg(&self.place.peer).args(["ask", OURS, THEIRS]);
        let output = process::text_with_input(&mut command, &input)?;
        let replies: Vec<[Option<Vec<u8>>; 2]> = output
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(ours, theirs)| [unhex(ours), unhex(theirs)])
            .collect();
        ensure!(replies.len() == packets.len(), "{} replies to {} packets", replies.len(), packets.len());
        Ok(replies)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `None` where there was no reply.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}
