//! `cargo xtask cluster`: the test cluster from the command line.

use anyhow::Result;
use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Take the cluster down.
    Down,
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Down => anyhow::bail!("there is no cluster"),
    }
}
