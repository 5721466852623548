//! A status as text for people or JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Component, Condition, Installation, Node, Pool, Status};
use crate::args::Output;

/// The whole answer of `netkeel status`.
pub(crate) fn render(status: &Status, output: Output) -> String {
    match output {
        Output::Text => text(status),
        Output::Json => format!("{:#}\n", whole(status)),
    }
}

/// The status with its judgement beside it.
fn whole(status: &Status) -> Value {
    let problems = status.problems();
    let mut whole = json!({"healthy": problems.is_empty(), "problems": problems});
    if let (Some(whole), Ok(Value::Object(status))) = (whole.as_object_mut(), serde_json::to_value(status)) {
        whole.extend(status);
    }
    whole
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    let mut section = |rows: String| {
        if !rows.is_empty() {
            text += &rows;
            text.push('\n');
        }
    };
    if status.installation != Installation::Absent {
        section(titled(["COMPONENT", "READY", "VERSION", "RUN BY"], status.components.iter().map(component)));
        section(table(&status.conditions.iter().map(condition).collect::<Vec<_>>()));
        section(titled(["POOL", "CIDR", "STATE", "BLOCKS", "ADDRESSES"], status.pools.iter().map(pool)));
        let header = ["NODE", "ADDRESS", "MTU", "BLOCKS", "PODS", "REVISION", "AGENT", "STATE"];
        section(titled(header, status.nodes.iter().map(node)));
    }
    let problems = status.problems();
    for problem in &problems {
        let _ = writeln!(text, "{}\n  next: {}", problem.what, problem.next); // writing to a String does not fail
    }
    if !status.forbidden.is_empty() {
        let _ = writeln!(text, "not shown, since you may not list: {}", status.forbidden.join(", "));
    }
    if problems.is_empty() {
        text += "everything works\n";
    }
    text
}

fn component(component: &Component) -> [String; 4] {
    let Component { name, owner, namespace, ready, wanted, version } = component;
    let run_by = format!("{owner} in {namespace}");
    [name.clone(), format!("{ready}/{wanted}"), or_dash(version.clone()), run_by]
}

fn condition(condition: &Condition) -> [String; 3] {
    let told = if condition.message.is_empty() { &condition.reason } else { &condition.message };
    [condition.kind.clone(), condition.status.clone(), told.clone()]
}

fn pool(pool: &Pool) -> [String; 5] {
    let Pool { name, cidr, state, blocks, addresses } = pool;
    [name.clone(), cidr.clone(), or_dash(state.clone()), blocks.to_string(), addresses.to_string()]
}

fn node(node: &Node) -> [String; 8] {
    let short = |revision: &String| revision.chars().take(8).collect();
    [
        node.name.clone(),
        or_dash(node.addresses.first().cloned()),
        or_dash(node.mtu.map(|mtu| mtu.to_string())),
        or_dash(Some(node.blocks.join(","))),
        or_dash(node.pod_addresses.map(|usage| usage.to_string())),
        or_dash(node.applied_revision.as_ref().map(short)),
        node.agent.state().to_owned(),
        if node.problem().is_none() { "ok".into() } else { "problem".into() },
    ]
}

fn or_dash(text: Option<String>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into())
}

/// A table below its header; nothing where there are no rows.
fn titled<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    if rows.len() > 1 { table(&rows) } else { String::new() }
}

/// Rows with their columns aligned, two spaces apart, without spaces at the end of a line.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
