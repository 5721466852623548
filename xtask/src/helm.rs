//! `cargo xtask helm`: the chart passes helm's lint and renders with each file of `helm/netkeel/ci`; every
//! rendered document is an object with a kind and a name.

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
    let examples = examples(&root.join(CHART).join("ci"))?;
    ensure!(!examples.is_empty(), "there are no values to render with in {CHART}/ci");
    for values in examples {
        let arguments =
            ["template", "netkeel", CHART, "-n", "netkeel-system", "--include-crds", "-f", &values];
        let objects = objects(&call(&helm, &root, &arguments)?)?;
        println!("{values}: {} objects", objects.len());
    }
    Ok(())
}

/// Files of values to render with.
fn examples(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
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
