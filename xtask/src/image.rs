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

/// Builds the image and returns the archive's path. Does nothing where no program changed.
pub(crate) fn build() -> Result<PathBuf> {
    write("netkeel.tar", false)
}

/// The same with a gzipped layer, as it is published.
pub(crate) fn build_compressed() -> Result<PathBuf> {
    write("netkeel.gz.tar", true)
}

fn write(file: &str, gzip: bool) -> Result<PathBuf> {
    let progress = Progress::start();
    setup::run()?;
    ebpf::build()?;
    progress.say("kernel programs are built");
    let mut packages: Vec<&str> = PROGRAMS.iter().map(|(package, _, _)| *package).collect();
    packages.dedup();
    let built = images::build_static(&packages, &progress)?;
    progress.say("programs are built");
    let archive = images::target_folder().join("image").join(file);
    let files: Vec<(String, PathBuf)> =
        PROGRAMS.iter().map(|(_, program, path)| ((*path).to_owned(), built.join(program))).collect();
    if newer(&archive, &files)? {
        progress.say(format!("{} is up to date", archive.display()));
        return Ok(archive);
    }
    let name = format!("ghcr.io/netkeel/netkeel:{}", env!("CARGO_PKG_VERSION"));
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
