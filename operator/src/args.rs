//! The command line and the environment.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args as Arguments, Parser, Subcommand};

use crate::settings::Settings;

/// The operator of Netkeel.
#[derive(Debug, Parser)]
#[command(name = "netkeel-operator", version)]
pub struct Args {
    /// What to do; without it the operator runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How it runs.
    #[command(flatten)]
    pub config: Config,
}

/// What the program can do besides running.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Deletes the `ClusterNetwork` and waits until every node is as it was before.
    Uninstall {
        /// Seconds to wait.
        #[arg(long, default_value = "240", value_parser = seconds)]
        timeout: Duration,
    },
    /// Asks the operator of this pod whether it is alive or ready, for the kubelet.
    Probe {
        /// Which of both.
        what: Probe,
    },
}

/// Question of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Probe {
    /// `/healthz`.
    Live,
    /// `/readyz`.
    Ready,
}

/// How the operator runs.
#[derive(Arguments, Debug)]
pub struct Config {
    /// Name of this pod, which is its name as a candidate for the lease.
    #[arg(long, env = "POD_NAME", default_value = "netkeel-operator", global = true)]
    pub pod_name: String,
    /// Namespace of the operator, its lease and the agents.
    #[arg(long, env = "POD_NAMESPACE", default_value = "netkeel-system", global = true)]
    pub namespace: String,
    /// Image that agents and DNS run.
    #[arg(long, env = "NETKEEL_IMAGE", default_value = concat!("ghcr.io/netkeel/netkeel:", env!("CARGO_PKG_VERSION")), global = true)]
    pub image: String,
    /// `imagePullPolicy` of agents and DNS.
    #[arg(long, env = "NETKEEL_IMAGE_PULL_POLICY", default_value = "IfNotPresent", global = true)]
    pub image_pull_policy: String,
    /// Where metrics and health are served; a port in use (two operators on one node) gives way to any free one.
    #[arg(long, default_value = "[::]:9471", global = true)]
    pub admin_address: SocketAddr,
    /// File that says where they are really served, for the probes of this pod.
    #[arg(long, default_value = "/run/netkeel-operator/admin", global = true)]
    pub admin_file: PathBuf,
}

impl Config {
    /// What the rendered objects need to know of this operator.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            namespace: self.namespace.clone(),
            image: self.image.clone(),
            image_pull_policy: self.image_pull_policy.clone(),
            api_servers: Vec::new(),
        }
    }
}

/// Reads a number of seconds, with or without the unit: `240` or `240s`.
fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.trim_end_matches('s').parse().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_command_the_operator_runs() {
        let args = Args::parse_from(["netkeel-operator"]);
        assert_eq!(args.command, None);
        assert_eq!(args.config.admin_address.port(), 9471);
    }

    #[test]
    fn a_timeout_is_in_seconds_with_or_without_the_unit() {
        for text in ["90", "90s"] {
            let args = Args::parse_from(["netkeel-operator", "uninstall", "--timeout", text]);
            assert_eq!(args.command, Some(Command::Uninstall { timeout: Duration::from_secs(90) }));
        }
    }
}
