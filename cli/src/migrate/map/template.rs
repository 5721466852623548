//! `template`: what gives the same answer for all names of a zone is an override.

use std::net::IpAddr;

use netkeel_crds::cluster_network::dns::{
    AclAction, AclRule, AnswerRecord, Override, QueryType, RecordKind, ResponseCode,
};

use super::{
    Directive, Mapped, Server, forward::code_of, is_domain, most, others::query_type, servers::covers,
};
use crate::migrate::value::zone;

/// What a template answers with.
#[derive(Debug)]
struct Answer {
    code: ResponseCode,
    records: Vec<AnswerRecord>,
    ttl: u32,
    /// Zones that `match` names; none where it leaves all names in.
    matched: Option<Vec<String>>,
    through: bool,
}

/// `template CLASS TYPE [ZONES...] { match, answer, rcode, ... }`.
pub(super) fn template(at: &Directive, server: &Server<'_>, out: &mut Mapped) {
    let [class, kind, zones @ ..] = at.args.as_slice() else {
        return out.unmapped(at, "a class and a type are missing");
    };
    if !matches!(class.as_str(), "IN" | "ANY") {
        return out.unmapped(at, format!("questions of class {class} are not answered"));
    }
    let types = match (kind.as_str(), query_type(kind)) {
        ("ANY", _) => vec![],
        (_, Some(kind)) => vec![kind],
        (other, None) => {
            return out.unmapped(at, format!("spec.dns.overrides does not take the type {other}"));
        }
    };
    let answer = match answer(at, out) {
        Ok(answer) => answer,
        Err(why) => return out.unmapped(at, why),
    };
    let zones = narrowed(at, Mapped::zones(zones, server), &answer, out);
    for zone in zones {
        if zone.is_empty() {
            everything(at, &types, &answer, out);
        } else if !is_domain(&zone) {
            out.unmapped(at, format!("{zone} is no zone that spec.dns takes"));
        } else if out.dns.overrides.len() >= most::RULES {
            out.unmapped(at, format!("there are {} overrides at most", most::RULES));
        } else {
            let Answer { code, ref records, ttl, .. } = answer;
            let (types, records) = (types.clone(), records.clone());
            out.dns.overrides.push(Override { zone, types, response_code: code, records, ttl_seconds: ttl });
        }
    }
}

/// The zones less what `match` leaves out.
fn narrowed(at: &Directive, zones: Vec<String>, answer: &Answer, out: &mut Mapped) -> Vec<String> {
    let Some(matched) = &answer.matched else { return zones };
    if !answer.through {
        let why = "without fallthrough CoreDNS fails for names that match does not; Netkeel asks for them as for others";
        out.findings.note(&at.place, "template", why);
    }
    let (inside, outside): (Vec<_>, Vec<_>) = matched.iter().cloned().partition(|zone| covers(&zones, zone));
    for zone in outside {
        out.unmapped(at, format!("match is for names of {zone}, which lies outside its zones"));
    }
    inside
}

/// For all names there are overrides of no zone, but rules that answer without records.
fn everything(at: &Directive, types: &[QueryType], answer: &Answer, out: &mut Mapped) {
    let action = match (answer.code, answer.records.is_empty()) {
        (ResponseCode::NoError, true) => AclAction::Filter,
        (ResponseCode::Refused, true) => AclAction::Block,
        _ => {
            let why = "all names can be answered without records or refused, with spec.dns.acl: write it for single zones in spec.dns.overrides";
            return out.unmapped(at, why);
        }
    };
    let rule = AclRule { action, networks: vec![], zones: vec![], types: types.to_vec() };
    out.behind.push((at.place.clone(), rule));
}

fn answer(at: &Directive, out: &mut Mapped) -> Result<Answer, String> {
    let mut answer =
        Answer { code: ResponseCode::NoError, records: vec![], ttl: 60, matched: None, through: false };
    let mut ttl = None;
    for line in &at.lines {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["match", expressions @ ..] => matches(expressions, &mut answer)?,
            ["rcode", code] => {
                answer.code = code_of(code)
                    .ok_or_else(|| format!("spec.dns.overrides does not take the code {code}"))?;
            }
            ["answer", records @ ..] => {
                for text in records {
                    let (record, own) = record(text)?;
                    if ttl.is_some_and(|ttl| ttl != own) {
                        return Err("records of different times to live: an override has one".to_owned());
                    }
                    ttl = Some(own);
                    answer.records.push(record);
                }
            }
            ["fallthrough", ..] => answer.through = true,
            ["upstream", ..] => {}
            ["authority", ..] if answer.records.is_empty() => {} // empty answers have a SOA record of their own
            ["ederror", ..] => {
                out.findings.note(&line.place, "template ederror", "answers carry no extended error");
            }
            _ => {
                return Err(format!(
                    "{} is not taken: spec.dns.overrides gives one answer to all names of a zone",
                    words.join(" ")
                ));
            }
        }
    }
    if !answer.records.is_empty() && answer.code != ResponseCode::NoError {
        return Err("an answer with records has the code NOERROR".to_owned());
    }
    if answer.records.len() > most::RECORDS {
        return Err(format!("an override has {} records at most", most::RECORDS));
    }
    answer.ttl = ttl.unwrap_or(answer.ttl);
    Ok(answer)
}

