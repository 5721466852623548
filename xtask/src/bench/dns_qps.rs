//! `dns-qps`: how many questions for addresses of Services a DNS server answers a second on one CPU, in a cluster with 10,000
//! Services, beside the real CoreDNS with kubeadm's configuration and the same API server. Both are processes of the first node, on the second
//! CPU; dnsperf is on the first and asks them in turns over the loopback device. Then the same for names outside the cluster that
//! both have in their cache (`dns-qps-external`), from a resolver that is a CoreDNS of its own. In between come the
//! figures of `dns_half_load`, at the end those of `dns_change`. The cluster is good for nothing else afterwards.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::workload::Workload;
use netkeel_e2e::{coredns, images, process, wait_until};
use serde_json::json;

use super::api::Api;
use super::bed::Bed;
use super::figure::{Figure, Unit, mebibytes, median};
use super::large::many;
use super::loads::Attached;
use super::ratio::Ratios;
use super::{dns_change, dns_half_load};
use crate::setup;

pub(super) const SERVICES: usize = 10_000;
const NAMESPACES: usize = 10;
/// Names outside the cluster.
const OUTSIDE: usize = 1000;
const ROUNDS: usize = 10;
/// Of a turn, seconds.
const TURN: &str = "2";
/// Questions under way at once, from as many sockets as CoreDNS has goroutines to serve.
const LOAD: [&str; 6] = ["-c", "16", "-T", "1", "-q", "256"];
const READY: Duration = Duration::from_mins(2);
/// Who resolves names outside the cluster.
const RESOLVER: &str = "127.0.0.1:5303";
/// Starts a program in the background, which ends when the standard input of this one does.
pub(super) const ATTACHED: &str = r#""$@" & pid=$!; cat >/dev/null; kill $pid; wait $pid"#;
/// The service account of a pod, where a pod has it: the CA's file and the token come first.
const ACCOUNT: &str = r#"account=/var/run/secrets/kubernetes.io/serviceaccount
mkdir -p /var/run/secrets && mount -t tmpfs none /var/run/secrets && mkdir -p $account || exit
cp "$1" $account/ca.crt && printf %s "$2" >$account/token && printf default >$account/namespace || exit
shift 2
"#;

/// Who is asked: a process of the first node, on the second CPU.
pub(super) struct Server {
    pub(super) name: &'static str,
    /// Of the loopback device.
    pub(super) port: &'static str,
    /// What only this one of all processes of its name has on its command line.
    pub(super) argument: &'static str,
    pub(super) _program: Attached,
}

/// What dnsperf said of a turn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Turn {
    completed: f64,
    per_second: f64,
    lost: f64,
    /// CPU seconds of the server.
    cpu: f64,
}

pub(super) fn run(bed: &Bed) -> Result<Vec<Figure>> {
    setup::require(&[("/usr/bin/dnsperf", "dnsperf")])?;
    let coredns = coredns(&bed.progress)?;
    let api = Api::start(bed)?;
    for index in 0..NAMESPACES {
        Workload::new(&bed.cluster, &namespace(index))?;
    }
    many(SERVICES, |index| {
        let spec = json!({"selector": {"app": "none"}, "ports": [{"name": "http", "port": 80}]});
        let object =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name(index)}, "spec": spec});
        api.create(&format!("/api/v1/namespaces/{}/services", namespace(index)), &object).map(drop)
    })?;
    bed.progress.say(format!("there are {SERVICES} Services"));
    let questions = bed.cluster.folder().join("bench-dns-questions");
    fs::write(&questions, (0..SERVICES).map(question).collect::<String>())?;
    let last = bed.cluster.folder().join("bench-dns-question");
    fs::write(&last, question(SERVICES - 1))?;
    let _outside = outside(bed, &coredns)?;
    let servers = [ours(bed)?, theirs(bed, &coredns)?];
    for server in &servers {
        wait_until(server.name, READY, || {
            let said = server.ask(bed, &last, &["-n", "1"])?;
            ensure!(said.contains("NOERROR 1 (100.00%)"), "{} does not know the last Service", server.name);
            Ok(())
        })?;
    }
    bed.settle()?;
    let say = |text| bed.progress.say(text);
    let turns = race(bed, &servers, &questions)?;
    let mut all = figures("dns-qps", &turns, say);
    all.extend(dns_half_load::run(bed, &servers, turns.each_ref().map(|turns| rate(turns)), &questions)?);
    let [own, other] = [servers[0].resident(bed)?, servers[1].resident(bed)?];
    all.push(Figure::new("dns-memory", own, Unit::Mebibytes).against(other, own / other));
    let names = bed.cluster.folder().join("bench-dns-outside");
    fs::write(&names, (0..OUTSIDE).map(outside_question).collect::<String>())?;
    for server in &servers {
        // to have them in the caches
        let said = server.ask(bed, &names, &["-n", "1"])?;
        ensure!(said.contains(&format!("NOERROR {OUTSIDE} (100.00%)")), "{}: {said}", server.name);
    }
    all.extend(figures("dns-qps-external", &race(bed, &servers, &names)?, say));
    all.extend(dns_change::run(bed, &api)?);
    Ok(all)
}

