//! Who may import whom, as docs/architecture.md draws it. A line it prints says where the code belongs instead.
//! Crates of others (aya, opentelemetry, …) are checked by cargo-deny.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use netkeel_e2e::process;

use crate::workspace::{self, Package};

/// A crate, the crates of the workspace it may import, and what to do when it wants another.
struct Rule {
    package: &'static str,
    may: &'static [&'static str],
    instead: &'static str,
}

const CRDS: &str = "netkeel-crds";
const CLIENT: &str = "netkeel-client";
const COMMON: &str = "netkeel-dataplane-common";
const CORE: &str = "netkeel-core";
const INDEX: &str = "netkeel-index";
const LOADER: &str = "netkeel-dataplane-loader";
const TELEMETRY: &str = "netkeel-telemetry";

const RULES: &[Rule] = &[
    rule(COMMON, &[], "what kernel and user space share stands alone; user-space types go to lib/core"),
    rule(
        "netkeel-dataplane-ebpf",
        &[COMMON],
        "the kernel side knows only dataplane/common; put the shared type there",
    ),
    rule(
        LOADER,
        &[COMMON],
        "the loader writes maps; what they should hold is decided in lib/core or node-agent",
    ),
    rule(CRDS, &[], "API types stand alone; logic over them goes to lib/index or operator"),
    rule(
        CORE,
        &[COMMON],
        "lib/core is pure; code over API types goes to lib/index, I/O to the program that does it",
    ),
    rule(
        INDEX,
        &[COMMON, CORE, CRDS],
        "lib/index turns API objects into core values; I/O goes to the program that does it",
    ),
    rule(
        CLIENT,
        &[CRDS],
        "lib/client only speaks to the API server; what to do with the answers goes to the program",
    ),
    rule(TELEMETRY, &[], "telemetry knows no other crate; hand it plain values"),
    rule(
        "netkeel-operator",
        &[COMMON, CORE, INDEX, CRDS, CLIENT, TELEMETRY],
        "the operator does not touch a node; that goes to node-agent",
    ),
    rule(
        "netkeel-agent",
        &[COMMON, LOADER, CORE, INDEX, CRDS, CLIENT, TELEMETRY],
        "what programs share goes to lib/core",
    ),
    rule(
        "netkeel-dns",
        &[COMMON, CORE, INDEX, CRDS, CLIENT, TELEMETRY],
        "what programs share goes to lib/core",
    ),
    rule(
        "netkeel-cli",
        &[COMMON, CORE, INDEX, CRDS, CLIENT],
        "the CLI only asks the API; what programs share goes to lib/core",
    ),
    rule("netkeel-e2e", &[], "e2e sees the cluster as a user does: programs and kubectl, none of our code"),
    rule("netkeel-e2e-peer", &[], "it runs inside pods as a stranger would; what it needs goes into it"),
    rule(
        "xtask",
        &["netkeel-e2e", CRDS],
        "xtask starts programs; it links only e2e and, to write their YAML, crds",
    ),
];

/// Crates that stay free of a runtime, with what they must not pull in even through others.
const PURE: &[(&str, &[&str])] = &[
    (COMMON, &["tokio", "kube"]),
    (CORE, &["tokio", "kube-client", "aya"]),
    (INDEX, &["tokio", "kube-client", "aya"]),
];

const fn rule(package: &'static str, may: &'static [&'static str], instead: &'static str) -> Rule {
    Rule { package, may, instead }
}

/// One line for each import that is against the direction.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let packages = workspace::packages(root)?;
    let mut lines: Vec<_> = packages.iter().flat_map(|package| directions(package, &packages)).collect();
    for (name, banned) in PURE {
        lines.extend(impure(name, &tree(root, name)?, banned));
    }
    for package in &packages {
        lines.extend(entry(package)?);
    }
    Ok(lines)
}

/// Imports of `package` that its rule does not name. Dev-dependencies are free.
fn directions(package: &Package, packages: &[Package]) -> Vec<String> {
    if package.name == "netkeel-testkit" {
        return Vec::new();
    }
    let Some(rule) = RULES.iter().find(|rule| rule.package == package.name) else {
        return vec![format!(
            "{}: add a rule to xtask/src/imports.rs that says what it may import",
            package.name
        )];
    };
    let normal = package.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev"));
    let ours = normal.filter(|dependency| packages.iter().any(|package| package.name == dependency.name));
    let wrong = ours.filter(|dependency| !rule.may.contains(&dependency.name.as_str()));
    wrong
        .map(|dependency| format!("{} imports {}: {}", package.name, dependency.name, rule.instead))
        .collect()
}

