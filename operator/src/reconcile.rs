//! One pass: observe, plan, apply, report.

#[cfg(test)]
mod giving_back;
#[cfg(test)]
mod interleavings;

use std::time::SystemTime;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use netkeel_crds::ClusterNetwork;
use netkeel_telemetry::chain;

use crate::{
    cluster::{Cluster, Effect, Error},
    observed::{Observed, Unreadable},
    plan::{Outcome, Step, plan},
    settings::Settings,
    status::{is_updated, status, unreadable},
    story::{Chapter, Traces},
};

/// What a pass did.
#[derive(Debug, Default, PartialEq)]
pub struct Pass {
    /// Steps that were applied.
    pub applied: usize,
    /// When to look again.
    pub next: Next,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Those that have applied what they should.
    pub updated: usize,
}

/// When the next pass is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// When a watch says that something changed.
    #[default]
    OnChange,
    /// In a moment: what is waited for is not watched, or every step lost a race.
    Soon,
    /// Now: something was done.
    AtOnce,
}

/// Brings the cluster one step nearer to what its `ClusterNetwork` says. The status is written even when a step failed.
/// `traces` is told where the network wants them before the first of them begins.
///
/// # Errors
/// The first error of the API server.
pub async fn pass<C: Cluster>(
    cluster: &C,
    settings: &Settings,
    now: Timestamp,
    traces: Traces<'_>,
) -> Result<Pass, Error> {
    let began = SystemTime::now();
    let seen = cluster.observe().await?;
    let observed = SystemTime::now();
    if let Some(unreadable) = &seen.unreadable_network {
        return complain(cluster, unreadable, now).await;
    }
    let Some(network) = &seen.network else { return Ok(Pass::default()) };
    (traces.send_to)(seen.collector.as_deref());
    let mut outcome = plan(&seen, settings, age(network, now));
    outcome.steps.retain(|step| !cluster.is_done(step));
    let chapter = traces.story.pass(network, outcome.steps.len(), began);
    if let Some(chapter) = &chapter {
        chapter.part("observe", began, observed);
        chapter.part("plan", observed, SystemTime::now());
    }
    let applied = apply(cluster, &mut outcome.steps, chapter.as_ref()).await;
    let failure = applied.as_ref().err().map(|error| chain(error));
    let reporting = SystemTime::now();
    report(cluster, &seen, &outcome, failure.as_deref(), now).await.or_else(ignore_gone(&outcome))?;
    let steps = outcome.steps.len();
    if let Some(chapter) = chapter {
        chapter.part("report", reporting, SystemTime::now());
        chapter.end(steps);
    }
    traces.story.settle(&seen, steps);
    let next = match applied? {
        Next::OnChange if outcome.removing => Next::Soon,
        next => next,
    };
    Ok(Pass { applied: steps, next, nodes: seen.nodes.len(), updated: updated(&seen) })
}

/// Nodes that have applied what they should.
fn updated(seen: &Observed) -> usize {
    seen.node_networks.iter().filter(|network| is_updated(network)).count()
}

/// Nothing is done for a network that cannot be read: what the nodes have stays in force. The user is told why.
async fn complain<C: Cluster>(cluster: &C, network: &Unreadable, now: Timestamp) -> Result<Pass, Error> {
    if let Some(conditions) = unreadable(network, &Time(now)) {
        tracing::error!(error = network.error, "ClusterNetwork default cannot be read, all stays as it is");
        cluster.report_unreadable(network, &conditions).await?;
    }
    Ok(Pass::default())
}

/// The last step of a removal lets the object go, whose status can then not be written.
fn ignore_gone(outcome: &Outcome) -> impl FnOnce(Error) -> Result<(), Error> {
    let gone = outcome.steps.contains(&Step::LetNetworkGo);
    move |error| if gone { Ok(()) } else { Err(error) }
}

/// Seconds since the deletion was asked for.
fn age(network: &ClusterNetwork, now: Timestamp) -> u64 {
    let asked = network.metadata.deletion_timestamp.as_ref();
    asked.map_or(0, |asked| u64::try_from(now.as_second() - asked.0.as_second()).unwrap_or_default())
}

/// Does all steps, whatever becomes of single ones; the first error counts. `NodeNetworks` carry the trace on.
async fn apply<C: Cluster>(
    cluster: &C,
    steps: &mut [Step],
    chapter: Option<&Chapter>,
) -> Result<Next, Error> {
    let mut next = Next::OnChange;
    let mut first = None;
    for step in steps {
        let branch = chapter.map(Chapter::branch);
        if let Step::WriteNodeNetwork { spec, .. } = step {
            spec.traceparent.clone_from(&branch);
        }
        let begin = SystemTime::now();
        let done = cluster.apply(step).await;
        if let (Some(chapter), Some(branch)) = (chapter, &branch) {
            chapter.step(step, branch, begin, done.as_ref().map_err(|error| chain(error)).copied());
        }
        match done {
            Ok(Effect::Done) => {
                tracing::info!(step = name(step), "done");
                next = Next::AtOnce;
            }
            Ok(Effect::Stale) => {
                tracing::debug!(step = name(step), "somebody else was faster");
                if next == Next::OnChange {
                    next = Next::Soon;
                }
            }
            Err(error) => {
                tracing::warn!(step = name(step), error = chain(&error), "failed, trying again");
                first.get_or_insert(error);
            }
        }
    }
    first.map_or(Ok(next), Err)
}

async fn report<C: Cluster>(
    cluster: &C,
    seen: &Observed,
    outcome: &Outcome,
    failure: Option<&str>,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(network) = &seen.network else { return Ok(()) };
    cluster.report(network, &status(network, seen, outcome, failure, &Time(now))).await
}

/// A step in the log.
fn name(step: &Step) -> String {
    match step {
        Step::TakeOver(part) => {
            format!("take over {} {}/{}", part.name.kind, part.name.namespace, part.name.name)
        }
        Step::Apply(part) => format!("apply {} {}/{}", part.name.kind, part.name.namespace, part.name.name),
        Step::WriteNodeNetwork { node, spec, .. } => {
            format!("write NodeNetwork {node} revision {}", spec.revision)
        }
        step => format!("{step:?}"),
    }
}
