//! Netkeel's DNS and the real `CoreDNS` follow one API server with a made-up cluster and are asked the same questions: every answer is the same,
//! but for the differences that have a name.

#[path = "differential/compare.rs"]
mod compare;
#[path = "differential/objects.rs"]
mod objects;
#[path = "differential/questions.rs"]
mod questions;
#[path = "differential/servers.rs"]
mod servers;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::Cluster;
use netkeel_e2e::workload::{Client, Workload};
use serde_json::{Value, json};

use compare::{Case, RULES, Reply, allowed_by};
use objects::{NAMESPACES, Random};
use questions::{Known, questions};
use servers::{Place, Servers};

/// Another seed makes another cluster and other questions.
const SEED: &str = "NETKEEL_E2E_SEED";
const QUESTIONS: usize = 4000;
/// Differences that are shown where there are more.
const SHOWN: usize = 12;

/// Makes the cluster's Services, compares, and takes them away again.
pub(crate) fn run(cluster: &Cluster) -> Result<()> {
    let seed = std::env::var(SEED).ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let workloads = NAMESPACES.iter().map(|name| Workload::new(cluster, name)).collect::<Result<Vec<_>>>()?;
    let mut random = Random(seed);
    cluster.apply(&list(&objects::objects(&mut random)))?;
    let known = |kind| cluster.kubectl_json(&["get", kind, "-A"]);
    let known = known_of(&known("services")?, &known("endpointslices")?)?;
    let outside = Client::outside(cluster).address;
    compare(Place::of(cluster, &outside)?, &mut random, &known).with_context(|| format!("{SEED}={seed}"))?;
    workloads.iter().try_for_each(Workload::end)
}

fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// What is made up; other objects of the cluster may change meanwhile.
fn known_of(services: &Value, slices: &Value) -> Result<Known> {
    let ours = |list: &Value| {
        let items = list["items"].as_array().into_iter().flatten();
        let is_ours = |item: &&Value| {
            let namespace = item["metadata"]["namespace"].as_str().unwrap_or_default();
            NAMESPACES.contains(&namespace)
        };
        json!({"items": items.filter(is_ours).collect::<Vec<_>>()})
    };
    Known::read(&ours(services), &ours(slices))
}

/// Asks both servers, and fails where a difference has no name, or a name no difference.
fn compare(place: Place<'_>, random: &mut Random, known: &Known) -> Result<()> {
    let servers = Servers::start(place)?;
    let asked = questions(random, known, QUESTIONS);
    let packets = asked.iter().zip(1_u16..).map(|(question, id)| Ok((question.tcp, question.packet(id)?)));
    let replies = servers.ask(&packets.collect::<Result<Vec<_>>>()?)?;
    let (mut used, mut wrong) = (BTreeMap::new(), vec![]);
    for (question, [ours, theirs]) in asked.iter().zip(replies) {
        let read = |reply: Option<Vec<u8>>| Reply::read(&reply.context("no reply")?);
        let what = || format!("{} {} {:?}", question.name, question.rtype, question.edns);
        let case = Case {
            question,
            ours: read(ours).with_context(|| format!("Netkeel: {}", what()))?,
            length: theirs.as_ref().map_or(0, Vec::len),
            theirs: read(theirs).with_context(|| format!("CoreDNS: {}", what()))?,
            known,
        };
        if case.ours == case.theirs {
            continue;
        }
        match allowed_by(&case) {
            Some(rule) => *used.entry(rule).or_insert(0_usize) += 1,
            None => {
                wrong.push(format!("{question:?}\n  Netkeel {:?}\n  CoreDNS {:?}", case.ours, case.theirs));
            }
        }
    }
    println!("{} questions; differences that are meant: {used:?}", asked.len());
    let shown = wrong.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
    ensure!(wrong.is_empty(), "{} differences that are not meant:\n{shown}", wrong.len());
    let unused: Vec<&str> =
        RULES.iter().map(|rule| rule.name).filter(|name| !used.contains_key(name)).collect();
    ensure!(unused.is_empty(), "no difference needs these rules any more: {}", unused.join(", "));
    Ok(())
}
