//! The workspace's test programs: built once, all with one feature set, then run by the steps they belong to.
//! A test target with `required-features = ["root-tests"]` needs root and this kernel; it is not of the step `unit`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use netkeel_e2e::process;
use serde::Deserialize;

use super::child::Log;
use super::count::Count;
use crate::workspace::{self, Package, Target};

const BUILD: Duration = Duration::from_mins(30);
/// The feature that gates tests which need root.
pub(super) const GATE: &str = "root-tests";

/// One built test program.
#[derive(Clone, Debug)]
pub(super) struct Program {
    package: String,
    /// The package's folder, where its tests run.
    folder: PathBuf,
    /// Name of the target.
    target: String,
    /// Kinds of the target, for messages.
    kind: String,
    executable: PathBuf,
    /// Whether it needs root.
    gated: bool,
    env: Vec<(&'static str, &'static str)>,
}

/// All test programs of the workspace.
#[derive(Debug)]
pub(super) struct Suite {
    programs: Vec<Program>,
}

#[derive(Deserialize)]
struct Artifact {
    package_id: String,
    target: Target,
    executable: Option<PathBuf>,
    profile: Profile,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

impl Suite {
    /// Builds every test program of the workspace.
    pub(super) fn build(root: &Path, log: &mut Log) -> Result<Self> {
        let packages = workspace::packages(root)?;
        let mut cargo = process::cargo();
        cargo.args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-run"]);
        cargo.args(["--message-format", "json-render-diagnostics"]);
        if let Some(features) = features(&packages) {
            cargo.args(["--features", &features]);
        }
        println!("    building the test programs");
        let output = log.run(&mut cargo, BUILD).context("the tests do not build")?;
        let artifacts = output.lines().filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
        let tests = artifacts.filter(|artifact| artifact.profile.test);
        let mut programs: Vec<_> = tests.filter_map(|artifact| program(&packages, artifact)).collect();
        programs.sort_by(|one, two| (&one.package, &one.target).cmp(&(&two.package, &two.target)));
        if programs.is_empty() {
            bail!("cargo built no test program");
        }
        Ok(Self { programs })
    }

    /// The programs that need no root.
    pub(super) fn plain(&self) -> Vec<Program> {
        self.programs.iter().filter(|program| !program.gated).cloned().collect()
    }

    /// The programs of `package` that need root.
    pub(super) fn gated(&self, package: &str) -> Vec<Program> {
        self.programs.iter().filter(|program| program.gated && program.package == package).cloned().collect()
    }
}

/// Runs `programs` one after the other, each with `args` for `limit` at most, and goes on after a failure.
pub(super) fn run(programs: &[Program], args: &[&str], limit: Duration, log: &mut Log) -> Count {
    let mut total = Count::default();
    for program in programs {
        let count = program.run(args, limit, log).unwrap_or_else(|error| {
            println!("    {}: {error:#}", program.name());
            Count::FAILED
        });
        if count.failed > 0 {
            println!("    {}: {count}", program.name());
        }
        total += count;
    }
    total
}

impl Program {
    fn name(&self) -> String {
        format!("{} {} ({})", self.package, self.target, self.kind)
    }

    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// The same with a variable in its environment.
    pub(super) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.env.push((name, value));
        self
    }

    fn run(&self, args: &[&str], limit: Duration, log: &mut Log) -> Result<Count> {
        let mut command = Command::new(&self.executable);
        command.args(args).current_dir(&self.folder);
        command.env("CARGO_MANIFEST_DIR", &self.folder).envs(self.env.iter().copied());
        let (output, success) = log.try_run(&mut command, limit)?;
        match Count::of_libtest(&output) {
            Some(count) if success == (count.failed == 0) => Ok(count),
            _ => bail!("ended without a result, as a crash does"),
        }
    }

    /// How many tests it holds.
    pub(super) fn size(&self) -> usize {
        let listed = Command::new(&self.executable).args(["--list", "--format", "terse"]).output();
        let text =
            listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().filter(|line| line.ends_with(": test")).count()
    }
}

/// `a/root-tests,b/root-tests` of the packages that have the feature.
fn features(packages: &[Package]) -> Option<String> {
    let gated = packages.iter().filter(|package| package.features.contains_key(GATE));
    let names: Vec<_> = gated.map(|package| format!("{}/{GATE}", package.name)).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// The feature list of the whole workspace, for the other cargo steps.
pub(crate) fn all_features(root: &Path) -> Result<Option<String>> {
    Ok(features(&workspace::packages(root)?))
}

fn program(packages: &[Package], artifact: Artifact) -> Option<Program> {
    let package = packages.iter().find(|package| package.id == artifact.package_id)?;
    let same = |target: &&Target| target.name == artifact.target.name && target.kind == artifact.target.kind;
    let target = package.targets.iter().find(same)?;
    Some(Program {
        package: package.name.clone(),
        folder: package.manifest_path.parent()?.to_owned(),
        target: target.name.clone(),
        kind: target.kind.join(", "),
        executable: artifact.executable?,
        gated: target.required_features.iter().any(|feature| feature == GATE),
        env: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gated_target_is_told_from_the_metadata_since_the_message_lacks_it() {
        let package = r#"{"name": "a", "id": "a#1", "manifest_path": "/r/a/Cargo.toml", "features": {"root-tests": []}, "dependencies": [],
            "targets": [{"name": "golden", "kind": ["test"], "required-features": ["root-tests"]},
                        {"name": "a", "kind": ["lib"]}]}"#;
        let packages: Vec<Package> = vec![serde_json::from_str(package).unwrap()];
        assert_eq!(features(&packages).unwrap(), "a/root-tests");
        let built = |name: &str, kind: &str| {
            let message = format!(
                r#"{{"reason": "compiler-artifact", "package_id": "a#1", "target": {{"name": "{name}", "kind": ["{kind}"]}},
                    "profile": {{"test": true}}, "executable": "/t/{name}"}}"#
            );
            program(&packages, serde_json::from_str(&message).unwrap()).unwrap()
        };
        assert!(built("golden", "test").gated);
        assert!(!built("a", "lib").gated);
        assert_eq!(built("a", "lib").folder, Path::new("/r/a"));
    }
}
