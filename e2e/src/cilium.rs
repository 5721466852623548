//! Cilium, to measure it beside Netkeel: its agent, operator and plugin, built from its Go module into the cache, and the
//! C sources that its agent compiles on each node. No code of it is in this repository. It is built with one change:
//! it reads the kernel's modules from `/proc/modules`, which a kernel without modules does not have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::binaries::{Entry, cache_root, go, go_build, version_of};
use crate::{Progress, process};

const MODULE: &str = "github.com/cilium/cilium";
/// The file with the change, what is replaced there, and by what: a list that is there and empty.
const PATCHED: &str = "pkg/datapath/linux/modules/modules_linux.go";
const PATCH: [&str; 2] = [r#""/proc/modules""#, r#""/dev/null""#];
const PACKAGES: [&str; 3] = ["./daemon", "./operator", "./plugins/cilium-cni"];
/// What the agent needs of the module at run time.
const SOURCES: &str = "bpf";

/// Where its parts are.
#[derive(Clone, Debug)]
pub struct Cilium {
    folder: PathBuf,
}

/// What `go mod download -json` says.
#[derive(Deserialize)]
struct Downloaded {
    #[serde(rename = "Dir")]
    folder: PathBuf,
}

impl Cilium {
    /// Builds it when it is not in the cache; about 8 minutes on two cores.
    ///
    /// # Errors
    /// The module cannot be had or does not build.
    pub fn ensure(progress: &Progress) -> Result<Self> {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("go/cilium");
        let mut content = PATCH.concat().into_bytes();
        for file in ["go.mod", "go.sum"] {
            let path = module.join(file);
            content.extend(fs::read(&path).with_context(|| path.display().to_string())?);
        }
        let programs = ["daemon", "operator", "cilium-cni", "lib/bpf/bpf_lxc.c"];
        let entry = Entry { name: "cilium", content: &content, programs: &programs };
        let folder = entry.ensure(&cache_root()?.join("bin"), |part| build(&module, part, progress))?;
        Ok(Self { folder })
    }

    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.folder.join("daemon")
    }

    #[must_use]
    pub fn operator(&self) -> PathBuf {
        self.folder.join("operator")
    }

    /// The CNI plugin, by its name.
    #[must_use]
    pub fn plugin(&self) -> PathBuf {
        self.folder.join("cilium-cni")
    }

    /// The agent's `--lib-dir`.
    #[must_use]
    pub fn sources(&self) -> PathBuf {
        self.folder.join("lib")
    }
}

/// Builds a changed copy of the module, and keeps what is needed of it.
fn build(module: &Path, part: &Path, progress: &Progress) -> Result<()> {
    let source = part.join("source");
    copy(&download(module, progress)?, &source)?;
    let patched = source.join(PATCHED);
    let text = fs::read_to_string(&patched).with_context(|| patched.display().to_string())?;
    fs::write(&patched, patch(&text)?)?;
    let what = "building Cilium (about 8 min when Go's caches are cold)";
    progress.say(what);
    let mut build = go_build(part, progress)?;
    build.args(["-ldflags", "-s -w", "-tags", "ipam_provider_operator"]).args(PACKAGES).current_dir(&source);
    process::run_long(&mut build, what, progress)?;
    fs::create_dir(part.join("lib"))?;
    fs::rename(source.join(SOURCES), part.join("lib").join(SOURCES))?;
    Ok(fs::remove_dir_all(&source)?)
}

/// The module's folder in Go's cache; Go compares it with `go.sum`.
fn download(module: &Path, progress: &Progress) -> Result<PathBuf> {
    let go_mod = fs::read_to_string(module.join("go.mod"))?;
    let version = version_of(&go_mod, MODULE).with_context(|| format!("go.mod does not require {MODULE}"))?;
    let mut download = Command::new(go(progress)?);
    download.args(["mod", "download", "-json", &format!("{MODULE}@{version}")]).current_dir(module);
    let text = process::text(&mut download)?;
    Ok(serde_json::from_str::<Downloaded>(&text).context("go mod download")?.folder)
}

fn patch(text: &str) -> Result<String> {
    let [from, to] = PATCH;
    ensure!(text.matches(from).count() == 1, "{PATCHED} of {MODULE} does not have {from} once");
    Ok(text.replace(from, to))
}

/// Copies what Go's cache holds read-only, so that it can be changed.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    command.args(["--recursive", "--no-preserve=mode"]).arg(from).arg(to);
    process::run(&mut command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_change_is_made_once_or_not_at_all() {
        assert_eq!(patch(r#"path = "/proc/modules" // x"#).unwrap(), r#"path = "/dev/null" // x"#);
        assert!(patch("path = modules").is_err());
        assert!(patch(r#"["/proc/modules", "/proc/modules"]"#).is_err());
    }

    #[test]
    fn its_version_is_pinned_by_the_module_file() {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("go/cilium");
        let version =
            version_of(&fs::read_to_string(module.join("go.mod")).unwrap(), MODULE).unwrap().to_owned();
        let sums = fs::read_to_string(module.join("go.sum")).unwrap();
        assert!(sums.lines().any(|line| line.starts_with(&format!("{MODULE} {version} h1:"))), "{sums}");
    }
}