/// Both are asked in turns; who is first alternates.
fn race(bed: &Bed, servers: &[Server; 2], questions: &Path) -> Result<[Vec<Turn>; 2]> {
    let mut turns = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for turn in 0..2 {
            let index = (round + turn) % 2;
            turns[index].push(servers[index].turn(bed, questions)?);
        }
    }
    Ok(turns)
}

pub(super) fn namespace(index: usize) -> String {
    format!("bench-dns-{}", index % NAMESPACES)
}

pub(super) fn name(index: usize) -> String {
    format!("service-{index}")
}

/// A line of dnsperf's input.
fn question(index: usize) -> String {
    format!("{}.{}.svc.cluster.local. A\n", name(index), namespace(index))
}

/// The same for a name outside the cluster.
fn outside_question(index: usize) -> String {
    format!("name-{index}.bench.example. A\n")
}

pub(super) fn ours(bed: &Bed) -> Result<Server> {
    let program = Attached::start(&mut command(bed, "5301", "5311")?)?;
    Ok(Server { name: "netkeel-dns", port: "5301", argument: "5301", _program: program })
}

/// netkeel-dns as it is in the image, on the second CPU, at these ports of the loopback device and with a service account of its own.
pub(super) fn command(bed: &Bed, port: &str, admin: &str) -> Result<Command> {
    let program = images::static_folder().join("netkeel-dns");
    let token = bed.cluster.kubectl(&["create", "token", "-n", "kube-system", "netkeel-dns"])?;
    let path = "jsonpath={.endpoints[0].addresses[0]}:{.ports[0].port}";
    let api = bed.cluster.kubectl(&["get", "endpointslice", "kubernetes", "-o", path])?;
    let [node, _] = bed.nodes()?;
    let mut command = bed.cluster.node_command(node)?;
    command.args(["unshare", "--mount", "sh", "-c", &format!("{ACCOUNT}{ATTACHED}"), "sh"]);
    command.arg(bed.cluster.folder().join("pki/ca.crt")).arg(token.trim());
    command.args(["env", &format!("NETKEEL_API_SERVERS={}", api.trim()), "taskset", "2"]).arg(program);
    let (listen, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin}"));
    command.args(["--listen", &listen, "--admin", &admin, "--upstream", RESOLVER]);
    Ok(command)
}

/// The resolver of names outside, on dnsperf's CPU: it is asked when a cache has nothing.
fn outside(bed: &Bed, program: &Path) -> Result<Attached> {
    let corefile = bed.cluster.folder().join("outside.conf");
    let text = "bench.example:5303 {\n bind 127.0.0.1\n template IN A {\n  answer \"{{ .Name }} 3600 IN A 192.0.2.1\"\n }\n}\n";
    fs::write(&corefile, text)?;
    let [node, _] = bed.nodes()?;
    let mut command = bed.cluster.node_command(node)?;
    command.args(["sh", "-c", ATTACHED, "sh", "taskset", "1"]).arg(program);
    command.args(["-conf"]).arg(corefile);
    Attached::start(&mut command)
}

/// CoreDNS, configured as kubeadm does but for the resolver outside.
fn theirs(bed: &Bed, program: &Path) -> Result<Server> {
    let corefile = bed.cluster.folder().join("Corefile");
    let kubeconfig = bed.cluster.kubeconfig();
    let text = format!(
        "cluster.local:5302 {{\n bind 127.0.0.1\n errors\n kubernetes cluster.local {{\n  kubeconfig {}\n  pods insecure\n  ttl 30\n }}\n \
         prometheus 127.0.0.1:5312\n cache 30 {{\n  disable success cluster.local\n  disable denial cluster.local\n }}\n loadbalance\n}}\n\
         .:5302 {{\n bind 127.0.0.1\n errors\n prometheus 127.0.0.1:5312\n forward . {RESOLVER} {{\n  max_concurrent 1000\n }}\n cache 30\n \
         loadbalance\n}}\n",
        kubeconfig.display()
    );
    fs::write(&corefile, text)?;
    let [node, _] = bed.nodes()?;
    let mut command = bed.cluster.node_command(node)?;
    command.args(["sh", "-c", ATTACHED, "sh", "taskset", "2"]).arg(program);
    command.args(["-conf"]).arg(corefile);
    let program = Attached::start(&mut command)?;
    Ok(Server { name: "coredns", port: "5302", argument: "Corefile", _program: program })
}

impl Server {
    fn dnsperf(&self, bed: &Bed, questions: &Path) -> Result<Command> {
        let [node, _] = bed.nodes()?;
        let mut command = bed.cluster.node_command(node)?;
        command.args(["taskset", "1", "dnsperf", "-s", "127.0.0.1", "-p", self.port, "-d"]).arg(questions);
        Ok(command)
    }

