//! `netkeel-dns`: parses the command line and runs the server.

use clap::Parser;
use netkeel_dns::{args::Args, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(Args::parse()).await?;
    Ok(())
}
