//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    migrate,
    why::{End, Target},
};

/// What the user asks for.
#[derive(Debug, Parser)]
#[command(name = "netkeel", about = "Looks after the network of a Kubernetes cluster", version)]
pub struct Args {
    /// Context of the kubeconfig; the current one if none is named.
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say how the network is and what to do next. Exits with 1 when something is wrong.
    Status {
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Say whether policy lets traffic pass, and which policy decides. Exits with 1 when it is denied.
    Why {
        /// Where the traffic comes from: NAMESPACE/POD, node/NAME or an address.
        from: End,
        /// Where it goes: the same, with :PORT behind it, or :PORT/udp (an IPv6 address in brackets then); without a port, every protocol and port is meant.
        to: Target,
        /// Ask the objects in this file, written by kubectl get -o yaml, instead of the API server.
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Turn the configuration of another program into Netkeel's.
    #[command(subcommand)]
    Migrate(Migrate),
    /// Print this program's version.
    Version,
}

/// What is turned into Netkeel's configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum Migrate {
    /// A Corefile of CoreDNS, or what kube-dns is told, into a patch of spec.dns. Exits with 1 when something has no place
    /// there, with 2 when it cannot be read.
    Corefile(migrate::Options),
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The command line of this process; ends it with a message when it is wrong.
#[must_use]
pub fn parse() -> Args {
    Args::parse()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_json_is_asked_for_with_o() {
        Args::command().debug_assert();
        let args = Args::try_parse_from(["netkeel", "status", "-o", "json"]).unwrap();
        assert!(matches!(args.command, Command::Status { output: Output::Json }));
        let args =
            Args::try_parse_from(["netkeel", "why", "shop/cart", "shop/db:5432", "--from-file", "a.yaml"])
                .unwrap();
        assert!(matches!(
            args.command,
            Command::Why { to: Target { port: Some((_, 5432)), .. }, from_file: Some(_), .. }
        ));
        assert_eq!(Args::try_parse_from(["netkeel", "why", "cart", "shop/db"]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_corefile_is_a_file_or_the_clusters() {
        let parse =
            |args: &[&str]| Args::try_parse_from([&["netkeel", "migrate", "corefile"], args].concat());
        let good: [&[&str]; 3] = [
            &["-"],
            &["Corefile", "a.override", "--env", "A=b=c"],
            &["--from-cluster", "--tls-secret", "dot"],
        ];
        for args in good {
            assert!(parse(args).is_ok(), "{args:?}");
        }
        let bad: [&[&str]; 4] =
            [&[], &["Corefile", "--from-cluster"], &["-", "--env", "A"], &["-", "--tls-secret", "A_"]];
        for args in bad {
            assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args:?}");
        }
    }
}
