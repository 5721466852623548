//! The command line and the environment, parsed into a `Config`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args as Arguments, Parser, Subcommand};

/// The network of one Kubernetes node.
#[derive(Debug, Parser)]
#[command(name = "netkeel-agent", version)]
pub struct Args {
    /// What to do; without it the agent runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where things are and who this is.
    #[command(flatten)]
    pub config: Config,
}

/// What the program can do besides running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Mounts the BPF file system where it is missing, and ends.
    MountBpffs,
    /// Removes everything that the agent made on this node, and ends. Pods lose their network.
    Clean,
}

/// Where things are and who this is.
#[derive(Arguments, Clone, Debug)]
pub struct Config {
    /// Name of the Node object that this process serves.
    #[arg(long, env = "NODE_NAME", default_value = "", global = true)]
    pub node_name: String,
    /// Addresses of the API server for the first contact: host:port, separated by commas.
    #[arg(long, env = "NETKEEL_API_SERVERS", value_delimiter = ',', global = true)]
    pub api_servers: Vec<String>,
    /// Where metrics and health are served.
    #[arg(long, default_value = "[::]:9470", global = true)]
    pub admin_address: SocketAddr,
    /// The BPF file system.
    #[arg(long, default_value = "/sys/fs/bpf", global = true)]
    pub bpffs: PathBuf,
    /// Where cgroup2 is looked for; default: the host's below the host prefix, else /sys/fs/cgroup.
    #[arg(long, global = true)]
    pub cgroup_root: Option<PathBuf>,
    /// Below it are the host's CNI folders and its /proc/sys/net.
    #[arg(long, default_value = "/host", global = true)]
    pub host_prefix: PathBuf,
    /// State that is lost with the pods at a reboot.
    #[arg(long, default_value = "/run/netkeel", global = true)]
    pub run_folder: PathBuf,
    /// State that survives a reboot.
    #[arg(long, default_value = "/var/lib/netkeel", global = true)]
    pub state_folder: PathBuf,
    /// The CNI plugin that is installed on the host.
    #[arg(long, default_value = "/netkeel-cni", global = true)]
    pub plugin: PathBuf,
}

impl Config {
    /// The folder below which cgroup2 is looked for.
    #[must_use]
    pub fn cgroups(&self) -> PathBuf {
        let mounted = self.host_prefix.join("sys/fs/cgroup");
        let default = || if mounted.is_dir() { mounted } else { PathBuf::from("/sys/fs/cgroup") };
        self.cgroup_root.clone().unwrap_or_else(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_a_default_but_the_node() {
        let args = Args::parse_from([
            "netkeel-agent",
            "--node-name",
            "a",
            "--api-servers",
            "10.0.0.1:6443,10.0.0.2:6443",
        ]);
        assert_eq!(args.command, None);
        assert_eq!(args.config.node_name, "a");
        assert_eq!(args.config.api_servers, ["10.0.0.1:6443", "10.0.0.2:6443"]);
        assert_eq!(args.config.run_folder, PathBuf::from("/run/netkeel"));
    }

    #[test]
    fn paths_may_follow_the_command() {
        let args = Args::parse_from(["netkeel-agent", "mount-bpffs", "--bpffs", "/tmp/bpf"]);
        assert_eq!(args.command, Some(Command::MountBpffs));
        assert_eq!(args.config.bpffs, PathBuf::from("/tmp/bpf"));
    }
}
