//! Policy: events in, maps out, and what a start without the API server needs on disk.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use netkeel_core::{address::Address, name::ObjectName};
use tokio::sync::Notify;

use super::{Agent, REPAIR_SERVICES, events::PolicyChange};
use crate::{
    args::Config,
    cleanup::chain,
    complaints::{Complaint, Complaints},
    due::Due,
    policy::{Outcome, PodRef, Programmer, knowledge::Knowledge},
    status::Enforcement,
};

/// How often the snapshot is written at most.
const SAVE: Duration = Duration::from_secs(1);
/// So many things are named in the condition.
const NAMED: usize = 3;

/// What the agent knows of policy, and how far it is in force.
pub(super) struct Policing {
    knowledge: Knowledge,
    /// The result of the last batch.
    outcome: Outcome,
    /// Why the last batch could not be made at all.
    refused: Option<String>,
    /// The pods with a link at the last look.
    attached: BTreeMap<Address, PodRef>,
    /// When the first event came that is not in the maps yet.
    since: Option<Instant>,
    repair: Due,
    unsaved: bool,
    save: Due,
    moved: Arc<Notify>,
}

impl Policing {
    /// With what an earlier agent left.
    pub(super) fn restore(config: &Config) -> Self {
        let knowledge = Knowledge::restore(&config.node_name, &config.run_folder, &config.state_folder);
        Self {
            knowledge,
            outcome: Outcome::default(),
            refused: None,
            attached: BTreeMap::new(),
            since: Some(Instant::now()),
            repair: Due::now(REPAIR_SERVICES),
            unsaved: false,
            save: Due::now(SAVE),
            moved: Arc::new(Notify::new()),
        }
    }

    /// Rung when a pod comes or goes.
    pub(super) fn moved(&self) -> Arc<Notify> {
        self.moved.clone()
    }

    /// Pods, namespaces and policies have all been listed.
    pub(super) fn is_complete(&self) -> bool {
        self.knowledge.is_complete()
    }

    /// Takes over maps of an earlier agent.
    pub(super) fn take_over(&mut self, programmer: &Programmer) {
        let (identity, rule) = programmer.highest_numbers();
        self.knowledge.skip_numbers(identity, rule);
        self.attached.clear();
        self.repair.done(Instant::now());
        self.stir();
    }

