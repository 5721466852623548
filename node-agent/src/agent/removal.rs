//! The way back: the node as it was before.

use std::time::Instant;

use tokio::runtime::Handle;

use super::Agent;
use crate::{
    args::Config,
    cleanup::{self, Places, chain},
    install::Folders,
    node::NodeState,
    settings,
    status::Part,
};

impl Places {
    /// The places of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            folders: Folders::below(&config.host_prefix),
            bpffs: config.bpffs.clone(),
            settings: settings::folder(&config.host_prefix),
            kept: config.run_folder.clone(),
            state: vec![config.run_folder.clone(), config.state_folder.clone()],
        }
    }
}

impl Agent {
    /// Takes everything away, until nothing is left.
    pub(super) fn remove(&mut self, now: Instant) {
        if self.report.removed || !self.removal.is(now) {
            return;
        }
        self.node.send_replace(None::<std::sync::Arc<NodeState>>);
        Handle::current().block_on(self.stop());
        if !self.calls.is_empty() {
            // What such a call makes from now on would outlive the clean-up.
            let message = format!("waiting for {} CNI calls that are under way", self.calls.len());
            self.removal.failed(now);
            return self.fail(Part::Cleanup, "CallsUnderWay", message);
        }
        self.kernel = None;
        self.applied = None;
        match cleanup::clean(&Places::of(&self.with.config)) {
            Ok(()) => {
                tracing::info!("everything that the agent made on this node is gone");
                self.report.problems.clear();
                self.report.notes.clear();
                self.report.removed = true;
            }
            Err(error) => {
                self.removal.failed(now);
                self.fail(Part::Cleanup, "CleanupFailed", chain(&error));
            }
        }
    }

    /// Whether a removed node is wanted again: only a new process starts from the beginning.
    #[must_use]
    pub fn is_wanted_again(&self) -> bool {
        self.report.removed && self.own().is_some_and(|node| !node.removing)
    }
}
