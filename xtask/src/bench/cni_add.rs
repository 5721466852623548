//! `cni-add`: the installed plugin, called on a node as a runtime calls it, once at a time and then many at once, while
//! the node has 250 other pods.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::process;
use serde::Deserialize;
use serde_json::Value;

use super::bed::Bed;
use super::figure::{Figure, Unit};

/// More than twice of what the kubelet takes by default.
const BESIDE: u32 = 250;
const PLUGIN: &str = "/opt/cni/bin/netkeel-cni";
const CONFIGURATION: &str = "/etc/cni/net.d/05-netkeel.conflist";
const ONE_BY_ONE: Load = Load { count: 200, parallel: 1 };
const AT_ONCE: Load = Load { count: 256, parallel: 32 };

/// Calls of each verb.
struct Load {
    count: u32,
    parallel: u32,
}

#[derive(Deserialize)]
struct Measured {
    beside: Calls,
    add: Calls,
    del: Calls,
}

#[derive(Deserialize)]
struct Calls {
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    per_second: f64,
    /// What the plugin said, how often.
    failures: BTreeMap<String, u64>,
}

pub(super) fn run(bed: &Bed) -> Result<Vec<Figure>> {
    // The second node: the first one also runs the control plane.
    let [_, node] = bed.nodes()?;
    let configuration = configuration(bed, node)?;
    let Measured { add: one_by_one, del, .. } = measure(bed, node, &configuration, &ONE_BY_ONE)?;
    let at_once = measure(bed, node, &configuration, &AT_ONCE)?.add;
    Ok(vec![
        Figure::new("cni-add-p50", one_by_one.p50_us / 1000.0, Unit::Milliseconds),
        Figure::new("cni-add-p99", one_by_one.p99_us / 1000.0, Unit::Milliseconds),
        Figure::new("cni-add-rate", at_once.per_second, Unit::Adds),
        Figure::new("cni-del", 1000.0 / del.per_second, Unit::Milliseconds),
    ])
}

fn measure(bed: &Bed, node: &str, configuration: &str, load: &Load) -> Result<Measured> {
    bed.settle()?;
    let mut command = command(bed, node, BESIDE, load.count)?;
    command.arg("--parallel").arg(load.parallel.to_string());
    let text = process::text_with_input(&mut command, configuration)?;
    let measured: Measured = serde_json::from_str(&text).context("output of bench-cni")?;
    ensure!(measured.beside.failures.is_empty(), "the other pods: {:?}", measured.beside.failures);
    for (verb, calls) in [("ADD", &measured.add), ("DEL", &measured.del)] {
        ensure!(calls.failures.is_empty(), "{verb} failed: {:?}", calls.failures);
        bed.progress.say(format!(
            "{} {verb}s, {} at a time: p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms, {:.0} a second",
            load.count,
            load.parallel,
            calls.p50_us / 1000.0,
            calls.p99_us / 1000.0,
            calls.max_us / 1000.0,
            calls.per_second
        ));
    }
    Ok(measured)
}

/// What the plugin gets on that node.
pub(super) fn configuration(bed: &Bed, node: &str) -> Result<String> {
    plugin_configuration(&bed.cluster.node_exec(node, &["cat", CONFIGURATION])?)
}

/// `bench-cni` with that many pods that stay, and that many that are measured.
pub(super) fn command(bed: &Bed, node: &str, beside: u32, count: u32) -> Result<Command> {
    let mut command = bed.cluster.node_command(node)?;
    command.arg(bed.peer()).args(["bench-cni", "--plugin", PLUGIN, "--beside", &beside.to_string()]);
    command.args(["--count", &count.to_string()]);
    Ok(command)
}

/// What a runtime makes of a list's first plugin: it gets the list's name and version.
fn plugin_configuration(list: &str) -> Result<String> {
    let list: Value = serde_json::from_str(list).context(CONFIGURATION)?;
    let mut plugin = list["plugins"][0].clone();
    ensure!(plugin.is_object(), "{CONFIGURATION} has no plugin");
    for key in ["name", "cniVersion"] {
        plugin[key] = list[key].clone();
    }
    Ok(plugin.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_gets_name_and_version_of_its_list() {
        let list = r#"{"cniVersion":"1.1.0","name":"netkeel","plugins":[{"type":"netkeel-cni"}]}"#;
        let plugin: Value = serde_json::from_str(&plugin_configuration(list).unwrap()).unwrap();
        let expected = serde_json::json!({"cniVersion": "1.1.0", "name": "netkeel", "type": "netkeel-cni"});
        assert_eq!(plugin, expected);
        assert!(plugin_configuration("{}").is_err());
    }
}
