//! An answer as text for people or JSON for programs.

use std::fmt::Write;

use netkeel_core::policy::{Party, RuleName, Side};
use serde_json::{Value, json};

use super::{Answer, answer::isolated_by, question::name};
use crate::args::Output;

/// The whole answer of `netkeel why`.
pub(crate) fn render(answer: &Answer, output: Output) -> String {
    match output {
        Output::Text => text(answer),
        Output::Json => format!("{:#}\n", json(answer)),
    }
}

fn text(answer: &Answer) -> String {
    let Answer { target, explanation, notes, next } = answer;
    let verdict = if explanation.allowed { "allowed" } else { "denied" };
    let mut text = format!("{verdict}: {} to {}, {}\n", explanation.from, explanation.to, target.traffic());
    // writing to a String does not fail
    let _ = writeln!(text, "  egress of {}: {}", explanation.from, explanation.egress);
    let _ = writeln!(text, "  ingress of {}: {}", explanation.to, explanation.ingress);
    for line in next {
        let _ = writeln!(text, "next: {line}");
    }
    for line in notes {
        let _ = writeln!(text, "note: {line}");
    }
    text
}

fn json(answer: &Answer) -> Value {
    let Answer { target, explanation, notes, next } = answer;
    json!({
        "allowed": explanation.allowed,
        "from": party(&explanation.from),
        "to": party(&explanation.to),
        "protocol": target.port.map(|(protocol, _)| name(protocol)),
        "port": target.port.map(|(_, port)| port),
        "egress": side(&explanation.egress),
        "ingress": side(&explanation.ingress),
        "next": next,
        "notes": notes,
    })
}

fn party(party: &Party) -> Value {
    match party {
        Party::Pod(name) => json!({"pod": name.to_string()}),
        Party::Address(address) => json!({"address": address.to_string()}),
    }
}

fn side(side: &Side) -> Value {
    let (result, rule) = match side {
        Side::NotAPod => ("NotAPod", None),
        Side::HostNetwork => ("HostNetwork", None),
        Side::Open => ("Open", None),
        Side::OwnNode => ("OwnNode", None),
        Side::Itself => ("Itself", None),
        Side::Unknown => ("Unknown", None),
        Side::Allowed { rule, .. } => ("Allowed", Some(rule)),
        Side::Denied { .. } => ("Denied", None),
    };
    let policies: Vec<String> = isolated_by(side).iter().map(ToString::to_string).collect();
    json!({"allowed": side.allows(), "result": result, "isolatedBy": policies, "rule": rule.map(rule_name)})
}

fn rule_name(rule: &RuleName) -> Value {
    let field = format!("spec.{}[{}]", rule.direction, rule.index);
    json!({"policy": rule.policy.to_string(), "field": field, "text": rule.to_string()})
}
