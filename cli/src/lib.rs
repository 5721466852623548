//! The program `netkeel`: asks the API server how the network is, and says it. It changes nothing.
#![forbid(unsafe_code)]

pub mod args;
mod lister;
mod status;

use std::process::ExitCode;

use args::{Args, Command, Output};
use lister::Lister;
use status::{fetch, render};

/// Does what the command line asks for. The exit code is 1 when the network has a problem, 2 when the cluster cannot
/// be asked.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match args.command {
        Command::Version => {
            println!("netkeel {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Command::Status { output } => tell(args.context.as_deref(), output),
    }
}

fn tell(context: Option<&str>, output: Output) -> ExitCode {
    match ask(context) {
        Ok(status) => {
            print!("{}", render::render(&status, output));
            if status.problems().is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("{}", told(&error));
            ExitCode::from(2)
        }
    }
}

fn ask(context: Option<&str>) -> anyhow::Result<status::Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = netkeel_client::connect_as_user(context).await?;
        fetch::fetch(Lister::new(client)).await
    })
}

/// An error with its causes, less those that the text before repeats.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        said if said.contains(&cause) => text,
        said => format!("{said}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_cause_is_not_told_twice() {
        let error =
            anyhow::anyhow!("no such file").context("read config: no such file").context("no cluster");
        assert_eq!(super::told(&error), "no cluster: read config: no such file");
    }
}
