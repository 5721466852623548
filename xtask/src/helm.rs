//! `cargo xtask helm`: the chart passes helm's lint and renders, with its own values and with each file of
//! `helm/netkeel/ci`; every rendered document is an object with a kind and a name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::Progress;

const CHART: &str = "helm/netkeel";

/// Checks the chart and says what it rendered.
pub(crate) fn run() -> Result<()> {
    let root = crate::root();
    let helm = netkeel_e2e::helm(&Progress::start())?;
    call(&helm, &root, &["lint", "--strict", CHART])?;
    for values in std::iter::once(None).chain(examples(&root.join(CHART).join("ci"))?.into_iter().map(Some)) {
        let mut arguments = vec!["template", "netkeel", CHART, "-n", "netkeel-system", "--include-crds"];
        arguments.extend(values.as_deref().into_iter().flat_map(|file| ["-f", file]));
        let objects = objects(&call(&helm, &root, &arguments)?)?;
        println!("{}: {} objects", values.as_deref().unwrap_or("default values"), objects.len());
    }
    Ok(())
}

/// Files of values to render with.
fn examples(folder: &Path) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path.display().to_string());
        }
    }
    files.sort();
    Ok(files)
}

/// `Kind/name` of each rendered object.
fn objects(rendered: &str) -> Result<Vec<String>> {
    let documents = rendered.split("\n---").filter(|document| document.lines().any(is_content));
    let objects: Vec<_> = documents.map(object).collect::<Result<_>>()?;
    ensure!(!objects.is_empty(), "the chart renders nothing");
    Ok(objects)
}

fn is_content(line: &str) -> bool {
    !line.trim().is_empty() && !line.starts_with('#') && !line.starts_with("---")
}

fn object(document: &str) -> Result<String> {
    let top = |key: &str| document.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let named = document.lines().find_map(|line| line.strip_prefix("  name:")).map(str::trim);
    let (kind, name) = (top("kind:").filter(|kind| !kind.is_empty()), named.filter(|name| !name.is_empty()));
    let missing = || format!("an object without kind or name is rendered:\n{document}");
    Ok(format!("{}/{}", kind.with_context(missing)?, name.with_context(missing)?))
}

fn call(helm: &PathBuf, root: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(helm).args(arguments).current_dir(root).output().context("start helm")?;
    let (told, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "helm {} failed\n{told}{failed}", arguments.join(" "));
    Ok(told.into_owned())
}

#[cfg(test)]
mod tests {
    use super::objects;

    #[test]
    fn rendered_objects_are_told_by_kind_and_name() {
        let text = "---\n# Source: a.yaml\nkind: Role\nmetadata:\n  name: a\n---\n# only a comment\n---\nkind: List\nmetadata:\n  name: b\n";
        assert_eq!(objects(text).unwrap(), ["Role/a", "List/b"]);
        assert!(objects("---\nmetadata:\n  name: a\n").is_err());
        assert!(objects("").is_err());
    }
}