fn impure(name: &str, tree: &str, banned: &[&str]) -> Vec<String> {
    let crates: Vec<_> = tree.lines().filter_map(|line| line.split_ascii_whitespace().next()).collect();
    let found = banned.iter().filter(|banned| crates.contains(banned));
    found
        .map(|banned| format!("{name} pulls in {banned}: it is pure; I/O goes to the program that does it"))
        .collect()
}

/// The names of all crates that `package` needs, one a line, alone and without features that others ask for.
fn tree(root: &Path, package: &str) -> Result<String> {
    let output = process::cargo()
        .args(["tree", "-p", package, "-e", "normal", "--prefix", "none"])
        .env_remove("CARGO_RESOLVER_FEATURE_UNIFICATION")
        .current_dir(root)
        .output()
        .context("cargo tree")?;
    anyhow::ensure!(
        output.status.success(),
        "cargo tree -p {package}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// A program's main.rs takes `args` and `run` of its own lib, and nothing else of the workspace.
fn entry(package: &Package) -> Result<Vec<String>> {
    let has_lib = package.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "lib"));
    let main = package.folder().join("src/main.rs");
    if !has_lib || !main.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&main).with_context(|| format!("read {}", main.display()))?;
    Ok(foreign(&package.name.replace('-', "_"), &text)
        .into_iter()
        .map(|path| {
            format!("{}: main.rs uses {path}; it takes only args and run of its own lib", package.name)
        })
        .collect())
}

/// Paths of `text` into the workspace that are not `own::args` or `own::run`.
fn foreign(own: &str, text: &str) -> Vec<String> {
    let code =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let paths = code.split(|letter: char| !(letter.is_alphanumeric() || "_:{}, ".contains(letter)));
    let ours = paths.filter_map(|part| part.find("netkeel_").map(|at| part[at..].trim()));
    let allowed = |path: &&str| {
        let Some(rest) = path.strip_prefix(own).and_then(|rest| rest.strip_prefix("::")) else {
            return false;
        };
        let names =
            rest.trim_start_matches('{').split(['}', ',']).map(str::trim).filter(|name| !name.is_empty());
        let mut first = names.map(|name| name.split("::").next().unwrap_or_default());
        first.all(|name| matches!(name, "args" | "run"))
    };
    ours.filter(|path| !allowed(path)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let line = |(name, kind): &(&str, Option<&str>)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
        };
        let dependencies = dependencies.iter().map(line).collect();
        Package { name: name.into(), dependencies, ..Package::of(Path::new("/none"), &[]) }
    }

    #[test]
    fn an_import_against_the_direction_says_where_the_code_belongs() {
        let all = [
            package(CORE, &[(INDEX, None), (COMMON, None), ("serde", None)]),
            package(INDEX, &[]),
            package(COMMON, &[]),
        ];
        let found = directions(&all[0], &all);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("netkeel-core imports netkeel-index: lib/core is pure"), "{found:?}");
    }

    #[test]
    fn dev_dependencies_are_free_and_a_crate_without_a_rule_is_named() {
        let all = [package(CRDS, &[("netkeel-testkit", Some("dev"))]), package("netkeel-testkit", &[])];
        assert!(directions(&all[0], &all).is_empty());
        assert!(directions(&package("netkeel-new", &[]), &all)[0].contains("add a rule"));
    }

    #[test]
    fn a_runtime_below_a_pure_crate_is_found() {
        let tree = "netkeel-core v0.1.0\nserde v1.0.0\ntokio v1.54.1 (*)\n";
        assert_eq!(impure(CORE, tree, &["tokio", "aya"]).len(), 1);
        assert!(impure(CORE, "netkeel-core v0.1.0\ntokio-util v1\n", &["tokio"]).is_empty());
    }

    #[test]
    fn main_takes_only_args_and_run() {
        let own = "netkeel_agent";
        for good in [
            "use netkeel_agent::{args, run};",
            "netkeel_agent::run(netkeel_agent::args::parse()?)",
            "use netkeel_agent::args::Args;",
            "// netkeel_core::x",
        ] {
            assert!(foreign(own, good).is_empty(), "{good}: {:?}", foreign(own, good));
        }
        for bad in [
            "use netkeel_agent::{args, link};",
            "netkeel_core::Address::new()",
            "use netkeel_telemetry::init;",
        ] {
            assert_eq!(foreign(own, bad).len(), 1, "{bad}");
        }
    }
}
