//! `cargo xtask`: every task of the repository that is more than one cargo command.
//! One module a task; this file only picks one.

mod bench;
mod cluster;
mod demo;
mod ebpf;
mod fuzz;
mod generate;
mod helm;
mod image;
mod imports;
mod orphans;
mod setup;
mod test;
mod workspace;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the Netkeel repository", max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure Netkeel on a cluster of its own.
    Bench(bench::Options),
    /// A real Kubernetes cluster in namespaces of this machine.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// The main job on a real two-node cluster, checked step by step; leaves the cluster up.
    Demo,
    /// Build the kernel programs into target/bpf/netkeel.o, which the agent embeds.
    Ebpf,
    /// Feed everything that reads what others wrote with damaged and random input.
    Fuzz(fuzz::Options),
    /// Write the files that are made from the code.
    Generate {
        /// Write nothing; fail when a file is stale.
        #[arg(long)]
        check: bool,
    },
    /// Lint and render the chart with the real helm.
    Helm,
    /// Build the container image into target/image/netkeel.tar.
    Image {
        /// Gzip the layer, as it is published, into target/image/netkeel.gz.tar.
        #[arg(long, conflicts_with = "another")]
        compressed: bool,
        /// Another build of the agent, in an image with a tag of its own, into target/image/netkeel-another.tar.
        #[arg(long)]
        another: bool,
    },
    /// Install the Debian packages that the other tasks need and that are missing.
    Setup,
    /// Check and test everything, or the steps named.
    Test(test::Options),
}

fn main() -> std::process::ExitCode {
    match run(Args::parse().task) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Bench(options) => bench::run(&options),
        Task::Cluster(command) => cluster::run(&command),
        Task::Demo => demo::run(),
        Task::Ebpf => ebpf::build().map(|_| ()),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Generate { check } => generate::run(check),
        Task::Helm => helm::run(),
        Task::Image { another: true, .. } => image::build_another().map(drop),
        Task::Image { compressed: true, .. } => image::build_compressed().map(drop),
        Task::Image { .. } => image::build().map(drop),
        Task::Setup => setup::run(),
        Task::Test(options) => test::run(&options),
    }
}

/// The repository's root.
fn root() -> std::path::PathBuf {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.parent().unwrap_or(folder).to_owned()
}
