//! The test programs that need a real cluster, in lanes that run side by side. Half of their time is spent in waiting for
//! something, so two cores carry two lanes. Programs that share a cluster are in one lane.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use netkeel_e2e::Cluster;

use super::child::Log;
use super::count::Count;
use super::suite::{self, Program};

/// Targets of the lanes, each with the cluster that it has for itself. One that is not named here joins the last lane, whose
/// programs share the cluster [`SHARED`].
const LANES: [&[(&str, &str)]; 2] = [
    &[
        ("docs", "docs"),
        ("families", "families"),
        ("ipam", "ipam"),
        ("lifecycle", "lifecycle"),
        ("survival", "survival"),
    ],
    &[("cluster", "harness"), ("observability", "observed")],
];
const SHARED: &str = "e2e";

/// Clusters that these programs make.
pub(super) fn clusters() -> impl Iterator<Item = &'static str> {
    LANES.iter().copied().flatten().map(|(_, cluster)| *cluster).chain([SHARED])
}

/// Runs all lanes; the log gets what each wrote, one after the other. A cluster that is not shared is taken down when its
/// program has passed: also one at rest costs the others time.
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
            .map(|(programs, log)| scope.spawn(move || one_by_one(programs, args, limit, log)))
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

fn one_by_one(programs: &[Program], args: &[&str], limit: Duration, log: &mut Log) -> Count {
    let mut total = Count::default();
    for program in programs {
        let count = suite::run(std::slice::from_ref(program), args, limit, log);
        total += count;
        if let Some(cluster) = own_cluster(program.target()).filter(|_| count.failed == 0)
            && let Err(error) = Cluster::down(cluster)
        {
            println!("    {cluster} is not taken down: {error:#}");
            total += Count::FAILED;
        }
    }
    total
}

fn own_cluster(target: &str) -> Option<&'static str> {
    LANES.iter().copied().flatten().find(|(name, _)| *name == target).map(|(_, cluster)| *cluster)
}

fn lane(target: &str) -> usize {
    LANES.iter().position(|lane| lane.iter().any(|(name, _)| *name == target)).unwrap_or(LANES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_without_a_cluster_of_their_own_run_one_after_the_other() {
        assert_ne!(lane("survival"), lane("network"));
        assert_eq!(lane("network"), lane("policy"));
        assert_eq!(lane("a program of tomorrow"), lane("network"));
        assert_eq!((own_cluster("cluster"), own_cluster("network")), (Some("harness"), None));
    }
}
