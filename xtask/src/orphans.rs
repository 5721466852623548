//! Finds Rust files that no `mod` reaches: cargo does not compile them, so nothing else notices.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace::{self, Package};

/// One line for each Rust file of a crate that no target reaches.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for package in workspace::packages(root)? {
        let folder = package.folder();
        for file in orphans(&package)? {
            let name = file.strip_prefix(&folder).unwrap_or(&file).display();
            lines.push(format!("{} of {}: no `mod` reaches it; declare it or remove it", name, package.name));
        }
    }
    Ok(lines)
}

fn orphans(package: &Package) -> Result<BTreeSet<PathBuf>> {
    let mut reached = BTreeSet::new();
    for target in &package.targets {
        reach(&target.src_path, &children(&target.src_path, true), &mut reached)?;
    }
    let mut all = BTreeSet::new();
    for folder in ["src", "tests", "benches", "examples"] {
        files(&package.folder().join(folder), &mut all)?;
    }
    Ok(all.difference(&reached).cloned().collect())
}

/// The folder that holds the modules declared in `file`.
fn children(file: &Path, root: bool) -> PathBuf {
    let folder = file.parent().unwrap_or(file);
    if root { folder.to_owned() } else { folder.join(file.file_stem().unwrap_or_default()) }
}

fn reach(file: &Path, folder: &Path, reached: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !reached.insert(file.to_owned()) {
        return Ok(());
    }
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    for module in modules(&text) {
        let path = match &module.path {
            Some(path) => file.parent().unwrap_or(file).join(path),
            None => folder.join(format!("{}.rs", module.name)),
        };
        if path.exists() {
            // modules of a file that a `#[path]` names lie beside it
            reach(&path, &children(&path, module.path.is_some()), reached)?;
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq)]
struct Module {
    name: String,
    /// Of `#[path = "…"]`.
    path: Option<String>,
}

/// The modules that a file declares without a body.
fn modules(text: &str) -> Vec<Module> {
    let (mut found, mut path) = (Vec::new(), None);
    for line in text.lines().map(str::trim) {
        if let Some(given) = line.strip_prefix("#[path = \"") {
            path = given.split('"').next().map(str::to_owned);
        }
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let name = match words.as_slice() {
            ["mod", name, ..] => name,
            [visible, "mod", name, ..] if visible.starts_with("pub") => name,
            _ => continue,
        };
        if let Some(name) = name.strip_suffix(';') {
            found.push(Module { name: name.to_owned(), path: path.take() });
        }
    }
    found
}

fn files(folder: &Path, all: &mut BTreeSet<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, all)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.insert(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_modules_are_found_and_inline_ones_are_not() {
        let text = "//! mod no;\nmod a;\npub mod b;\npub(crate) mod c;\n#[cfg(test)]\nmod tests;\nmod d {\n}\n// mod e;\n#[path = \"x/y.rs\"]\nmod f;";
        let names: Vec<_> = modules(text).into_iter().map(|module| module.name).collect();
        assert_eq!(names, ["a", "b", "c", "tests", "f"]);
        assert_eq!(modules(text)[4].path.as_deref(), Some("x/y.rs"));
    }

    #[test]
    fn a_file_that_nobody_declares_is_an_orphan() {
        let folder = std::env::temp_dir().join(format!("xtask-orphans-{}", std::process::id()));
        fs::create_dir_all(folder.join("src/a")).unwrap();
        for (name, text) in
            [("lib.rs", "mod a;"), ("a.rs", "mod b;"), ("a/b.rs", ""), ("a/lost.rs", ""), ("b.rs", "")]
        {
            fs::write(folder.join("src").join(name), text).unwrap();
        }
        let package = Package::of(&folder, &["src/lib.rs"]);
        let lost: Vec<_> = orphans(&package).unwrap().into_iter().collect();
        assert_eq!(lost, [folder.join("src/a/lost.rs"), folder.join("src/b.rs")]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
