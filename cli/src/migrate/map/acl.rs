//! `acl`.

use std::net::IpAddr;

use ipnet::IpNet;
use netkeel_crds::cluster_network::dns::{AclAction, AclRule, QueryType};

use super::{Directive, Mapped, Server, most, others::query_type};

/// `acl [ZONES...] { ACTION [type TYPES...] [net NETWORKS...] }`.
pub(super) fn acl(at: &Directive, server: &Server<'_>, out: &mut Mapped) {
    let mut zones = Mapped::zones(&at.args, server);
    if zones.iter().any(String::is_empty) {
        zones.clear();
    } else {
        zones = out.domains(at, zones);
        if zones.is_empty() {
            return;
        }
    }
    for line in &at.lines {
        match rule(&line.words) {
            Ok(rule) => push(at, &rule, &zones, out),
            Err(why) => out.findings.unmapped(&line.place, format!("acl {}", line.words.join(" ")), why),
        }
    }
}

/// One rule, without its zones.
fn rule(words: &[String]) -> Result<AclRule, String> {
    let (action, words) = words.split_first().ok_or("an action is missing")?;
    let action = match action.to_ascii_lowercase().as_str() {
        "allow" => AclAction::Allow,
        "block" => AclAction::Block,
        "filter" => AclAction::Filter,
        "drop" => AclAction::Drop,
        _ => return Err("the action is allow, block, filter or drop".to_owned()),
    };
    // none: all; a star among them is all too
    let (mut types, mut networks): (Option<Vec<QueryType>>, Option<Vec<IpNet>>) = (None, None);
    let (mut every_type, mut every_network) = (false, false);
    let mut section = String::new();
    for word in words {
        match (section.as_str(), word.to_ascii_lowercase().as_str()) {
            (_, name @ ("type" | "net")) => name.clone_into(&mut section),
            ("type", "*") => every_type = true,
            ("net", "*") => every_network = true,
            ("type", _) => {
                let kind =
                    query_type(word).ok_or_else(|| format!("spec.dns.acl does not take the type {word}"))?;
                let types = types.get_or_insert_default();
                if !types.contains(&kind) {
                    types.push(kind);
                }
            }
            ("net", _) => {
                let network =
                    word.parse::<IpNet>().ok().or_else(|| word.parse::<IpAddr>().ok().map(IpNet::from));
                let network = network.ok_or_else(|| format!("{word} is no network"))?;
                networks.get_or_insert_default().push(network.trunc());
            }
            _ => return Err("behind the action stand type or net".to_owned()),
        }
    }
    let types = types.filter(|_| !every_type).unwrap_or_default();
    let networks = networks.filter(|_| !every_network).unwrap_or_default();
    if types.len() > most::TYPES {
        return Err(format!("a rule has {} types at most", most::TYPES));
    }
    Ok(AclRule { action, networks, zones: vec![], types })
}

/// Adds a rule, in parts where it is too long for one. All its parts do the same, so their order is free.
fn push(at: &Directive, rule: &AclRule, zones: &[String], out: &mut Mapped) {
    let chunks = |length: usize, most: usize| -> Vec<std::ops::Range<usize>> {
        if length == 0 {
            return std::iter::once(0..0).collect();
        }
        (0..length).step_by(most).map(|start| start..length.min(start + most)).collect()
    };
    for zones_part in chunks(zones.len(), most::ZONES_OF_RULE) {
        for networks_part in chunks(rule.networks.len(), most::NETWORKS) {
            if out.dns.acl.len() >= most::RULES {
                return out.unmapped(at, format!("there are {} rules at most", most::RULES));
            }
            out.dns.acl.push(AclRule {
                zones: zones[zones_part.clone()].to_vec(),
                networks: rule.networks[networks_part].to_vec(),
                ..rule.clone()
            });
        }
    }
}
