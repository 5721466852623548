//! What the agent says of itself: figures, problems, readiness.

use std::time::Instant;

use netkeel_core::ipam::Releasing;
use netkeel_crds::{
    cluster_network::Usage,
    node_network::{BlockRelease, BlockUsage},
};

use super::Agent;
use crate::{
    ipam::BlockUse,
    route,
    status::{Part, Paths, Problem},
};

/// So many impossible objects are named in the condition; the metric counts all.
const NAMED: usize = 3;

/// Reason while the operator has not written all that a node needs: nothing is wrong yet.
pub(super) const WAITING: &str = "Waiting";

fn block_usage(BlockUse { block, usage, idle }: BlockUse) -> BlockUsage {
    BlockUsage { cidr: block, used: usage.used + usage.resting, capacity: usage.capacity, idle }
}

fn block_release(releasing: &Releasing) -> BlockRelease {
    BlockRelease { cidr: releasing.block, ticket: releasing.ticket.to_string() }
}

impl Agent {
    pub(super) fn measure(&mut self, now: Instant) {
        if !self.measure.is(now) {
            return;
        }
        self.measure.done(now);
        let metrics = &self.with.metrics;
        if let Some(kernel) = &self.kernel {
            metrics.read_kernel(&kernel.datapath, &mut self.counted);
        }
        let usage = self.with.pool.usage();
        metrics.addresses_used.set(usage.used.into());
        metrics.addresses_capacity.set(usage.capacity.into());
        metrics.addresses_resting.set(usage.resting.into());
        let refusals = self.with.pool.refusals();
        metrics.address_refusals.inc_by(refusals - metrics.address_refusals.get());
        let invalid = self.services.problems().iter().chain(self.nodes.problems().iter()).count();
        let invalid = invalid + self.policing.invalid();
        metrics.invalid_objects.set(i64::try_from(invalid).unwrap_or(i64::MAX));
        self.report.addresses = Some(Usage { used: usage.used, capacity: usage.capacity });
        self.measure_blocks();
    }

    /// Figures that the operator acts on are told at once, the others when it is their time.
    pub(super) fn measure_blocks(&mut self) {
        let pool = &self.with.pool;
        self.report.blocks = pool.usage_by_block().into_iter().map(block_usage).collect();
        self.report.wanted = pool.wanted();
        // An agent that starts without the API server must know that it has given them back.
        let released = pool.released();
        let kept = released.iter().filter(|releasing| self.kept.contains(releasing));
        self.report.released = kept.map(block_release).collect();
        self.report.shortage = pool.shortage();
    }

    pub(super) fn fail(&mut self, part: Part, reason: &'static str, message: String) {
        let problem = Problem { reason, message };
        self.with.metrics.failed(reason);
        if self.report.problems.get(&part) != Some(&problem) {
            if reason == WAITING {
                tracing::info!(reason, "{}", problem.message);
            } else {
                tracing::error!(reason, "{}", problem.message);
            }
            self.report.problems.insert(part, problem);
        }
    }

    pub(super) fn solve(&mut self, part: Part) {
        if self.report.problems.remove(&part).is_some() {
            tracing::info!(?part, "works again");
        }
    }

    pub(super) fn publish(&mut self) {
        let mut report = self.report.clone();
        let starting = self.coming_up().filter(|_| report.problems.is_empty() && !report.removed);
        if let Some(message) = starting {
            let problem = Problem { reason: "Starting", message: message.to_owned() };
            report.problems.insert(Part::Install, problem);
        }
        let invalid = self.services.problems().iter().chain(self.nodes.problems().iter());
        report.notes.extend(report.unkept.clone());
        report.notes.extend(invalid.take(NAMED).map(ToString::to_string));
        report.notes.extend(self.fights.notes(Instant::now()));
        if let Some((wanted, applied)) = &self.applied {
            report.notes.extend(applied.underlay.too_small_for(applied.mtu, wanted.overhead()));
            report.notes.extend(route::unprovided(&applied.elsewhere));
        }
        let proof = self.proof.borrow().clone();
        self.with.metrics.paths(&proof);
        report.paths = match proof.problem() {
            Some(message) => Some(Paths::TooLarge(message)),
            None => (proof.mtu != 0).then_some(Paths::Proven(proof.mtu)),
        };
        match report.problems.values().next() {
            Some(problem) => self.with.ready.fail(&*problem.message),
            None => self.with.ready.pass(),
        }
        self.reports.send_if_modified(|old| {
            let new = *old != report;
            *old = report;
            new
        });
    }

    /// What the agent still waits for, without anything being wrong.
    fn coming_up(&self) -> Option<&'static str> {
        if !(self.synced.services && self.synced.slices && self.synced.nodes) {
            return Some(
                "Services, EndpointSlices and NodeNetworks have not all been listed yet: is the API server there?",
            );
        }
        if !self.policing.is_complete() {
            return Some(
                "Pods, Namespaces and NetworkPolicies have not all been listed yet: is the API server there?",
            );
        }
        self.applied.is_none().then_some("the node's network is being set up")
    }
}
