//! `verdict-ns`: what `from_pod` takes for a packet of an established connection, beyond what an empty program takes. An
//! example program of the loader measures it, since only the loader loads programs.

use anyhow::{Context, Result};
use netkeel_e2e::{Progress, process};
use serde::Deserialize;

use super::awake::Awake;
use super::figure::{Figure, Unit};
use super::machine;
use crate::ebpf;

const PROGRAM: [&str; 6] =
    ["-p", "netkeel-dataplane-loader", "--features", "root-tests", "--example", "verdict_ns"];

/// Nanoseconds a run, medians of all rounds.
#[derive(Debug, Deserialize)]
struct Measured {
    #[serde(rename = "verdict_ns")]
    verdict: f64,
    #[serde(rename = "from_pod_ns")]
    from_pod: f64,
    #[serde(rename = "to_pod_ns")]
    to_pod: f64,
    #[serde(rename = "empty_ns")]
    empty: f64,
}

pub(super) fn run() -> Result<Figure> {
    let progress = Progress::start();
    ebpf::build()?;
    let mut build = process::cargo();
    process::run_long(build.args(["build", "--quiet"]).args(PROGRAM), "building the program", &progress)?;
    machine::settle(&progress)?;
    let awake = Awake::start()?;
    let text = process::text(process::cargo().args(["run", "--quiet"]).args(PROGRAM));
    drop(awake);
    let text = text?;
    let measured: Measured =
        serde_json::from_str(&text).with_context(|| format!("verdict_ns said {text:?}"))?;
    let Measured { from_pod, to_pod, empty, .. } = measured;
    progress.say(format!("from_pod {from_pod} ns, to_pod {to_pod} ns, an empty program {empty} ns"));
    Ok(measured.figure())
}

impl Measured {
    fn figure(&self) -> Figure {
        Figure::new("verdict-ns", self.verdict, Unit::Nanoseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_loaders_program_prints_becomes_the_figure() {
        let said = r#"{"name":"verdict-ns","verdict_ns":120,"from_pod_ns":146,"to_pod_ns":99,"empty_ns":26}"#;
        let measured: Measured = serde_json::from_str(said).unwrap();
        assert_eq!(measured.figure(), Figure::new("verdict-ns", 120.0, Unit::Nanoseconds));
    }
}