/// `match`: all names, or all names below a zone; anything else is no override.
fn matches(expressions: &[&str], answer: &mut Answer) -> Result<(), String> {
    const ALL: [&str; 6] = [".*", "^.*$", "(.*)", "^(.*)$", ".+", "."];
    if expressions.iter().any(|regex| ALL.contains(regex)) {
        return Ok(());
    }
    for regex in expressions {
        let zone = below(regex).ok_or_else(|| {
            format!("match {regex} is for other names than those of a zone: spec.dns.overrides is for zones; for single names use spec.dns.hosts or spec.dns.rewrites")
        })?;
        answer.matched.get_or_insert_default().push(zone);
    }
    Ok(())
}

/// The zone whose names an expression is for: `.*\.corp\.example\.$` and what means the same.
fn below(regex: &str) -> Option<String> {
    const ANY: [&str; 8] =
        [r"(.*)\.", r".*\.", r"(.*)[.]", ".*[.]", r"(.*\.)?", r"(.+)\.", r".+\.", r"([^.]+\.)*"];
    let anchored = regex.strip_prefix('^');
    let open = anchored.unwrap_or(regex);
    let rest = ANY.iter().find_map(|any| open.strip_prefix(any))?;
    // without an end it would be for names with that in their middle too
    let rest = rest.strip_suffix('$')?;
    let rest = [r"\.", "[.]"].iter().find_map(|dot| rest.strip_suffix(dot))?;
    let plain = rest.replace(r"\.", "\0").replace("[.]", "\0");
    let text = zone(&plain.replace('\0', "."));
    (!plain.contains('.') && is_domain(&text)).then_some(text)
}

/// A record such as `{{ .Name }} 60 IN A 192.0.2.1`, and its time to live.
fn record(text: &str) -> Result<(AnswerRecord, u32), String> {
    let unsure = || {
        format!(
            "answer {text:?} is not the same record for every name: spec.dns.overrides gives only such, with {{{{ .Name }}}} as their owner"
        )
    };
    let rest = text.trim().strip_prefix("{{").and_then(|rest| rest.split_once("}}"));
    let (_, rest) = rest.filter(|(owner, _)| owner.trim() == ".Name").ok_or_else(unsure)?;
    let mut words: Vec<&str> = rest.split_whitespace().collect();
    let mut ttl = 3600;
    for _ in 0..2 {
        match words.first() {
            Some(&"IN") => {
                words.remove(0);
            }
            Some(word) if word.parse::<u32>().is_ok_and(|ttl| ttl <= 86_400) => {
                ttl = words.remove(0).parse().unwrap_or(ttl);
            }
            _ => {}
        }
    }
    let (kind, value) = match words.as_slice() {
        ["A", ip] => {
            (RecordKind::A, ip.parse::<IpAddr>().ok().filter(IpAddr::is_ipv4).map(|ip| ip.to_string()))
        }
        ["AAAA", ip] => {
            (RecordKind::AAAA, ip.parse::<IpAddr>().ok().filter(IpAddr::is_ipv6).map(|ip| ip.to_string()))
        }
        ["CNAME", name] => (RecordKind::CNAME, Some(zone(name)).filter(|name| is_domain(name))),
        ["TXT", text] => {
            let text = text.trim_matches('"');
            let plain = (1..=255).contains(&text.len()) && !text.contains(['{', '"', '\\']);
            (RecordKind::TXT, plain.then(|| text.to_owned()))
        }
        _ => return Err(unsure()),
    };
    Ok((AnswerRecord { kind, value: value.ok_or_else(unsure)? }, ttl))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_for_a_zone_is_known_as_one() {
        let cases = [
            (r".*\.corp\.example\.$", Some("corp.example")),
            (r"^(.*)\.corp[.]example[.]$", Some("corp.example")),
            (r"(.*\.)?corp\.$", Some("corp")),
            (r".*\.corp\.example\.", None),
            (r".*\.corp.example\.$", None),
            (r"^api\.corp\.example\.$", None),
            (r".*\.(corp|test)\.$", None),
            ("", None),
        ];
        for (regex, expected) in cases {
            assert_eq!(below(regex).as_deref(), expected, "{regex}");
        }
    }

    #[test]
    fn records_of_every_name_are_read() {
        let cases = [
            ("{{ .Name }} 60 IN A 192.0.2.1", Some((RecordKind::A, "192.0.2.1", 60))),
            ("{{.Name}} IN 30 AAAA 2001:DB8::1", Some((RecordKind::AAAA, "2001:db8::1", 30))),
            ("{{ .Name }} CNAME Www.Example.", Some((RecordKind::CNAME, "www.example", 3600))),
            ("{{ .Name }} 60 IN TXT \"hello\"", Some((RecordKind::TXT, "hello", 60))),
            ("{{ .Name }} 60 IN A {{ .Group.a }}", None),
            ("{{ .Name }} 60 IN A fd00::1", None),
            ("other. 60 IN A 192.0.2.1", None),
            ("{{ .Name }} 60 IN MX 10 mail.example.", None),
            ("{{ .Name", None),
        ];
        for (text, expected) in cases {
            let found = record(text).ok();
            let found = found.as_ref().map(|(record, ttl)| (record.kind, record.value.as_str(), *ttl));
            assert_eq!(found, expected, "{text}");
        }
    }
}
