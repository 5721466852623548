//! `cargo xtask ebpf`: builds the kernel programs into target/bpf/netkeel.o, which the loader embeds.
//! Takes the toolchain that is there: Debian's rustc-web with its precompiled `core`, or rustup's nightly
//! with rust-src. Installs what is missing and says so.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use netkeel_e2e::process;

use crate::setup;

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "netkeel-dataplane-ebpf";
const PROGRAM: &str = "netkeel-bpf";
/// Bitcode of rustc 1.96 needs LLVM 22, which 0.13 is the first to link.
const LINKER_VERSION: &str = "0.13.0";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_LLVM: &str = "/usr/lib/llvm-22";
const DEBIAN_PACKAGES: &[(&str, &str)] = &[
    (DEBIAN_RUSTC, "rustc-web"),
    ("/usr/lib/rustlib/bpfel-unknown-none/lib", "libstd-rust-web-dev-bpf"),
    ("/usr/lib/llvm-22/bin/llvm-config", "llvm-22-dev"),
];
/// What linking bpf-linker needs besides.
const DEBIAN_LINKER_PACKAGES: &[(&str, &str)] = &[
    ("/usr/lib/llvm-22/bin/clang", "clang-22"),
    ("/usr/lib/llvm-22/lib/libclang.so", "libclang-22-dev"),
    ("/usr/lib/llvm-22/lib/libPolly.a", "libpolly-22-dev"),
];
/// Variables that would carry the outer build's choices into this one.
const OUTER: &[&str] = &[
    "RUSTC",
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "CARGO_TARGET_DIR",
    "CARGO_RESOLVER_FEATURE_UNIFICATION",
    "CARGO_UNSTABLE_FEATURE_UNIFICATION",
];
/// The programs are optimised always: the verifier refuses most of what is not.
const PROFILE: &[&str] = &[
    "profile.release.opt-level=3",
    "profile.release.lto=true",
    "profile.release.codegen-units=1",
    "profile.release.debug=2",
    "profile.release.strip=false",
    "profile.release.incremental=false",
];

/// What compiles for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Toolchain {
    /// Debian's rustc-web, with `core` precompiled for the kernel.
    Debian,
    /// rustup's nightly, which builds `core` from rust-src.
    Nightly,
}

/// Builds the programs; returns the object's path. Touches it only when it changed, so that the loader is not
/// built again for nothing.
pub(crate) fn build() -> Result<PathBuf> {
    let toolchain = toolchain()?;
    let linker = linker(toolchain)?;
    let root = crate::root();
    let folder = root.join("target/ebpf");
    let mut cargo = cargo(toolchain);
    cargo.current_dir(&root).args(["build", "--quiet", "--release", "-p", PACKAGE, "--target", TARGET]);
    cargo.arg("--target-dir").arg(&folder).args(PROFILE.iter().flat_map(|option| ["--config", option]));
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(&root).join("\x1f"));
    run(&mut cargo, "the kernel programs do not compile")?;
    let object = root.join("target/bpf/netkeel.o");
    install(&folder.join(TARGET).join("release").join(PROGRAM), &object)?;
    eprintln!("{} ({toolchain:?} toolchain)", object.display());
    Ok(object)
}

