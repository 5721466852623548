//! The test programs that need a real cluster, in lanes that run side by side: half of their time is spent in waiting for
//! something, so two cores carry more lanes than two. A lane takes the next piece of work as soon as it has ended one.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use netkeel_e2e::Cluster;

use super::child::Log;
use super::count::Count;
use super::steps::ONE_AT_A_TIME;
use super::suite::{self, Program};

/// How many run at once.
const LANES: usize = 3;
/// The cluster of all programs that [`OWN`] does not name.
const SHARED: &str = "e2e";
/// Tells a program which cluster it has.
const CLUSTER: &str = "NETKEEL_E2E_CLUSTER";

/// A program, or a part of one, with a cluster for itself: it would be too long among those that share one, or it needs one of its kind.
struct Own {
    target: &'static str,
    cluster: &'static str,
    /// Which of the program's tests these are, as libtest's arguments. The parts of a program have all of its tests.
    part: &'static [&'static str],
}

/// What takes long comes first, so that no lane is left with it at the end. The programs on the shared cluster come second.
const OWN: &[Own] = &[
    Own { part: &["--skip", "agents::"], ..own("survival", "survival") },
    own("lifecycle", "lifecycle"),
    own("network", "network"),
    Own { part: &["agents::"], ..own("survival", "agents") },
    own("ipam", "ipam"),
    own("observability", "observed"),
    own("ipv6", "ipv6"),
    own("families", "families"),
    own("docs", "docs"),
    own("cluster", "harness"),
];

const fn own(target: &'static str, cluster: &'static str) -> Own {
    Own { target, cluster, part: &[] }
}

/// Programs that follow each other on one cluster, by the names of their targets.
#[derive(Debug, PartialEq, Eq)]
struct Work<'a> {
    cluster: &'static str,
    targets: Vec<&'a str>,
    part: &'static [&'static str],
}

/// Clusters that these programs make.
pub(super) fn clusters() -> impl Iterator<Item = &'static str> {
    OWN.iter().map(|own| own.cluster).chain([SHARED])
}

/// Runs all programs, or of each only the tests whose names contain `filter`. The log gets what each piece of work wrote, one
/// after the other.
pub(super) fn run(
    programs: &[Program],
    filter: Option<&str>,
    limit: Duration,
    log: &mut Log,
) -> Result<Count> {
    let targets: Vec<_> = programs.iter().map(Program::target).collect();
    let mut queue = VecDeque::new();
    for work in plan(&targets, filter.is_none()) {
        let log = log.beside(work.cluster)?;
        queue.push_back((work, log));
    }
    let queue = Mutex::new(queue);
    let lane = || {
        let mut ended = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((work, mut log)) = next else { return ended };
            ended.push((work.run(programs, filter, limit, &mut log), log));
        }
    };
    let lanes: Vec<_> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let mut total = Count::default();
    for lane in lanes {
        let Ok(ended) = lane else {
            total += Count::FAILED;
            continue;
        };
        for (count, part) in ended {
            total += count;
            log.append(&part)?;
        }
    }
    Ok(total)
}

/// The pieces of work in the order in which they begin. Without `parts` no program is parted.
fn plan<'a>(targets: &[&'a str], parts: bool) -> Vec<Work<'a>> {
    let mut works: Vec<Work> = Vec::new();
    for own in OWN {
        let target = targets.iter().copied().find(|target| *target == own.target);
        let Some(target) = target else { continue };
        let begun = works.iter().any(|work| work.targets == [target]);
        if parts {
            works.push(Work { cluster: own.cluster, targets: vec![target], part: own.part });
        } else if !begun {
            works.push(Work { cluster: own.cluster, targets: vec![target], part: &[] });
        }
    }
    let sharing = |target: &&str| OWN.iter().all(|own| own.target != *target);
    let targets: Vec<_> = targets.iter().copied().filter(sharing).collect();
    if !targets.is_empty() {
        works.insert(works.len().min(1), Work { cluster: SHARED, targets, part: &[] });
    }
    works
}

impl Work<'_> {
    /// A cluster is taken down when its programs have passed: also one at rest costs the others time.
    fn run(&self, programs: &[Program], filter: Option<&str>, limit: Duration, log: &mut Log) -> Count {
        let start = Instant::now();
        let args: Vec<_> = ONE_AT_A_TIME.into_iter().chain(filter).chain(self.part.iter().copied()).collect();
        let mut total = Count::default();
        for target in &self.targets {
            let of_target = programs.iter().filter(|program| program.target() == *target);
            let of_target: Vec<_> = of_target.map(|it| it.clone().with(CLUSTER, self.cluster)).collect();
            total += suite::run(&of_target, &args, limit, log);
        }
        println!("    {}: {total} in {:.0} s", self.cluster, start.elapsed().as_secs_f64());
        if total.failed == 0
            && let Err(error) = Cluster::down(self.cluster)
        {
            println!("    {} is not taken down: {error:#}", self.cluster);
            total += Count::FAILED;
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_without_a_cluster_of_their_own_are_one_piece_of_work() {
        let works = plan(&["service", "survival", "policy", "docs", "a program of tomorrow"], true);
        let clusters: Vec<_> = works.iter().map(|work| work.cluster).collect();
        assert_eq!(clusters, ["survival", SHARED, "agents", "docs"]);
        assert_eq!(works[1].targets, ["service", "policy", "a program of tomorrow"]);
    }

    /// One part has all tests but those that the others choose.
    #[test]
    fn the_parts_of_a_program_are_all_of_it() {
        for target in OWN.iter().map(|own| own.target) {
            let parts = || OWN.iter().filter(|own| own.target == target).map(|own| own.part);
            let skipping = parts().filter(|part| part.is_empty() || part.contains(&"--skip"));
            let skipped: Vec<_> = skipping.clone().flatten().filter(|word| **word != "--skip").collect();
            let chosen: Vec<_> = parts().filter(|part| !part.contains(&"--skip")).flatten().collect();
            assert_eq!((skipping.count(), skipped), (1, chosen), "{target}");
        }
    }

    #[test]
    fn a_program_of_which_somebody_chooses_tests_is_not_parted() {
        let whole = Work { cluster: "survival", targets: vec!["survival"], part: &[] };
        assert_eq!(plan(&["survival"], false), [whole]);
    }
}
