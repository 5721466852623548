//! The program `netkeel`.

use std::process::ExitCode;

use netkeel_cli::{args, run};

fn main() -> ExitCode {
    run(&args::parse())
}