    pub(super) fn ask(&self, bed: &Bed, questions: &Path, arguments: &[&str]) -> Result<String> {
        process::text(self.dnsperf(bed, questions)?.args(arguments))
    }

    fn turn(&self, bed: &Bed, questions: &Path) -> Result<Turn> {
        let before = self.cpu(bed)?;
        let said = self.ask(bed, questions, &[LOAD.as_slice(), &["-l", TURN]].concat())?;
        let cpu = self.cpu(bed)? - before;
        let number =
            |what| number_behind(&said, what).with_context(|| format!("dnsperf does not say {what}: {said}"));
        let turn = Turn {
            completed: number("Queries completed:")?,
            per_second: number("Queries per second:")?,
            lost: number("Queries lost:")?,
            cpu,
        };
        // Whoever is asked for more than it can may lose a few, which do not count; one that loses many is not measured by the rest.
        let few = turn.lost <= turn.completed / 100.0;
        ensure!(few && !said.contains("SERVFAIL"), "{}: {said}", self.name);
        Ok(turn)
    }

    /// CPU seconds so far; the kernel counts in ticks of 10 ms (proc(5), utime and stime).
    fn cpu(&self, bed: &Bed) -> Result<f64> {
        let stat = self.of_process(bed, "stat")?;
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace().collect::<Vec<_>>());
        let ticks = |index: usize| fields.as_ref()?.get(index)?.parse::<f64>().ok();
        let used = ticks(11).zip(ticks(12)).with_context(|| format!("/proc/…/stat: {stat}"))?;
        Ok((used.0 + used.1) / 100.0)
    }

    /// Resident memory, MiB.
    pub(super) fn resident(&self, bed: &Bed) -> Result<f64> {
        let status = self.of_process(bed, "status")?;
        let kib = number_behind(&status, "VmRSS:").context("VmRSS")?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "KiB of a process")]
        Ok(mebibytes(kib as u64 * 1024))
    }

    fn of_process(&self, bed: &Bed, file: &str) -> Result<String> {
        let script = format!(
            "for p in $(pidof {}); do if grep -q -- {} /proc/$p/cmdline; then cat /proc/$p/{file}; fi; done",
            self.name, self.argument
        );
        let [node, _] = bed.nodes()?;
        bed.cluster.node_exec(node, &["sh", "-c", &script])
    }
}

/// The first number behind some words of a text.
pub(super) fn number_behind(text: &str, what: &str) -> Option<f64> {
    text.split_once(what)?.1.split_whitespace().next()?.parse().ok()
}

fn rates(turns: &[Turn]) -> Vec<f64> {
    turns.iter().map(|turn| turn.per_second).collect()
}

/// What a server answers a second.
fn rate(turns: &[Turn]) -> f64 {
    median(&rates(turns))
}

fn figures(name: &str, [own, other]: &[Vec<Turn>; 2], say: impl Fn(String)) -> Vec<Figure> {
    let ratios = Ratios::of(&rates(own), &rates(other));
    let lost = |turns: &[Turn]| turns.iter().map(|turn| turn.lost).sum::<f64>();
    say(format!(
        "{name}: {}; {} of all questions lost, by the other {}",
        ratios.spread(),
        lost(own),
        lost(other)
    ));
    let cpu = |turns: &[Turn]| {
        let sum = |number: fn(&Turn) -> f64| turns.iter().map(number).sum::<f64>();
        sum(|turn| turn.cpu) / sum(|turn| turn.completed) * 10_000.0
    };
    let (used, others) = (cpu(own), cpu(other));
    vec![
        Figure::new(name, rate(own), Unit::Queries).against(rate(other), ratios.median()),
        Figure::new(format!("{name}-cpu"), used, Unit::CpuPerTenThousand).against(others, used / others),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dnsperf_says_becomes_figures() {
        let said = "Statistics:\n\n  Queries sent:         400\n  Queries completed:    398 (99.50%)\n  Queries lost:         2 (0.50%)\n\
                    \n  Queries per second:   199.25\n";
        let numbers = ["Queries completed:", "Queries lost:", "Queries per second:", "Nothing:"];
        assert_eq!(
            numbers.map(|what| number_behind(said, what)),
            [Some(398.0), Some(2.0), Some(199.25), None]
        );
        let turn = |per_second, cpu| Turn { completed: 2.0 * per_second, per_second, lost: 0.0, cpu };
        let (own, other) = ([turn(300.0, 1.0), turn(500.0, 1.0)], [turn(100.0, 1.0), turn(100.0, 1.0)]);
        let expected = [
            Figure::new("dns-qps", 400.0, Unit::Queries).against(100.0, 4.0),
            Figure::new("dns-qps-cpu", 12.5, Unit::CpuPerTenThousand).against(50.0, 0.25),
        ];
        assert_eq!(figures("dns-qps", &[own, other].map(Vec::from), drop), expected);
    }
}
