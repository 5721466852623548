//! `netkeel-agent`: parses, then runs.

use clap::Parser;
use netkeel_agent::{args::Args, run};

fn main() -> std::process::ExitCode {
    run::main(Args::parse())
}
