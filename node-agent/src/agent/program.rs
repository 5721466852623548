//! Services into the kernel's maps.

use std::time::Instant;

use netkeel_core::name::ObjectName;

use super::Agent;
use crate::{cleanup::chain, status::Part};

impl Agent {
    /// Writes Services that changed; compares all of them when that is due.
    pub(super) fn program(&mut self, now: Instant) {
        let Some(kernel) = self.kernel.as_mut().filter(|_| self.synced.services && self.synced.slices) else {
            return;
        };
        let (before, start) = (kernel.tables.writes(), Instant::now());
        let wanted = |name: &ObjectName| (name.clone(), self.services.frontends(name));
        if self.repair.is(now) {
            self.changed.clear();
            let repaired = kernel.tables.repair(self.services.iter().map(|service| wanted(&service.name)));
            if let Err(error) = repaired {
                self.repair.failed(now);
                return self.fail(Part::Services, "ServicesFailed", chain(&error));
            }
            self.repair.done(now);
            self.programmed = true;
        } else if !self.changed.is_empty() {
            kernel.tables.update(std::mem::take(&mut self.changed).iter().map(wanted));
            self.with.metrics.programming.observe(start.elapsed().as_secs_f64());
        } else {
            return;
        }
        let failed = kernel.tables.failed();
        let first = failed.iter().next().map(|(name, why)| format!("Service {name}: {why}"));
        let metrics = &self.with.metrics;
        metrics.service_writes.inc_by(kernel.tables.writes() - before);
        metrics.frontends.set(i64::try_from(kernel.tables.frontends()).unwrap_or(i64::MAX));
        metrics.services_failed.set(i64::try_from(failed.len()).unwrap_or(i64::MAX));
        match first {
            Some(first) => {
                self.repair.failed(now);
                self.fail(Part::Services, "ServicesFailed", first);
            }
            None => self.solve(Part::Services),
        }
    }
}
