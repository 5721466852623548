//! The table of steps: what each runs, what it needs of the machine, and which steps it builds on.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use netkeel_e2e::process;

use super::Run;
use super::child::Log;
use super::count::Count;
use super::lanes;
use super::suite::{self, Program, Suite};

/// One step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: &'static str,
    /// Completes "unit: …" and the list.
    pub(super) about: &'static str,
    /// Steps that must not have failed in the same run.
    pub(super) after: &'static [&'static str],
    pub(super) needs: &'static [Need],
    /// May run at the same time as its neighbours that may, too: it waits as much as it computes.
    pub(super) beside: bool,
    /// Package whose gated tests the step runs, if that is what it does.
    gated: Option<&'static str>,
    pub(super) run: fn(&Run, &mut Log) -> Result<Count>,
}

/// What a step needs of the machine.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    Root,
    /// Linux 6.6 or later, which has tcx.
    Kernel,
    /// Debian's package manager, and the right to use it.
    Apt,
}

/// What libtest is told where tests share this kernel or one cluster.
pub(super) const ONE_AT_A_TIME: [&str; 2] = ["--test-threads=1", "--nocapture"];

/// The version that is installed where there is none.
const CARGO_DENY: &str = "0.20.2";
const QUICK: Duration = Duration::from_mins(5);
const BUILD: Duration = Duration::from_mins(30);
const TESTS: Duration = Duration::from_mins(10);
const CLUSTER: Duration = Duration::from_mins(25);

/// Plain checks come first, then what is built, then what needs it.
pub(super) const STEPS: &[Step] = &[
    Step { needs: &[Need::Apt], ..step("setup", "packages of this machine that the tests need", setup) },
    step("fmt", "formatting", |_, log| cargo(log, &["fmt", "--all", "--check"], QUICK)),
    step("orphans", "every Rust file is part of a crate", |run, log| {
        check(log, crate::orphans::check(&run.root))
    }),
    step("imports", "crates import in the direction of docs/architecture.md", |run, log| {
        check(log, crate::imports::check(&run.root))
    }),
    step("deny", "licences, banned crates and sources of dependencies", deny),
    step("ebpf", "the kernel programs compile", |_, log| xtask(log, &["ebpf"])),
    step("clippy", "lints of all targets", clippy),
    step("generated", "generated files are up to date", |_, log| xtask(log, &["generate", "--check"])),
    // Before the test programs are built, since it leaves an agent without programs where theirs will be.
    step("stub", "an agent without kernel programs refuses to start", stub),
    Step { beside: true, ..step("unit", "tests that need no root, no kernel feature and no network", unit) },
    Step { beside: true, ..step("helm", "the chart, with the real helm", |_, log| xtask(log, &["helm"])) },
    Step {
        needs: &[Need::Root, Need::Kernel],
        after: &["ebpf"],
        beside: true,
        gated: Some("netkeel-dataplane-loader"),
        ..step("golden", "packets through the programs in this kernel", |run, log| {
            gated(run, log, "netkeel-dataplane-loader", TESTS)
        })
    },
    Step {
        needs: &[Need::Root, Need::Kernel],
        after: &["ebpf"],
        beside: true,
        gated: Some("netkeel-agent"),
        ..step("netns", "the agent in network namespaces", |run, log| gated(run, log, "netkeel-agent", TESTS))
    },
    Step {
        after: &["ebpf"],
        ..step("image", "the container image, and one of another build to upgrade to", image)
    },
    Step {
        needs: &[Need::Root, Need::Kernel],
        after: &["setup", "image"],
        gated: Some("netkeel-e2e"),
        ..step("e2e", "a real cluster of two nodes", e2e)
    },
];

const fn step(name: &'static str, about: &'static str, run: fn(&Run, &mut Log) -> Result<Count>) -> Step {
    Step { name, about, after: &[], needs: &[], beside: false, gated: None, run }
}

impl Step {
    /// How many tests a skipped step stands for.
    pub(super) fn size(&self, run: &Run) -> Count {
        let Some(package) = self.gated else { return Count::SKIPPED };
        let built =
            Log::create(&run.root, self.name).and_then(|mut log| Ok(run.suite(&mut log)?.gated(package)));
        let skipped = built.map_or(1, |programs| programs.iter().map(Program::size).sum());
        Count { skipped, ..Count::default() }
    }
}

impl Need {
    /// Why the need is not met; none when it is.
    pub(super) fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!is_root()).then(|| "it needs root".into()),
            Self::Kernel => {
                let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
                too_old(release.trim()).then(|| format!("it needs Linux 6.6, this is {}", release.trim()))
            }
            Self::Apt => {
                let debian = Path::new("/usr/bin/apt-get").exists();
                (!debian || !is_root())
                    .then(|| "it needs root and apt-get; install the packages yourself".into())
            }
        }
    }
}

/// The effective user id of proc(5) `status`.
fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    line.and_then(|line| line.split_ascii_whitespace().nth(1)) == Some("0")
}

