//! `footprint`: resident memory of the programs, the largest instance of each, and kernel memory of the agent's maps.

use anyhow::{Context, Result, ensure};

use super::bed::Bed;
use super::figure::{Figure, Unit, mebibytes};

/// Figure, and what its process was started as.
const PROGRAMS: [(&str, &str); 3] = [
    ("footprint-agent", "/netkeel-agent"),
    ("footprint-operator", "/netkeel-operator"),
    ("footprint-dns", "/netkeel-dns"),
];
/// Prints program, resident memory and its peak in KiB, a line a process of the node.
const LIST: &str = r#"for p in /proc/[0-9]*; do
  program=$(tr '\0' '\n' < $p/cmdline | head -n 1)
  case $program in /netkeel-agent | /netkeel-operator | /netkeel-dns) ;; *) continue ;; esac
  echo "$program" $(awk '/^VmRSS|^VmHWM/ {print $1 $2}' $p/status)
done 2>/dev/null; true"#;
/// Of a node's agent.
pub(super) const METRICS: &str = "http://127.0.0.1:9470/metrics";
const MAP_BYTES: &str = "netkeel_agent_map_bytes";

pub(super) fn run(bed: &Bed) -> Result<Vec<Figure>> {
    bed.settle()?;
    measure(bed, "")
}

/// `suffix` ends the figures' names.
pub(super) fn measure(bed: &Bed, suffix: &str) -> Result<Vec<Figure>> {
    let mut processes = Vec::new();
    let mut maps = Vec::new();
    for node in bed.nodes()? {
        let found = processes_of(&bed.cluster.node_exec(node, &["sh", "-c", LIST])?)?;
        for Process { program, resident, peak } in &found {
            bed.progress.say(format!("{program} on {node}: {resident} KiB, at most {peak} KiB"));
        }
        processes.extend(found);
        maps.push(map_bytes(&bed.cluster.node_exec(node, &["busybox", "wget", "-qO-", METRICS])?)?);
    }
    let mut figures = Vec::new();
    for (figure, program) in PROGRAMS {
        let largest = processes.iter().filter(|process| process.program == program);
        let largest = largest.map(|process| process.resident).max();
        let kib = largest.with_context(|| format!("{program} runs on no node"))?;
        figures.push(Figure::new(format!("{figure}{suffix}"), mebibytes(kib * 1024), Unit::Mebibytes));
    }
    let most = maps.into_iter().max().unwrap_or_default();
    figures.push(Figure::new(format!("footprint-agent-maps{suffix}"), mebibytes(most), Unit::Mebibytes));
    Ok(figures)
}

#[derive(Debug, PartialEq, Eq)]
struct Process {
    program: String,
    /// KiB.
    resident: u64,
    /// KiB.
    peak: u64,
}

fn processes_of(text: &str) -> Result<Vec<Process>> {
    text.lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let program = words.next().unwrap_or_default().to_owned();
            let (mut resident, mut peak) = (None, None);
            for word in words {
                match word.split_once(':') {
                    Some(("VmRSS", number)) => resident = number.parse().ok(),
                    Some(("VmHWM", number)) => peak = number.parse().ok(),
                    _ => {}
                }
            }
            let (resident, peak) =
                resident.zip(peak).with_context(|| format!("memory of a process: {line}"))?;
            Ok(Process { program, resident, peak })
        })
        .collect()
}

/// The sum over all maps in the agent's metrics.
fn map_bytes(metrics: &str) -> Result<u64> {
    let samples = metrics.lines().filter(|line| line.starts_with(&format!("{MAP_BYTES}{{")));
    let bytes: Vec<u64> = samples
        .map(|line| {
            let number = line.rsplit_once(' ').and_then(|(_, number)| number.parse().ok());
            number.with_context(|| format!("a metric: {line}"))
        })
        .collect::<Result<_>>()?;
    ensure!(!bytes.is_empty(), "{METRICS} has no {MAP_BYTES}");
    Ok(bytes.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_by_name() {
        let seen = processes_of("/netkeel-agent VmHWM:300 VmRSS:200\n").unwrap();
        assert_eq!(seen, [Process { program: "/netkeel-agent".into(), resident: 200, peak: 300 }]);
        assert!(processes_of("/netkeel-dns VmHWM:300\n").is_err());
    }

    #[test]
    fn map_bytes_are_summed() {
        let metrics = "# HELP netkeel_agent_map_bytes x\nnetkeel_agent_map_bytes{map=\"CONFIG\"} 100\n\
                       netkeel_agent_map_bytes{map=\"SERVICES\"} 20\nnetkeel_agent_drops_total 7\n";
        assert_eq!(map_bytes(metrics).unwrap(), 120);
        assert!(map_bytes("netkeel_agent_drops_total 7\n").is_err());
    }
}
