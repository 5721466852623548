//! `dns-abuse`: how clients of a DNS server fare while another one floods it, on a cluster of its own. The server is a process of the
//! first node, on the second CPU, without a limit of its own; both clients are dnsperf, on the first CPU, each with an address of its
//! own of the loopback device. The flood asks ten times as much as the usual client, for names of the cluster and for random ones
//! outside it; then as much as it can, which has no goal: the usual client shares its CPU with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::Workload;
use serde_json::json;

use super::api::Api;
use super::bed::Bed;
use super::dns_qps::{ATTACHED, Server, number_behind, ours};
use super::figure::{Figure, Unit};
use super::loads::Attached;
use crate::setup;

const NAMESPACE: &str = "bench-dns-abuse";
/// Questions a second of the usual client, and of the flood.
const USUAL: &str = "1000";
const FLOOD: &str = "10000";
/// Of the usual client, in each flood; seconds.
const TURN: u32 = 10;
/// The usual client waits for an answer for so long, milliseconds.
const PATIENCE: f64 = 1000.0;
const READY: Duration = Duration::from_mins(2);
/// Names of a flood outside the cluster.
const RANDOM: usize = 100_000;

/// How the usual client fared.
#[derive(Debug, PartialEq)]
pub(super) struct Turn {
    /// Of its questions, percent that were answered without an error.
    pub(super) success: f64,
    /// Milliseconds after which 99 % of all questions were answered; [`PATIENCE`] where they were not.
    pub(super) p99: f64,
}

pub(super) fn run(bed: &Bed) -> Result<Vec<Figure>> {
    setup::require(&[("/usr/bin/dnsperf", "dnsperf")])?;
    let api = Api::start(bed)?;
    Workload::new(&bed.cluster, NAMESPACE)?;
    let spec = json!({"selector": {"app": "none"}, "ports": [{"name": "http", "port": 80}]});
    let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec});
    api.create(&format!("/api/v1/namespaces/{NAMESPACE}/services"), &object)?;
    let usual = file(bed, "usual", format!("web.{NAMESPACE}.svc.cluster.local. A\n"))?;
    let random = file(bed, "random", lines(RANDOM, |number| format!("{number}.flood.example. A")))?;
    let server = ours(bed)?;
    wait_until("netkeel-dns", READY, || {
        let said = server.ask(bed, &usual, &["-n", "1"])?;
        ensure!(said.contains("NOERROR 1 (100.00%)"), "the Service is not known yet");
        Ok(())
    })?;
    bed.settle()?;
    let mut figures = Vec::new();
    for (name, questions, rate) in [
        ("dns-abuse", &usual, Some(FLOOD)),
        ("dns-abuse-random", &random, Some(FLOOD)),
        ("dns-abuse-unbounded", &usual, None),
    ] {
        let flood = flood(bed, &server, questions, rate)?;
        let turn = fares(bed, &server, &usual, TURN)?;
        drop(flood);
        figures.push(Figure::new(format!("{name}-success"), turn.success, Unit::Percent));
        figures.push(Figure::new(format!("{name}-p99"), turn.p99, Unit::Milliseconds));
    }
    figures.push(Figure::new("dns-abuse-memory", server.resident(bed)?, Unit::Mebibytes));
    Ok(figures)
}

/// How a client fares that asks these questions for some seconds.
pub(super) fn fares(bed: &Bed, server: &Server, questions: &Path, seconds: u32) -> Result<Turn> {
    let seconds = seconds.to_string();
    let said =
        server.ask(bed, questions, &["-a", "127.0.0.3", "-Q", USUAL, "-l", &seconds, "-t", "1", "-v"])?;
    turn(&said).with_context(|| format!("what dnsperf says: {}", tail(&said)))
}

fn file(bed: &Bed, name: &str, text: String) -> Result<PathBuf> {
    let path = bed.cluster.folder().join(format!("bench-dns-abuse-{name}"));
    fs::write(&path, text)?;
    Ok(path)
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(|number| line(number) + "\n").collect()
}

/// Another client, which asks so many questions a second, or as many as it can, until it is dropped.
fn flood(bed: &Bed, server: &Server, questions: &Path, rate: Option<&str>) -> Result<Attached> {
    let [node, _] = bed.nodes()?;
    let mut command = bed.cluster.node_command(node)?;
    command.args(["sh", "-c", ATTACHED, "sh", "taskset", "1", "dnsperf", "-s", "127.0.0.1"]);
    command.args(["-p", server.port]);
    command.args(["-a", "127.0.0.2", "-q", "1000", "-t", "1", "-l", "600", "-d"]).arg(questions);
    // All at once where no rate is told.
    command.args(rate.map_or_else(Vec::new, |rate| vec!["-Q", rate]));
    // Where its figures go nobody reads them.
    Attached::start(&mut command)
}

/// What dnsperf said of each question and at its end.
fn turn(said: &str) -> Option<Turn> {
    let mut took: Vec<f64> = said.lines().filter_map(answered).collect();
    took.sort_by(f64::total_cmp);
    let sent = number_behind(said, "Queries sent:").filter(|sent| *sent > 0.0)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "thousands of questions")]
    let most = ((sent * 0.99).ceil() as usize).checked_sub(1)?;
    let p99 = took.get(most).map_or(PATIENCE, |seconds| seconds * 1000.0);
    #[expect(clippy::cast_precision_loss, reason = "thousands of questions")]
    Some(Turn { success: took.len() as f64 / sent * 100.0, p99 })
}

/// Seconds that an answer without an error took: `> NOERROR NAME TYPE SECONDS`.
fn answered(line: &str) -> Option<f64> {
    line.strip_prefix("> NOERROR ")?.split_whitespace().next_back()?.parse().ok()
}

fn tail(said: &str) -> &str {
    said.len().checked_sub(2000).and_then(|at| said.get(at..)).unwrap_or(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dnsperf_says_of_each_question_becomes_success_and_p99() {
        let answers = lines(200, |number| format!("> NOERROR web.x. A 0.{:03}", number + 1));
        let said =
            |sent: u32| format!("{answers}> SERVFAIL web.x. A 0.5\n\n  Queries sent:         {sent}\n");
        assert_eq!(turn(&said(200)), Some(Turn { success: 100.0, p99: 198.0 }));
        let most_are_lost = Some(Turn { success: 50.0, p99: PATIENCE });
        assert_eq!(turn(&format!("> T web.x. A\n{}", said(400))), most_are_lost);
        assert_eq!(turn("nothing"), None);
    }
}
