//! `netkeel-operator`.

use clap::Parser;
use netkeel_operator::args::Args;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Ok(netkeel_operator::run::run(Args::parse()).await?)
}