    fn stir(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// Objects that are ignored, for the metric.
    pub(super) fn invalid(&self) -> usize {
        self.knowledge.index().problems().iter().count()
    }

    /// What the condition says.
    fn enforcement(&self) -> Enforcement {
        let index = self.knowledge.index();
        let failed = self.refused.iter().chain(&self.outcome.problems).cloned();
        let ignored = index.problems().iter().map(ToString::to_string);
        let unsupported = index.unsupported().map(ToString::to_string);
        let unknown = self.outcome.closed.iter().filter(|pod| pod.is_named()).map(|pod| {
            format!("pod {} is closed but for its own node: the API server has not said who it is", pod.name)
        });
        let unknown = unknown.filter(|_| self.outcome.problems.is_empty());
        let says = [
            ("ProgrammingFailed", failed.collect::<Vec<_>>()),
            ("Invalid", ignored.collect()),
            ("Unsupported", unsupported.collect()),
            ("PodsUnknown", unknown.collect()),
        ];
        if let Some((reason, _)) = says.iter().find(|(_, all)| !all.is_empty()) {
            let messages = says.iter().flat_map(|(_, all)| all);
            let more = messages.clone().count().saturating_sub(NAMED);
            let rest = (more > 0).then(|| format!("and {more} more"));
            let named = messages.take(NAMED).chain(&rest).map(String::as_str);
            let message = named.collect::<Vec<_>>().join("; ");
            return Enforcement { good: false, reason, message };
        }
        if !self.knowledge.is_complete() {
            let message =
                "pods, namespaces and policies have not all been listed yet: what was in force before stays";
            return Enforcement { good: false, reason: "Starting", message: message.to_owned() };
        }
        let message = format!("{} policies are in force", self.knowledge.policies());
        Enforcement { good: true, reason: "InForce", message }
    }

    /// What the authors of policies are to be told.
    fn complaints(&self) -> Complaints {
        let index = self.knowledge.index();
        let mut said: BTreeMap<ObjectName, (&'static str, Vec<String>)> = BTreeMap::new();
        for part in index.unsupported() {
            let (_, all) = said.entry(part.policy.clone()).or_insert(("Unsupported", Vec::new()));
            all.push(format!("{}: {} is not implemented and allows nothing", part.field, part.what));
        }
        let policies =
            index.problems().iter().filter(|invalid| invalid.kind == netkeel_index::policies::POLICY);
        for invalid in policies {
            let message = format!("ignored, what was known of it stays in force: {}", invalid.reason);
            said.insert(invalid.name.clone(), ("Invalid", vec![message]));
        }
        let complaint = |(policy, (reason, all)): (ObjectName, (&'static str, Vec<String>))| {
            let version = self.knowledge.version(&policy);
            let (uid, generation) =
                version.map(|version| (version.uid.clone(), version.generation)).unwrap_or_default();
            Complaint { policy, uid, generation, reason, message: all.join("; ") }
        };
        said.into_iter().map(complaint).collect()
    }
}

impl Agent {
    /// Takes an event of pods, namespaces or policies in.
    pub(super) fn policy_event(&mut self, change: PolicyChange) {
        let (policing, wishes) = (&mut self.policing, &self.with.pool.wishes);
        let changed = match change {
            PolicyChange::Pod(event) => {
                wishes.pod_event(&event);
                policing.knowledge.pod_event(event)
            }
            PolicyChange::Namespace(event) => {
                wishes.namespace_event(&event);
                policing.knowledge.namespace_event(event)
            }
            PolicyChange::Policy(event) => policing.knowledge.policy_event(event),
        };
        policing.unsaved |= changed;
        // A first list may bring nothing new and still be what was missing.
        if changed || !policing.outcome.complete {
            policing.stir();
        }
    }

    /// The nodes' addresses changed, or are all known now.
    pub(super) fn nodes_known(&mut self) {
        let nodes = self.nodes.iter().flat_map(|node| {
            let addresses = node.addresses.iter().chain(node.overlay_addresses().iter());
            let addresses = addresses.chain(node.former_overlay_addresses());
            addresses.map(|address| (Address::from(address), node.name.clone())).collect::<Vec<_>>()
        });
        self.policing.knowledge.set_nodes(nodes);
        self.policing.stir();
    }

    /// Writes what changed into the maps; looks for drift when that is due.
    pub(super) fn police(&mut self, now: Instant) {
        let Some(programmer) = self.kernel.as_ref().map(|kernel| kernel.policy.clone()) else { return };
        let policing = &mut self.policing;
        let attached = programmer.attached();
        if attached != policing.attached {
            policing.attached = attached;
            policing.stir();
        }
        if !programmer.is_ready() {
            return;
        }
        let look = policing.repair.is(now);
        if !policing.knowledge.is_something() || !(look || policing.since.is_some()) {
            return;
        }
        policing.knowledge.place(&policing.attached);
        let complete = policing.knowledge.is_complete() && self.synced.nodes;
        let span = tracing::info_span!("policy.program", complete);
        let written = span.in_scope(|| {
            if look {
                programmer.repair().map_err(|error| chain(&error))?;
            }
            policing.knowledge.program(&programmer, complete).map_err(|error| chain(&error))
        });
        let before = policing.outcome.writes;
        let failed = match written {
            Ok(outcome) => {
                policing.refused = None;
                policing.outcome = outcome;
                !policing.outcome.problems.is_empty()
            }
            Err(error) => {
                policing.refused = Some(error);
                true
            }
        };
        let since = policing.since.take();
        if look || failed {
            if failed { policing.repair.failed(now) } else { policing.repair.done(now) }
        }
        self.told(before, since, failed);
    }

    /// Figures and the log after a batch.
    fn told(&mut self, before: u64, since: Option<Instant>, failed: bool) {
        let (policing, metrics) = (&self.policing, &self.with.metrics);
        let outcome = &policing.outcome;
        if let Some(since) = since.filter(|_| !failed) {
            metrics.policy_programming.observe(since.elapsed().as_secs_f64());
        }
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.policy_writes.inc_by(outcome.writes.saturating_sub(before));
        metrics.policies.set(number(policing.knowledge.policies()));
        metrics.policy_unsupported.set(number(policing.knowledge.index().unsupported().count()));
        metrics.endpoints_closed.set(number(outcome.closed.len()));
        metrics.policy_tables.set(number(outcome.tables));
        metrics.policy_entries.set(number(outcome.entries));
        metrics.identities.set(number(outcome.identities));
        metrics.cidrs.set(number(outcome.cidrs));
        if failed {
            metrics.failed("PolicyFailed");
        }
        let enforcement = policing.enforcement();
        if self.report.policy.as_ref() != Some(&enforcement) {
            if enforcement.good {
                tracing::info!(reason = enforcement.reason, "{}", enforcement.message);
            } else {
                tracing::warn!(reason = enforcement.reason, "{}", enforcement.message);
            }
        }
        self.report.policy = Some(enforcement);
        let complaints = policing.complaints();
        self.complaints.send_if_modified(|told| {
            let new = *told != complaints;
            *told = complaints;
            new
        });
    }

    /// Keeps what policy depends on for a start without the API server.
    pub(super) fn save_policy(&mut self, now: Instant) {
        let policing = &mut self.policing;
        if !(policing.unsaved && policing.knowledge.is_complete() && policing.save.is(now)) {
            return;
        }
        policing.unsaved = false;
        policing.save.done(now);
        if let Err(error) = policing.knowledge.snapshot().write(&self.with.config.state_folder) {
            tracing::warn!(error = chain(&error), "what policy depends on is not kept");
        }
    }
}
