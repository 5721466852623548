//! A status as text for people or JSON for programs.

use std::fmt::Write;

use serde_json::json;

use super::{Condition, Installation, Node, Status};
use crate::args::Output;

/// The whole answer of `netkeel status`.
pub(crate) fn render(status: &Status, output: Output) -> String {
    match output {
        Output::Text => text(status),
        Output::Json => {
            let whole = json!({"healthy": status.problems().is_empty(), "status": status, "problems": status.problems()});
            format!("{whole:#}\n")
        }
    }
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    if status.installation == Installation::Reported {
        text += &table(&status.conditions.iter().map(condition).collect::<Vec<_>>());
        text.push('\n');
        let header = ["NODE", "BLOCKS", "ADDRESSES", "REVISION", "STATE"].map(str::to_owned);
        text += &table(&std::iter::once(header).chain(status.nodes.iter().map(node)).collect::<Vec<_>>());
        text.push('\n');
    }
    let problems = status.problems();
    for problem in &problems {
        let _ = writeln!(text, "{}\n  next: {}", problem.what, problem.next); // writing to a String does not fail
    }
    if problems.is_empty() {
        text += "everything works\n";
    }
    text
}

fn condition(condition: &Condition) -> [String; 3] {
    let told = if condition.message.is_empty() { &condition.reason } else { &condition.message };
    [condition.kind.clone(), condition.status.clone(), told.clone()]
}

fn node(node: &Node) -> [String; 5] {
    let or_dash = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
    let short = |revision: &String| revision.chars().take(8).collect();
    [
        node.name.clone(),
        or_dash(Some(node.blocks.join(","))),
        or_dash(node.addresses.map(|(used, capacity)| format!("{used}/{capacity}"))),
        or_dash(node.applied_revision.as_ref().map(short)),
        if node.problem().is_none() { "ok".into() } else { "problem".into() },
    ]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: &str, message: &str) -> Condition {
        Condition {
            kind: kind.into(),
            status: status.into(),
            reason: "Reason".into(),
            message: message.into(),
        }
    }

    fn node(name: &str) -> Node {
        Node {
            name: name.into(),
            blocks: vec!["10.244.0.0/26".into()],
            revision: Some("7".into()),
            applied_revision: Some("7".into()),
            addresses: Some((3, 62)),
            conditions: vec![condition("Ready", "True", "")],
        }
    }

    fn reported(nodes: Vec<Node>) -> Status {
        let conditions = vec![condition("Available", "True", "2 of 2 nodes")];
        Status { installation: Installation::Reported, conditions, nodes }
    }

    #[test]
    fn a_healthy_network_is_two_tables_and_a_sentence() {
        let text = render(&reported(vec![node("node-1"), node("node-22")]), Output::Text);
        let expected = "\
Available  True  2 of 2 nodes

NODE     BLOCKS         ADDRESSES  REVISION  STATE
node-1   10.244.0.0/26  3/62       7         ok
node-22  10.244.0.0/26  3/62       7         ok

everything works
";
        assert_eq!(text, expected);
    }

    #[test]
    fn every_problem_is_named_with_its_next_step() {
        let cases = [
            (Status::default(), "Netkeel is not installed", "helm install netkeel"),
            (
                Status { installation: Installation::WithoutNetwork, ..Status::default() },
                "no ClusterNetwork named default",
                "kubectl apply",
            ),
            (
                Status { installation: Installation::Unreported, ..Status::default() },
                "the operator has not reported",
                "logs deploy/netkeel-operator",
            ),
            (
                reported(vec![Node { name: "new".into(), ..Node::default() }]),
                "node new: no NodeNetwork yet",
                "logs deploy/netkeel-operator",
            ),
            (
                reported(vec![Node { blocks: Vec::new(), ..node("a") }]),
                "node a: no block of addresses",
                "describe clusternetwork default",
            ),
            (
                reported(vec![Node { applied_revision: None, ..node("a") }]),
                "node a: the agent has not reported",
                "spec.nodeName=a",
            ),
            (
                reported(vec![Node { applied_revision: Some("6".into()), ..node("a") }]),
                "node a: the agent has not applied the latest configuration",
                "spec.nodeName=a",
            ),
            (
                reported(vec![Node {
                    conditions: vec![condition("Ready", "False", "bpffs is missing")],
                    ..node("a")
                }]),
                "node a: Ready is False: bpffs is missing",
                "describe nodenetwork a",
            ),
            (
                Status {
                    conditions: vec![condition("Degraded", "True", "pool full")],
                    ..reported(vec![node("a")])
                },
                "network: Degraded is True: pool full",
                "describe clusternetwork default",
            ),
        ];
        for (status, what, next) in cases {
            let text = render(&status, Output::Text);
            assert!(text.contains(what), "{what} is not in\n{text}");
            assert!(
                text.lines().any(|line| line.starts_with("  next: ") && line.contains(next)),
                "{next}\n{text}"
            );
            let json: serde_json::Value = serde_json::from_str(&render(&status, Output::Json)).unwrap();
            assert_eq!(json["healthy"], false);
            assert!(json["problems"][0]["what"].as_str().unwrap().contains(what));
        }
    }

    #[test]
    fn a_network_that_is_changing_is_no_problem() {
        let changing = condition("Progressing", "True", "node-2 applies revision 8");
        let status = Status {
            conditions: vec![changing, condition("Degraded", "False", "")],
            ..reported(vec![node("a")])
        };
        assert_eq!(status.problems(), []);
    }
}
