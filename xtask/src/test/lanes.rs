//! The test programs that need a real cluster, in lanes that run side by side. Most of their time is spent in waiting for
//! something, so two cores carry all lanes. Programs that share a cluster are in one lane.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::child::Log;
use super::count::Count;
use super::suite::{self, Program};

/// Targets of the lanes. One that is not named here joins the last lane, whose programs share the cluster `e2e`; a program of
/// another lane has a cluster of its own.
const LANES: [&[&str]; 3] = [&["survival"], &["cluster", "docs", "ipam", "lifecycle", "observability"], &[]];

/// Clusters that these programs make.
pub(super) const CLUSTERS: [&str; 8] =
    ["docs", "e2e", "families", "harness", "ipam", "lifecycle", "observed", "survival"];

/// Runs all lanes; the log gets what each wrote, one after the other.
pub(super) fn run(programs: Vec<Program>, args: &[&str], limit: Duration, log: &mut Log) -> Result<Count> {
    let mut lanes = [const { Vec::new() }; LANES.len()];
    for program in programs {
        lanes[lane(program.target())].push(program);
    }
    let mut logs = Vec::new();
    for number in 1..=lanes.len() {
        logs.push(log.beside(&format!("lane-{number}"))?);
    }
    let counts: Vec<Count> = thread::scope(|scope| {
        let threads: Vec<_> = lanes
            .iter()
            .zip(&mut logs)
            .map(|(programs, log)| scope.spawn(move || suite::run(programs, args, limit, log)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Count::FAILED)).collect()
    });
    logs.iter().try_for_each(|lane| log.append(lane))?;
    let mut total = Count::default();
    for count in counts {
        total += count;
    }
    Ok(total)
}

fn lane(target: &str) -> usize {
    LANES.iter().position(|lane| lane.contains(&target)).unwrap_or(LANES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_without_a_cluster_of_their_own_run_one_after_the_other() {
        assert_ne!(lane("survival"), lane("lifecycle"));
        assert_eq!(lane("network"), lane("policy"));
        assert_eq!(lane("a program of tomorrow"), lane("network"));
    }
}
