//! `netkeel-agent`: parses, then runs.

use clap::Parser;
use netkeel_agent::{args::Args, run};

/// `NETKEEL_BUILD` at compile time gives a build a version of its own.
const VERSION: &str = match option_env!("NETKEEL_BUILD") {
    Some(build) => build,
    None => env!("CARGO_PKG_VERSION"),
};

fn main() -> std::process::ExitCode {
    run::main(Args::parse(), VERSION)
}
