//! `cargo xtask image`: the one container image, from scratch, without a container engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use netkeel_e2e::{Progress, images};

use crate::{ebpf, setup};

/// Package, program it builds, path in the image.
const PROGRAMS: [(&str, &str, &str); 5] = [
    ("netkeel-operator", "netkeel-operator", "/netkeel-operator"),
    ("netkeel-agent", "netkeel-agent", "/netkeel-agent"),
    ("netkeel-agent", "netkeel-cni", "/netkeel-cni"),
    ("netkeel-dns", "netkeel-dns", "/netkeel-dns"),
    ("netkeel-cli", "netkeel", "/netkeel"),
];

const REPOSITORY: &str = "ghcr.io/netkeel/netkeel";

/// Builds the image and returns the archive's path. Does nothing where no program changed.
pub(crate) fn build() -> Result<PathBuf> {
    write(images::target_folder().join("image/netkeel.tar"), false, None)
}

/// The same with a gzipped layer, as it is published.
pub(crate) fn build_compressed() -> Result<PathBuf> {
    write(images::target_folder().join("image/netkeel.gz.tar"), true, None)
}

/// An image whose agent is another build: it calls itself by another version, and so does the image's tag. Upgrades are tried
/// with it. The programs in the target folder are those of this build afterwards: `build` makes them anew.
pub(crate) fn build_another() -> Result<PathBuf> {
    write(images::another(), false, Some(images::ANOTHER))
}

/// `version` is what the agent calls itself instead of the workspace's version.
fn write(archive: PathBuf, gzip: bool, version: Option<&str>) -> Result<PathBuf> {
    let progress = Progress::start();
    setup::run()?;
    ebpf::build()?;
    progress.say("kernel programs are built");
    let mut packages: Vec<&str> = PROGRAMS.iter().map(|(package, _, _)| *package).collect();
    packages.dedup();
    let environment: Vec<_> = version.map(|version| ("NETKEEL_BUILD", version)).into_iter().collect();
    let built = images::build_static(&packages, &environment, &progress)?;
    progress.say("programs are built");
    let files: Vec<(String, PathBuf)> =
        PROGRAMS.iter().map(|(_, program, path)| ((*path).to_owned(), built.join(program))).collect();
    if newer(&archive, &files)? {
        progress.say(format!("{} is up to date", archive.display()));
        return Ok(archive);
    }
    let name = format!("{REPOSITORY}:{}", version.unwrap_or(env!("CARGO_PKG_VERSION")));
    images::Image { name, files, gzip, ..images::Image::default() }.write(&archive)?;
    let size = fs::metadata(&archive)?.len() >> 20;
    progress.say(format!("{} is written, {size} MiB", archive.display()));
    Ok(archive)
}

/// Whether the archive is newer than the programs and than the program that writes it.
fn newer(archive: &Path, files: &[(String, PathBuf)]) -> Result<bool> {
    let Ok(written) = modified(archive) else { return Ok(false) };
    let sources = files.iter().map(|(_, path)| path.clone()).chain([std::env::current_exe()?]);
    for source in sources {
        if modified(&source)? >= written {
            return Ok(false);
        }
    }
    Ok(true)
}

fn modified(path: &Path) -> Result<SystemTime> {
    fs::metadata(path).and_then(|data| data.modified()).with_context(|| path.display().to_string())
}
