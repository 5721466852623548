//! An answer as text for people or JSON for programs.

use std::fmt::Write;

use netkeel_core::{
    address::Family,
    policy::{Explanation, Party, RuleName, Side},
};
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
    let Answer { target, explanation, families, notes, next } = answer;
    let mut text = String::new();
    if families.is_empty() {
        verdict(&mut text, None, explanation, &target.traffic());
    }
    for (family, explanation) in families {
        verdict(&mut text, Some(*family), explanation, &target.traffic());
    }
    // writing to a String does not fail
    for line in next {
        let _ = writeln!(text, "next: {line}");
    }
    for line in notes {
        let _ = writeln!(text, "note: {line}");
    }
    text
}

fn verdict(text: &mut String, family: Option<Family>, explanation: &Explanation, traffic: &str) {
    let Explanation { from, to, allowed, egress, ingress } = explanation;
    let verdict = if *allowed { "allowed" } else { "denied" };
    let over = family.map(|family| format!(" over {family}")).unwrap_or_default();
    // writing to a String does not fail
    let _ = writeln!(text, "{verdict}{over}: {from} to {to}, {traffic}");
    let _ = writeln!(text, "  egress of {from}: {egress}");
    let _ = writeln!(text, "  ingress of {to}: {ingress}");
}

fn json(answer: &Answer) -> Value {
    let Answer { target, explanation, families, notes, next } = answer;
    let of_family = |(family, explanation): &(Family, Explanation)| {
        json!({"family": family.to_string(), "allowed": explanation.allowed,
            "egress": side(&explanation.egress), "ingress": side(&explanation.ingress)})
    };
    json!({
        "allowed": explanation.allowed,
        "from": party(&explanation.from),
        "to": party(&explanation.to),
        "protocol": target.port.map(|(protocol, _)| name(protocol)),
        "port": target.port.map(|(_, port)| port),
        "egress": side(&explanation.egress),
        "ingress": side(&explanation.ingress),
        "families": families.iter().map(of_family).collect::<Vec<_>>(),
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
