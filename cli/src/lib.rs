//! The program `netkeel`: asks the API server how the network is, and says it. It changes nothing.
#![forbid(unsafe_code)]

pub mod args;
mod lister;
mod migrate;
mod status;
mod why;

use std::process::ExitCode;

use args::{Args, Command, Migrate};
use lister::Lister;
use status::{fetch, render};

/// Does what the command line asks for. The exit code is 1 when the network has a problem, traffic is denied or a
/// configuration has no place, 2 when the cluster or file cannot be asked.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let context = args.context.as_deref();
    match &args.command {
        Command::Version => {
            println!("netkeel {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Command::Status { output } => tell(async {
            let status = fetch::fetch(Lister::new(netkeel_client::connect_as_user(context).await?)).await?;
            Ok((render::render(&status, *output), status.problems().is_empty()))
        }),
        Command::Why { from, to, from_file, output } => tell(async {
            let answer = why::ask(context, from_file.as_deref(), from, to).await?;
            Ok((why::render(&answer, *output), answer.explanation.allowed))
        }),
        Command::Migrate(Migrate::Corefile(options)) => tell(async {
            let migrated = migrate::corefile(context, options).await?;
            eprint!("{}", migrated.told);
            Ok((migrated.patch, migrated.good))
        }),
    }
}

/// Prints an answer, or what kept it away; the exit code says whether it is good.
fn tell(ask: impl Future<Output = anyhow::Result<(String, bool)>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(ask));
    match answer {
        Ok((text, good)) => {
            print!("{text}");
            if good { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("{}", told(&error));
            ExitCode::from(2)
        }
    }
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