/// Type information for the kernel, and no path of this machine in it.
fn flags(root: &Path) -> Vec<String> {
    let mut flags =
        vec![format!(r#"--cfg=bpf_target_arch="{}""#, env::consts::ARCH), "-Clink-arg=--btf".to_owned()];
    flags.push(format!("--remap-path-prefix={}=.", root.display()));
    flags.extend(cargo_home().map(|home| format!("--remap-path-prefix={}=cargo", home.display())));
    flags
}

/// Replaces `to` in one step, when it differs from `from`.
fn install(from: &Path, to: &Path) -> Result<()> {
    let built = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == built) {
        return Ok(());
    }
    let folder = to.parent().context("a file in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("make folder {}", folder.display()))?;
    let partial = from.with_extension("installing");
    fs::write(&partial, built).with_context(|| format!("write {}", partial.display()))?;
    fs::rename(&partial, to).with_context(|| format!("write {}", to.display()))
}

/// The toolchain that is there, else Debian's, installed.
fn toolchain() -> Result<Toolchain> {
    let present = |packages: &[(&str, &str)]| packages.iter().all(|(path, _)| Path::new(path).exists());
    if present(DEBIAN_PACKAGES) {
        return Ok(Toolchain::Debian);
    }
    if has_nightly() {
        return Ok(Toolchain::Nightly);
    }
    if !succeeds(Command::new("apt-cache").args(["show", "rustc-web"])) {
        bail!(
            "no compiler for the kernel programs: run `rustup toolchain install nightly --component rust-src` \
             and `cargo install bpf-linker`, or use Debian with its packages rustc-web and libstd-rust-web-dev-bpf"
        );
    }
    setup::require(DEBIAN_PACKAGES)?;
    Ok(Toolchain::Debian)
}

fn has_nightly() -> bool {
    let sysroot = Command::new("rustc").args(["+nightly", "--print", "sysroot"]).output();
    sysroot.is_ok_and(|output| {
        let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        output.status.success() && sysroot.join("lib/rustlib/src/rust/library/core").exists()
    })
}

/// The path of bpf-linker, installed where it is missing.
fn linker(toolchain: Toolchain) -> Result<PathBuf> {
    if let Some(path) = find("bpf-linker") {
        return Ok(path);
    }
    eprintln!("installing bpf-linker {LINKER_VERSION} with cargo");
    let mut cargo = process::cargo();
    cargo.args(["install", "--quiet", "--locked", "bpf-linker", "--version", LINKER_VERSION]);
    if toolchain == Toolchain::Debian {
        setup::require(DEBIAN_LINKER_PACKAGES)?;
        let path = env::var("PATH").unwrap_or_default();
        cargo.args(["--no-default-features", "--features", "llvm-22"]);
        cargo.env("PATH", format!("{DEBIAN_LLVM}/bin:{path}")).env("LLVM_PREFIX", DEBIAN_LLVM);
    }
    run(&mut cargo, "bpf-linker does not build")?;
    find("bpf-linker")
        .context("cargo installed bpf-linker to a folder that is not in PATH: add ~/.cargo/bin to it")
}

/// A program in the folders of PATH or where cargo installs to.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = cargo_home().map(|home| home.join("bin"));
    env::split_paths(&path).chain(installed).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn cargo_home() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

/// cargo with the toolchain's compiler.
fn cargo(toolchain: Toolchain) -> Command {
    let mut cargo = process::cargo();
    for variable in OUTER {
        cargo.env_remove(variable);
    }
    match toolchain {
        Toolchain::Debian => cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1"),
        Toolchain::Nightly => cargo.args(["+nightly", "-Zbuild-std=core"]),
    };
    cargo
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command, failure: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{failure}: cargo ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cargo around this program, which `$CARGO` names, belongs to one toolchain and knows no other.
    #[test]
    fn nightly_is_chosen_by_rustups_cargo() {
        let cargo = cargo(Toolchain::Nightly);
        let told: Vec<_> = cargo.get_args().collect();
        assert_eq!((cargo.get_program().to_str(), told[0].to_str()), (Some("cargo"), Some("+nightly")));
        assert!(cargo.get_envs().any(|variable| variable == ("RUSTUP_TOOLCHAIN".as_ref(), None)));
    }

    #[test]
    fn an_unchanged_object_is_not_touched() {
        let folder = env::temp_dir().join(format!("xtask-ebpf-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (from, to) = (folder.join("built"), folder.join("bpf/netkeel.o"));
        fs::write(&from, "one").unwrap();
        install(&from, &to).unwrap();
        let before = fs::metadata(&to).unwrap().modified().unwrap();
        install(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), before);
        fs::write(&from, "two").unwrap();
        install(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
        fs::remove_dir_all(&folder).unwrap();
    }
}
