//! `spec.dns` as a patch: only what is not so by default.

use netkeel_crds::cluster_network::Dns;
use serde_yaml_ng::{Mapping, Value};

/// The patch for `kubectl patch clusternetwork default --type=merge --patch-file`.
pub(super) fn patch(dns: &Dns) -> Result<String, serde_yaml_ng::Error> {
    let Value::Mapping(fields) = serde_yaml_ng::to_value(dns)? else { return Ok(String::new()) };
    let mut slim = Mapping::new();
    for (key, value) in fields {
        let alone = Mapping::from_iter([(key.clone(), value)]);
        let whole: Dns = serde_yaml_ng::from_value(Value::Mapping(alone.clone()))?;
        if whole != Dns::default() {
            slim.extend(slimmed(alone, &whole));
        }
    }
    let spec = Value::Mapping(Mapping::from_iter([("dns".into(), Value::Mapping(slim))]));
    let text = serde_yaml_ng::to_string(&Mapping::from_iter([("spec".into(), spec)]))?;
    Ok(text.lines().map(quoted).fold(String::new(), |text, line| text + &line + "\n"))
}

/// A line with its text in quotes where kubectl would take it for something else: it reads YAML 1.1, in which `no` is false
/// and `1_000` a number. What YAML 1.2 takes for something else is in quotes already.
fn quoted(line: &str) -> String {
    let item = line.trim_start_matches([' ', '-']);
    let value = item.split_once(": ").map_or(item, |(_, value)| value);
    let number =
        value.bytes().all(|letter| letter.is_ascii_digit()) && (value == "0" || !value.starts_with('0'));
    let numeric =
        value.starts_with(|letter: char| letter.is_ascii_digit() || matches!(letter, '.' | '+' | '-'));
    let address = value.contains(':') || value.matches('.').count() > 1;
    let word = matches!(value, "y" | "yes" | "n" | "no" | "on" | "off");
    if word || (numeric && !number && !address) {
        format!("{}'{value}'", &line[..line.len() - value.len()])
    } else {
        line.to_owned()
    }
}

/// The same without what the defaults say anyway.
fn slimmed(fields: Mapping, whole: &Dns) -> Mapping {
    let mut value = Value::Mapping(fields);
    let mut paths = Vec::new();
    collect(&value, &mut Vec::new(), &mut paths);
    for path in paths {
        let mut less = value.clone();
        let removed = remove(&mut less, &path);
        if removed && serde_yaml_ng::from_value::<Dns>(less.clone()).is_ok_and(|dns| dns == *whole) {
            value = less;
        }
    }
    match value {
        Value::Mapping(fields) => fields,
        _ => Mapping::new(),
    }
}

/// A step from a value to one within it.
#[derive(Clone, Debug)]
enum Step {
    Field(Value),
    Item(usize),
}

/// The ways to all fields, outer ones first.
fn collect(value: &Value, way: &mut Vec<Step>, paths: &mut Vec<Vec<Step>>) {
    let steps: Vec<(Step, &Value)> = match value {
        Value::Mapping(fields) => {
            fields.iter().map(|(key, value)| (Step::Field(key.clone()), value)).collect()
        }
        Value::Sequence(items) => {
            items.iter().enumerate().map(|(number, item)| (Step::Item(number), item)).collect()
        }
        _ => return,
    };
    for (step, inner) in steps {
        let field = matches!(step, Step::Field(_));
        way.push(step);
        if field {
            paths.push(way.clone());
        }
        collect(inner, way, paths);
        way.pop();
    }
}

/// Removes a field; false where it is gone already.
fn remove(value: &mut Value, way: &[Step]) -> bool {
    match (value, way) {
        (Value::Mapping(fields), [Step::Field(key)]) => fields.remove(key).is_some(),
        (Value::Mapping(fields), [Step::Field(key), rest @ ..]) => {
            fields.get_mut(key).is_some_and(|inner| remove(inner, rest))
        }
        (Value::Sequence(items), [Step::Item(number), rest @ ..]) => {
            items.get_mut(*number).is_some_and(|inner| remove(inner, rest))
        }
        _ => false,
    }
}