fn too_old(release: &str) -> bool {
    let mut numbers =
        release.split(|letter: char| !letter.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version < (6, 6)
}

impl Run {
    /// Built once; who needs them meanwhile waits.
    fn suite(&self, log: &mut Log) -> Result<Arc<Suite>> {
        let mut built = self.suite.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(suite) = &*built {
            return Ok(suite.clone());
        }
        Ok(built.insert(Arc::new(Suite::build(&self.root, log)?)).clone())
    }
}

/// The other build first: the programs that lie there afterwards are of this one.
fn image(_: &Run, log: &mut Log) -> Result<Count> {
    xtask(log, &["image", "--another"])?;
    xtask(log, &["image"])
}

fn setup(_: &Run, log: &mut Log) -> Result<Count> {
    xtask(log, &["setup"])
}

fn clippy(run: &Run, log: &mut Log) -> Result<Count> {
    let features = suite::all_features(&run.root)?;
    let mut args = vec!["clippy", "--workspace", "--all-targets"];
    args.extend(features.as_deref().into_iter().flat_map(|features| ["--features", features]));
    args.extend(["--", "-D", "warnings"]);
    cargo(log, &args, BUILD)
}

fn deny(_: &Run, log: &mut Log) -> Result<Count> {
    if !log.try_run(process::cargo().args(["deny", "--version"]), QUICK)?.1 {
        println!("    installing cargo-deny (once, a minute or two)");
        // Unoptimised: its check takes a second more, its build half of the time.
        cargo(log, &["install", "--debug", "--locked", "cargo-deny", "--version", CARGO_DENY], BUILD)?;
    }
    cargo(log, &["deny", "check", "bans", "licenses", "sources"], QUICK)
}

fn stub(run: &Run, log: &mut Log) -> Result<Count> {
    // The whole workspace with the features that the suite is built with: what others made is built once.
    let features = suite::all_features(&run.root)?.into_iter().chain(["netkeel-agent/stub".to_owned()]);
    let features = features.collect::<Vec<_>>().join(",");
    let mut args = vec!["test", "--workspace", "--features", &features, "--test", "stub", "--"];
    args.extend(run.filter.as_deref());
    let (output, _) = log.try_run(process::cargo().args(&args), BUILD)?;
    Count::of_libtest(&output).context("the tests of an agent without programs gave no result")
}

fn unit(run: &Run, log: &mut Log) -> Result<Count> {
    let programs = run.suite(log)?.plain();
    let filter = run.filter.clone();
    Ok(suite::run(&programs, &filter.as_deref().into_iter().collect::<Vec<_>>(), TESTS, log))
}

/// Tests that share this kernel or one cluster run one at a time.
fn gated(run: &Run, log: &mut Log, package: &str, limit: Duration) -> Result<Count> {
    let programs = programs(run, log, package)?;
    let args: Vec<_> = ONE_AT_A_TIME.into_iter().chain(run.filter.as_deref()).collect();
    Ok(suite::run(&programs, &args, limit, log))
}

fn programs(run: &Run, log: &mut Log, package: &str) -> Result<Vec<Program>> {
    let programs = run.suite(log)?.gated(package);
    let gate = suite::GATE;
    anyhow::ensure!(
        !programs.is_empty(),
        "{package} has no test target with required-features = [\"{gate}\"]"
    );
    Ok(programs)
}

/// On fresh clusters, since those of an earlier run hold an older image. They are left up for inspection when a test
/// fails, but not in CI.
fn e2e(run: &Run, log: &mut Log) -> Result<Count> {
    let down = |log: &mut Log| {
        lanes::clusters().try_for_each(|name| xtask(log, &["cluster", "down", "--name", name]).map(drop))
    };
    down(log)?;
    let programs = programs(run, log, "netkeel-e2e")?;
    let result = lanes::run(&programs, run.filter.as_deref(), CLUSTER, log);
    if matches!(result, Ok(Count { failed: 0, .. })) || std::env::var_os("CI").is_some() {
        down(log)?;
    } else {
        println!(
            "    the clusters {} are left up: cargo xtask cluster kubectl --name NAME -- …",
            lanes::clusters().collect::<Vec<_>>().join(", ")
        );
    }
    result
}

fn cargo(log: &mut Log, args: &[&str], limit: Duration) -> Result<Count> {
    log.run(process::cargo().args(args), limit)?;
    Ok(Count::PASSED)
}

fn xtask(log: &mut Log, args: &[&str]) -> Result<Count> {
    cargo(log, &[&["xtask"], args].concat(), BUILD)
}

/// Notes what a check in this program found.
fn check(log: &mut Log, found: Result<Vec<String>>) -> Result<Count> {
    let found = found?;
    found.iter().try_for_each(|line| log.line(line))?;
    anyhow::ensure!(found.is_empty(), "problems found: {}", found.len());
    Ok(Count::PASSED)
}

#[cfg(test)]
mod tests {
    use super::too_old;

    #[test]
    fn kernels_before_6_6_are_too_old() {
        for old in ["5.15.0-1", "6.1.0-13-amd64", "6.5", ""] {
            assert!(too_old(old), "{old}");
        }
        for new in ["6.6.0", "6.18.2", "7.0-rc1", "10.1"] {
            assert!(!too_old(new), "{new}");
        }
    }
}
