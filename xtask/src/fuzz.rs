//! `cargo xtask fuzz`: the fuzz targets of `dns/src/fuzz.rs` for as long as told. They are tests, which the gate runs once;
//! stable Rust is enough. The inputs are others each time; a failure prints the smallest input that makes it.

use anyhow::{Result, ensure};
use clap::Args;
use netkeel_e2e::process;

#[derive(Args)]
pub(crate) struct Options {
    /// Only targets whose name begins like this.
    name: Option<String>,
    /// How long each target runs; all run at the same time.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut cargo = process::cargo();
    cargo.args(["test", "--package", "netkeel-dns", "--lib", "--", "--nocapture"]);
    cargo.arg(format!("fuzz::{}", options.name.as_deref().unwrap_or_default()));
    cargo.env("NETKEEL_FUZZ_SECONDS", options.seconds.to_string());
    ensure!(cargo.status()?.success(), "a fuzz target has failed: make a test of the input that it prints");
    Ok(())
}
