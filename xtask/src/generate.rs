//! `cargo xtask generate`: writes the files that are made from the code, or says which are stale.

mod metrics;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use netkeel_e2e::process;

/// Folders that hold the YAML of the API's kinds.
const CRDS: [&str; 2] = ["crds/yaml", "helm/netkeel/crds"];

/// What the programs say of their metrics.
const METRICS: &str = "docs/metrics.md";

/// Writes all generated files; with `check` it writes none and fails when one is stale.
pub(crate) fn run(check: bool) -> Result<()> {
    let root = crate::root();
    let made = root.join("target/generated/crds");
    if made.exists() {
        fs::remove_dir_all(&made).with_context(|| format!("remove {}", made.display()))?;
    }
    let programs = build(&root)?;
    let mut crdgen = Command::new(programs.join("crdgen"));
    ensure!(crdgen.arg(&made).status().context("start crdgen")?.success(), "crdgen failed");
    let mut stale = Vec::new();
    for folder in CRDS {
        stale.extend(differences(&made, &root.join(folder))?);
    }
    let (document, text) = (root.join(METRICS), metrics::document(&programs.join("examples"))?);
    if fs::read_to_string(&document).ok().as_ref() != Some(&text) {
        stale.push(document.clone());
    }
    if stale.is_empty() {
        println!("generated files are up to date");
        return Ok(());
    }
    let names: Vec<_> =
        stale.iter().map(|path| path.strip_prefix(&root).unwrap_or(path).display().to_string()).collect();
    if check {
        bail!("stale: {}; run `cargo xtask generate`", names.join(", "));
    }
    for folder in CRDS {
        replace(&made, &root.join(folder))?;
    }
    fs::write(&document, text).with_context(|| format!("write {}", document.display()))?;
    println!("written: {}", names.join(", "));
    Ok(())
}

/// Builds what makes the files, with the features of the tests, so that nothing is compiled twice. Returns the folder of the programs.
fn build(root: &Path) -> Result<PathBuf> {
    let mut cargo = process::cargo();
    cargo.args(["build", "--quiet", "--workspace", "--examples", "--bin", "crdgen"]).current_dir(root);
    let features = crate::test::suite::all_features(root)?;
    cargo.args(features.as_deref().into_iter().flat_map(|features| ["--features", features]));
    ensure!(cargo.status().context("start cargo")?.success(), "what makes the files does not compile");
    Ok(netkeel_e2e::images::target_folder().join("debug"))
}

/// Files of `folder` that are missing, differ from those in `made`, or are not made any more.
fn differences(made: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let (wanted, found) = (files(made)?, files(folder)?);
    let differs = |name: &String| fs::read(made.join(name)).ok() != fs::read(folder.join(name)).ok();
    let mut names: Vec<_> = wanted.iter().filter(|name| differs(name)).cloned().collect();
    names.extend(found.into_iter().filter(|name| !wanted.contains(name)));
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn replace(made: &Path, folder: &Path) -> Result<()> {
    for path in differences(made, folder)? {
        let name = path.file_name().context("a file has a name")?;
        let source = made.join(name);
        if source.exists() {
            fs::create_dir_all(folder)?;
            fs::copy(&source, &path).with_context(|| format!("write {}", path.display()))?;
        } else {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Names of the YAML files in `folder`, which need not exist.
fn files(folder: &Path) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<Result<_>>()?;
    Ok(names
        .into_iter()
        .filter(|name| Path::new(name).extension().is_some_and(|kind| kind == "yaml"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_missing_and_leftover_files_are_found_and_replaced() {
        let folder = std::env::temp_dir().join(format!("xtask-generate-{}", std::process::id()));
        let (made, kept) = (folder.join("made"), folder.join("kept"));
        for (path, text) in [
            (made.join("a.yaml"), "new"),
            (made.join("b.yaml"), "same"),
            (kept.join("a.yaml"), "old"),
            (kept.join("b.yaml"), "same"),
            (kept.join("gone.yaml"), "x"),
            (kept.join("README"), "x"),
        ] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(differences(&made, &kept).unwrap(), [kept.join("a.yaml"), kept.join("gone.yaml")]);
        replace(&made, &kept).unwrap();
        assert!(differences(&made, &kept).unwrap().is_empty());
        assert_eq!(fs::read_to_string(kept.join("a.yaml")).unwrap(), "new");
        assert!(kept.join("README").exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
