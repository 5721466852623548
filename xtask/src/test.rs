//! `cargo xtask test`: every check and test of the repository, in steps that also run alone. Goes on after a
//! failed step, skips what cannot run on this machine and says why, and ends with one line of sums.

mod child;
mod count;
mod lanes;
mod steps;
pub(crate) mod suite;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use child::Log;
use count::Count;
use steps::{STEPS, Step};
use suite::Suite;

/// What to test.
#[derive(Args)]
pub(crate) struct Options {
    /// Steps to run, without those they depend on; all of them when none is named.
    steps: Vec<String>,
    /// List the steps and what each does.
    #[arg(long)]
    list: bool,
    /// Run only the tests whose name contains this.
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
}

/// What a step came to.
#[derive(Debug)]
enum Outcome {
    /// Ran; how many tests passed and failed is in the count.
    Ran(Count),
    /// Could not run here.
    Skipped(Count, String),
}

/// What the steps share while they run.
struct Run {
    /// The repository's root.
    root: PathBuf,
    /// The test programs, built when the first step needs them.
    suite: Mutex<Option<Arc<Suite>>>,
    /// Part of the names of the tests to run.
    filter: Option<String>,
}

/// Runs the steps; the process ends with 1 when one of them failed.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.list {
        for step in STEPS {
            println!("{:<10} {}", step.name, step.about);
        }
        return Ok(());
    }
    let chosen = choose(&options.steps)?;
    let start = Instant::now();
    let run = Run { root: crate::root(), suite: Mutex::default(), filter: options.filter.clone() };
    let mut outcomes = BTreeMap::new();
    let mut total = Count::default();
    for stage in chosen.chunk_by(|one, next| one.beside && next.beside) {
        for (step, outcome) in stage.iter().zip(attempt_all(stage, &run, &outcomes)) {
            total += outcome.count();
            outcomes.insert(step.name, outcome);
        }
    }
    summarise(&outcomes, start.elapsed());
    println!("{total}");
    if total.failed > 0 {
        // the sums stay the last line
        std::process::exit(1);
    }
    Ok(())
}

/// The steps of these names, in the order of the table; all when none is named.
fn choose(names: &[String]) -> Result<Vec<&'static Step>> {
    if let Some(unknown) = names.iter().find(|name| !STEPS.iter().any(|step| step.name == **name)) {
        let known: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        bail!("there is no step {unknown}: the steps are {}", known.join(", "));
    }
    Ok(STEPS.iter().filter(|step| names.is_empty() || names.iter().any(|name| name == step.name)).collect())
}

/// Runs these steps at the same time.
fn attempt_all(stage: &[&Step], run: &Run, before: &BTreeMap<&str, Outcome>) -> Vec<Outcome> {
    thread::scope(|scope| {
        let steps: Vec<_> = stage.iter().map(|step| scope.spawn(|| attempt(step, run, before))).collect();
        steps.into_iter().map(|step| step.join().unwrap_or(Outcome::Ran(Count::FAILED))).collect()
    })
}

/// Runs one step and tells what came of it.
fn attempt(step: &Step, run: &Run, before: &BTreeMap<&str, Outcome>) -> Outcome {
    println!("==> {}: {} (cargo xtask test {})", step.name, step.about, step.name);
    let start = Instant::now();
    let missing = || step.needs.iter().find_map(|need| need.missing());
    let broken = step.after.iter().find(|name| before.get(*name).is_some_and(Outcome::is_broken));
    let outcome = if let Some(name) = broken {
        Outcome::Skipped(Count::SKIPPED, format!("it needs the step {name}"))
    } else if let Some(reason) = missing() {
        Outcome::Skipped(step.size(run), reason)
    } else {
        go(step, run)
    };
    println!("    {}: {} in {}\n", step.name, outcome.line(), seconds(start.elapsed()));
    outcome
}

fn go(step: &Step, run: &Run) -> Outcome {
    let count = Log::create(&run.root, step.name).and_then(|mut log| {
        let result = (step.run)(run, &mut log);
        if !matches!(result, Ok(Count { failed: 0, .. })) {
            log.show();
            println!("    log: {}", log.path().display());
        }
        result
    });
    Outcome::Ran(count.unwrap_or_else(|error| {
        println!("    {error:#}");
        Count::FAILED
    }))
}

fn summarise(outcomes: &BTreeMap<&str, Outcome>, took: Duration) {
    println!("==> all steps in {}", seconds(took));
    for step in STEPS {
        if let Some(outcome) = outcomes.get(step.name) {
            println!("    {:<10} {}", step.name, outcome.line());
        }
    }
}

impl Outcome {
    fn count(&self) -> Count {
        match self {
            Self::Ran(count) | Self::Skipped(count, _) => *count,
        }
    }

    /// Whether what builds on the step cannot be expected to work.
    fn is_broken(&self) -> bool {
        self.count().failed > 0 || matches!(self, Self::Skipped(..))
    }

    fn line(&self) -> String {
        match self {
            Self::Ran(count) if count.failed > 0 => format!("FAILED: {count}"),
            Self::Ran(count) => format!("ok: {count}"),
            Self::Skipped(_, reason) => format!("skipped: {reason}"),
        }
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_run_in_the_order_of_the_table_and_only_those_named() {
        let names = |wanted: &[&str]| -> Vec<_> {
            let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
            choose(&wanted).unwrap().iter().map(|step| step.name).collect()
        };
        assert_eq!(names(&["unit", "fmt"]), ["fmt", "unit"]);
        assert_eq!(names(&[]).len(), STEPS.len());
        assert!(choose(&["nonsense".into()]).unwrap_err().to_string().contains("the steps are setup, fmt"));
    }

    #[test]
    fn steps_that_run_at_the_same_time_follow_each_other_and_do_not_need_each_other() {
        let stages: Vec<_> = STEPS.chunk_by(|one, next| one.beside && next.beside).collect();
        assert_eq!(stages.iter().filter(|stage| stage.len() > 1).count(), 1);
        for step in stages.iter().filter(|stage| stage.len() > 1).copied().flatten() {
            let needed = |name: &&str| STEPS.iter().any(|other| other.beside && other.name == *name);
            assert!(!step.after.iter().any(needed), "{} needs a step beside it", step.name);
        }
    }

    #[test]
    fn a_step_comes_after_those_it_depends_on() {
        for (index, step) in STEPS.iter().enumerate() {
            for name in step.after {
                assert!(STEPS[..index].iter().any(|step| step.name == *name), "{} after {name}", step.name);
            }
        }
    }

    #[test]
    fn what_builds_on_a_failed_or_skipped_step_is_not_run() {
        assert!(Outcome::Ran(Count::FAILED).is_broken());
        assert!(Outcome::Skipped(Count::SKIPPED, "not root".into()).is_broken());
        assert!(!Outcome::Ran(Count::PASSED).is_broken());
    }
}
