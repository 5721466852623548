//! `hosts`.

use std::net::IpAddr;

use netkeel_crds::cluster_network::dns::Host;

use super::{Directive, Kind, Mapped, Server, is_domain, most, servers::covers};
use crate::migrate::{parser::Line, value::zone};

/// `hosts [FILE [ZONES...]] { ADDRESS NAMES..., OPTIONS }`.
pub(super) fn hosts(at: &Directive, server: &Server<'_>, out: &mut Mapped) {
    if let Some(file) = at.args.first().filter(|file| *file != "/etc/hosts") {
        out.unmapped(
            at,
            format!("{file} is a file, which Netkeel does not follow: write its entries into spec.dns.hosts"),
        );
    }
    let zones = Mapped::zones(at.args.get(1..).unwrap_or_default(), server);
    let mut ttl = 3600;
    let mut through = false;
    let mut entries = Vec::new();
    for line in &at.lines {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["ttl", seconds] if seconds.parse().is_ok_and(|ttl| (1..=65_535).contains(&ttl)) => {
                ttl = seconds.parse().unwrap_or(ttl);
            }
            ["fallthrough"] => through = true,
            ["fallthrough", outer @ ..] => {
                let outer: Vec<String> = outer.iter().map(|word| zone(word)).collect();
                through = zones.iter().all(|zone| covers(&outer, zone));
            }
            ["reload", _] | ["fallthrough_unsupported"] => {}
            ["no_reverse"] => option(line, "addresses always point back to their first name", out),
            _ => entries.push(line),
        }
    }
    if !through && server.kind != Kind::Cluster {
        out.unmapped(at, "without fallthrough CoreDNS denies all other names of the zone; Netkeel asks its resolvers for them: deny them with spec.dns.overrides (responseCode NXDomain)");
    }
    for line in entries {
        entry(line, ttl, &zones, out);
    }
}

fn option(line: &Line, why: &str, out: &mut Mapped) {
    out.findings.unmapped(&line.place, format!("hosts {}", line.words.join(" ")), why);
}

/// `ADDRESS NAMES...`
fn entry(line: &Line, ttl: u32, zones: &[String], out: &mut Mapped) {
    let Some((ip, names)) =
        line.words.split_first().and_then(|(ip, names)| Some((ip.parse::<IpAddr>().ok()?, names)))
    else {
        return option(line, "neither an entry nor an option", out);
    };
    let mut good: Vec<String> = Vec::new();
    for name in names.iter().map(|name| zone(name)) {
        if !is_domain(&name) {
            option(
                line,
                &format!(
                    "{name} is no name that spec.dns.hosts takes: answer for a whole zone with spec.dns.overrides"
                ),
                out,
            );
        } else if !covers(zones, &name) {
            out.findings.note(
                &line.place,
                "hosts",
                format!("{name} lies outside the zones of this block, so CoreDNS ignores it too"),
            );
        } else if !good.contains(&name) {
            good.push(name);
        }
    }
    if good.len() > 1 {
        let why = format!("{ip} points back to {} alone, where CoreDNS names all of them", good[0]);
        out.findings.note(&line.place, "hosts", why);
    }
    for names in good.chunks(most::NAMES_OF_HOST) {
        if out.dns.hosts.len() >= most::HOSTS {
            return option(line, &format!("there are {} entries at most", most::HOSTS), out);
        }
        out.dns.hosts.push(Host { ip, names: names.to_vec(), ttl_seconds: ttl });
    }
}
