//! The last step of start-up: from then on the runtime calls Netkeel.

use std::{path::PathBuf, time::Instant};

use super::Agent;
use crate::{
    cleanup::chain,
    install::{self, Folders},
    status::Part,
};

impl Agent {
    /// Lets the runtime call Netkeel, once all else stands.
    pub(super) fn install(&mut self, now: Instant) {
        let listed = self.synced.services && self.synced.slices && self.policing.is_complete();
        let up = self.applied.is_some() && self.cni.is_some() && listed;
        if !up || !self.install.is(now) {
            return;
        }
        let folders = Folders::below(&self.with.config.host_prefix);
        let installed = folders.install_plugin(&self.with.config.plugin).and_then(|plugin| {
            let configuration = folders.install_configuration()?;
            Ok((plugin, configuration, folders.rivals()?))
        });
        match installed {
            Ok((plugin, configuration, rivals)) => {
                if plugin || configuration {
                    tracing::info!(plugin, configuration, "CNI plugin and configuration written");
                }
                self.install.done(now);
                self.solve(Part::Install);
                let note = |path: &PathBuf| {
                    format!("{} is another network's and not used: remove it", path.display())
                };
                self.report.notes = rivals.iter().map(note).collect();
            }
            Err(error) => {
                self.install.failed(now);
                let reason = if matches!(error, install::Error::Rival { .. }) {
                    "RivalConfiguration"
                } else {
                    "InstallFailed"
                };
                self.fail(Part::Install, reason, chain(&error));
            }
        }
    }
}
