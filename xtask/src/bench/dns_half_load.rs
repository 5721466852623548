//! `dns-half-load-p99`: what 99 % of the answers take at most while a DNS server is asked half of what it can answer, on the cluster of
//! `dns-qps` and beside the same CoreDNS. `dns-half-load-p99-unread` is the same of a server that does nothing: it sends questions back
//! unread and is asked as often as netkeel-dns. Less than that a machine cannot show.

use std::path::Path;

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::bed::Bed;
use super::dns_abuse;
use super::dns_qps::{ATTACHED, Server};
use super::figure::{Figure, Unit, median};
use super::loads::Attached;

/// The host takes its CPUs from a virtual machine for up to 15 ms at times, a few times a second or not at all for minutes: many short
/// turns tell what an answer takes at other times.
const ROUNDS: u32 = 25;
/// Seconds of a turn.
const TURN: u32 = 2;

/// One server under its load, and how it fared.
struct Side<'a> {
    server: &'a Server,
    /// Questions a second of its load.
    rate: f64,
    /// The p99 of each turn, milliseconds.
    took: Vec<f64>,
    /// Sums over the turns: percent that were answered, and the share of its load that was asked.
    success: f64,
    load: f64,
}

/// `most`: what netkeel-dns and the other answer a second at most.
pub(super) fn run(
    bed: &Bed,
    [own, other]: &[Server; 2],
    most: [f64; 2],
    questions: &Path,
) -> Result<[Figure; 2]> {
    let reflecting = reflecting(bed)?;
    let mut sides = [(own, most[0]), (other, most[1]), (&reflecting, most[0])].map(|(server, most)| Side {
        server,
        rate: most / 2.0,
        took: Vec::new(),
        success: 0.0,
        load: 0.0,
    });
    for round in 0..ROUNDS as usize {
        for turn in 0..sides.len() {
            let count = sides.len();
            sides[(round + turn) % count].turn(bed, questions)?;
        }
    }
    for side in &mut sides {
        bed.progress.say(side.summary());
    }
    let own = &sides[0];
    let valid = own.success() >= 99.9 && own.load() >= 0.95;
    ensure!(valid, "too few answers of {}, or too little load", own.server.name);
    let [own, other, unread] = sides.map(|side| median(&side.took));
    Ok([
        Figure::new("dns-half-load-p99", own, Unit::Milliseconds).against(other, own / other),
        Figure::new("dns-half-load-p99-unread", unread, Unit::Milliseconds),
    ])
}

impl Side<'_> {
    /// Its load runs, and the usual client of `dns-abuse` asks beside it.
    fn turn(&mut self, bed: &Bed, questions: &Path) -> Result<()> {
        let load = load(bed, self.server, questions, self.rate)?;
        let fared = dns_abuse::fares(bed, self.server, questions, TURN)?;
        let asked: Asked = load.finish()?;
        self.load += asked.sent / asked.due;
        self.took.push(fared.p99);
        self.success += fared.success;
        Ok(())
    }

    fn success(&self) -> f64 {
        self.success / f64::from(ROUNDS)
    }

    fn load(&self) -> f64 {
        self.load / f64::from(ROUNDS)
    }

    fn summary(&mut self) -> String {
        self.took.sort_by(f64::total_cmp);
        format!(
            "half load: {} answered {:.2} %, with {:.1} % of the load; p99 of the turns {:.2?} ms",
            self.server.name,
            self.success(),
            self.load() * 100.0,
            self.took
        )
    }
}

/// How many questions another client should have asked, and how many it has.
#[derive(Deserialize)]
struct Asked {
    due: f64,
    sent: f64,
}

/// Another client, which asks so many questions a second until it is finished.
fn load(bed: &Bed, server: &Server, questions: &Path, rate: f64) -> Result<Attached> {
    let [node, _] = bed.nodes()?;
    let mut command = Attached::client(bed, bed.cluster.node_command(node)?);
    command.arg("bench-questions").arg(questions);
    command.args(["--to", &format!("127.0.0.1:{}", server.port), "--from", "127.0.0.2"]);
    Attached::start(command.args(["--rate", &format!("{rate:.0}")]))
}

/// What sends questions back unread.
fn reflecting(bed: &Bed) -> Result<Server> {
    let [node, _] = bed.nodes()?;
    let mut command = bed.cluster.node_command(node)?;
    command.args(["sh", "-c", ATTACHED, "sh", "taskset", "2"]).arg(bed.peer());
    let program = Attached::start(command.args(["bench-reflect", "--port", "5305"]))?;
    Ok(Server { name: "netkeel-e2e-peer", port: "5305", argument: "bench-reflect", _program: program })
}
