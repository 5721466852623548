//! Keeps the CPUs from idling while something is measured. On a virtual machine waking an idle CPU can cost more than all
//! that is measured; a loop at idle priority (`SCHED_IDLE`) on each takes only what nobody else wants. It is nice as well, so that
//! its CPU time is counted apart from that of what is measured.

use std::process::{Child, Command, Stdio};
use std::thread::available_parallelism;

use anyhow::{Context, Result};
use netkeel_e2e::cgroup;

/// Until it is dropped, or this process ends.
pub(super) struct Awake(Vec<Child>);

impl Awake {
    pub(super) fn start() -> Result<Self> {
        let mut awake = Self(Vec::new());
        for cpu in 0..available_parallelism()?.get() {
            awake.spin(cpu)?;
        }
        Ok(awake)
    }

    fn spin(&mut self, cpu: usize) -> Result<()> {
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "KILL",
            "nice",
            "-n",
            "19",
            "chrt",
            "--idle",
            "0",
            "taskset",
            "--cpu-list",
        ]);
        command.arg(cpu.to_string()).args(["sh", "-c", "while :; do :; done"]).stdin(Stdio::null());
        let child = command.spawn().context("setpriv, chrt and taskset are of the package util-linux")?;
        let pid = child.id();
        self.0.push(child);
        // In a group of its own its priority would count for nothing beside other groups.
        cgroup::share_cpu_at_root(pid)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinners_end_when_they_are_dropped() {
        let mut awake = Awake(Vec::new());
        // Without root the group cannot be changed; the process must end all the same.
        drop(awake.spin(0));
        let folder = format!("/proc/{}", awake.0[0].id());
        assert!(std::path::Path::new(&folder).exists());
        drop(awake);
        assert!(!std::path::Path::new(&folder).exists());
    }
}
