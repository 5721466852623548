//! `cargo xtask bench`: Netkeel's figures, measured on a cluster of their own. docs/performance.md says how to read them.
//! Figures go to stdout, progress to stderr. A missed goal is a result, not an error.

mod bed;
mod cni_add;
mod figure;
mod footprint;
mod machine;
mod service_crr;

use anyhow::Result;
use clap::{Args, ValueEnum};
use netkeel_e2e::Progress;

use crate::image;
use bed::Bed;
use figure::{Figure, Unit};

#[derive(Args)]
pub(crate) struct Options {
    /// What to measure; without a name, everything.
    names: Vec<Name>,
    /// One JSON object a line and figure instead of a table.
    #[arg(long)]
    json: bool,
    /// Leave the cluster `bench` up; the next run uses it as it is.
    #[arg(long)]
    keep: bool,
}

/// Measured in this order: the footprint comes last, after the load of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Name {
    /// Size of the image as it is published.
    Image,
    /// Connections a second through a `ClusterIP`, beside those directly to its pod.
    ServiceCrr,
    /// Time and rate of the CNI plugin's ADD.
    CniAdd,
    /// Memory of the programs and of the agent's maps.
    Footprint,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let progress = Progress::start();
    let mut names = options.names.clone();
    if names.is_empty() {
        names.extend(Name::value_variants());
    }
    names.sort_unstable();
    names.dedup();
    let mut report = figure::Report::new(options.json);
    if names.contains(&Name::Image) {
        report.add(image_size()?)?;
        names.retain(|name| *name != Name::Image);
    }
    if !names.is_empty() {
        let bed = Bed::up(progress)?;
        names.iter().try_for_each(|name| report.extend(measure(*name, &bed)?))?;
        if options.keep {
            bed.progress.say("the cluster stays up: cargo xtask cluster down --name bench");
        } else {
            bed.down()?;
        }
    }
    report.finish();
    Ok(())
}

fn measure(name: Name, bed: &Bed) -> Result<Vec<Figure>> {
    match name {
        Name::Image => Ok(vec![image_size()?]),
        Name::ServiceCrr => service_crr::run(bed),
        Name::CniAdd => cni_add::run(bed),
        Name::Footprint => footprint::run(bed),
    }
}

fn image_size() -> Result<Figure> {
    let bytes = std::fs::metadata(image::build_compressed()?)?.len();
    Ok(Figure::new("image", figure::mebibytes(bytes), Unit::Mebibytes))
}
