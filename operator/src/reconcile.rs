//! One pass: observe, plan, apply, report.

#[cfg(test)]
mod interleavings;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use netkeel_crds::{ClusterNetwork, TRACEPARENT};
use netkeel_telemetry::{chain, context};
use tracing::{Instrument, Span};

use crate::{
    cluster::{Cluster, Effect, Error},
    observed::{Observed, Unreadable},
    plan::{Outcome, Step, plan},
    settings::Settings,
    status::{status, unreadable},
};

/// What a pass did.
#[derive(Debug, Default, PartialEq)]
pub struct Pass {
    /// Steps that were applied.
    pub applied: usize,
    /// When to look again.
    pub next: Next,
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
/// `send_traces_to` is told where the network wants its traces before the first of them begins.
///
/// # Errors
/// The first error of the API server.
pub async fn pass<C: Cluster>(
    cluster: &C,
    settings: &Settings,
    now: Timestamp,
    send_traces_to: &(dyn Fn(Option<&str>) + Sync),
) -> Result<Pass, Error> {
    let seen = cluster.observe().await?;
    if let Some(unreadable) = &seen.unreadable_network {
        return complain(cluster, unreadable, now).await;
    }
    let Some(network) = &seen.network else { return Ok(Pass::default()) };
    send_traces_to(network.spec.observability.traces.endpoint.as_deref());
    let mut outcome = plan(&seen, settings, age(network, now));
    outcome.steps.retain(|step| !cluster.is_done(step));
    let span = if outcome.steps.is_empty() { Span::none() } else { span(network, &mut outcome) };
    async {
        let applied = apply(cluster, &outcome.steps).await;
        let failure = applied.as_ref().err().map(|error| chain(error));
        report(cluster, &seen, &outcome, failure.as_deref(), now).await.or_else(ignore_gone(&outcome))?;
        let next = match applied? {
            Next::OnChange if outcome.removing => Next::Soon,
            next => next,
        };
        Ok(Pass { applied: outcome.steps.len(), next })
    }
    .instrument(span)
    .await
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

/// The span of a pass that changes something: a child of whoever edited the network. `NodeNetworks` carry it on.
fn span(network: &ClusterNetwork, outcome: &mut Outcome) -> Span {
    let span = tracing::info_span!(
        "reconcile",
        generation = network.metadata.generation,
        steps = outcome.steps.len()
    );
    if let Some(parent) = network.metadata.annotations.as_ref().and_then(|all| all.get(TRACEPARENT)) {
        context::set_parent(&span, parent);
    }
    let traceparent = context::traceparent(&span);
    for step in &mut outcome.steps {
        if let Step::WriteNodeNetwork { spec, .. } = step {
            spec.traceparent.clone_from(&traceparent);
        }
    }
    span
}

/// Does all steps, whatever becomes of single ones; the first error counts.
async fn apply<C: Cluster>(cluster: &C, steps: &[Step]) -> Result<Next, Error> {
    let mut next = Next::OnChange;
    let mut first = None;
    for step in steps {
        match cluster.apply(step).await {
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
        Step::Apply(part) => format!("apply {} {}/{}", part.name.kind, part.name.namespace, part.name.name),
        Step::WriteNodeNetwork { node, spec, .. } => {
            format!("write NodeNetwork {node} revision {}", spec.revision)
        }
        step => format!("{step:?}"),
    }
}
