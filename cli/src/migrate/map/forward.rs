//! `forward`, and `proxy` as it was called before CoreDNS 1.5.

use std::net::{IpAddr, SocketAddr};

use netkeel_crds::cluster_network::{
    Upstream,
    dns::{Forwarding, Policy, Protocol, ResponseCode, StubDomain},
};

use super::{Directive, Mapped, Server, cluster, is_domain, most};
use crate::migrate::{
    parser::Line,
    value::{milliseconds, whole, zone, zones},
};

/// Resolvers of a `forward`.
#[derive(Debug, Default)]
struct Group {
    upstreams: Vec<Upstream>,
    forwarding: Forwarding,
    /// The resolvers of the node are among them.
    of_node: bool,
}

/// `forward FROM TO... { OPTIONS }`.
pub(super) fn forward(at: &Directive, server: &Server<'_>, out: &mut Mapped) {
    let Some((from, to)) = at.args.split_first().filter(|(_, to)| !to.is_empty()) else {
        return out.unmapped(at, "a zone and a resolver are missing");
    };
    let from = zones(from);
    let all = from.iter().any(String::is_empty);
    let targets = if all { server.zones.clone() } else { from };
    if all && targets.iter().all(|zone| cluster::own(server, zone, out)) {
        return; // the cluster's names are answered here, whoever CoreDNS would ask
    }
    let Some(group) = group(at, to, out) else { return };
    for zone in targets {
        match zone.as_str() {
            "" => root(at, &group, out),
            _ if cluster::own(server, &zone, out) => {}
            _ if zone == out.dns.cluster_domain => {
                out.unmapped(
                    at,
                    format!("{zone} is the cluster's domain, whose names Netkeel answers itself"),
                );
            }
            _ => stub(at, zone, &group, out),
        }
    }
}

fn root(at: &Directive, group: &Group, out: &mut Mapped) {
    if !out.dns.upstreams.is_empty() || out.dns.forwarding != Forwarding::default() {
        return out.unmapped(at, "a second one for all names: list all resolvers in spec.dns.upstreams");
    }
    out.dns.upstreams.clone_from(&group.upstreams);
    out.dns.forwarding = group.forwarding.clone();
}

fn stub(at: &Directive, zone: String, group: &Group, out: &mut Mapped) {
    if group.of_node {
        if !out.dns.upstreams.is_empty() {
            out.unmapped(at, format!("{zone} is asked for at the resolvers of the node: list their addresses in spec.dns.stubDomains"));
        }
        return; // as all other names are
    }
    let [zone] = out.domains(at, vec![zone]).try_into().unwrap_or_default();
    if zone.is_empty() {
        return;
    }
    if out.dns.stub_domains.iter().any(|stub| stub.zone == zone) {
        return out.unmapped(
            at,
            format!("{zone} has resolvers already: list all of them in one entry of spec.dns.stubDomains"),
        );
    }
    if out.dns.stub_domains.len() >= most::STUB_DOMAINS {
        return out.unmapped(at, format!("{zone}: there are {} stub domains at most", most::STUB_DOMAINS));
    }
    let Group { upstreams, forwarding, .. } = group;
    out.dns.stub_domains.push(StubDomain {
        zone,
        upstreams: upstreams.clone(),
        forwarding: forwarding.clone(),
    });
}

/// The resolvers and how they are asked; none where they cannot be.
fn group(at: &Directive, to: &[String], out: &mut Mapped) -> Option<Group> {
    let mut group = Group::default();
    let mut names: Vec<String> = Vec::new();
    let mut protocols: Vec<&str> = Vec::new();
    for word in to {
        if word == "/etc/resolv.conf" || word.contains("__PILLAR__UPSTREAM__") {
            group.of_node = true;
            continue;
        }
        match target(word) {
            Ok(target) => {
                protocols.push(target.protocol);
                names.extend(target.name);
                if group.upstreams.contains(&target.upstream) {
                } else if group.upstreams.len() < most::UPSTREAMS {
                    group.upstreams.push(target.upstream);
                } else {
                    out.unmapped(at, format!("{word}: there are {} resolvers at most", most::UPSTREAMS));
                }
            }
            Err(why) => out.unmapped(at, format!("{word} {why}")),
        }
    }
    if group.of_node && !group.upstreams.is_empty() {
        out.unmapped(
            at,
            "the node's resolvers beside others: list the addresses of all of them in spec.dns.upstreams",
        );
        return None;
    }
    if group.upstreams.is_empty() && !group.of_node {
        return None; // it was told why
    }
    protocols.dedup();
    names.dedup();
    let (protocol, name) = match (protocols.as_slice(), names.len()) {
        ([] | ["dns"], 0) => (Protocol::UDP, None),
        (["tls"], 0 | 1) => (Protocol::TLS, names.pop()),
        (["https"], 0 | 1) => (Protocol::HTTPS, names.pop()),
        _ => {
            out.unmapped(
                at,
                "resolvers of different protocols or names: a group is asked in one way; choose one",
            );
            return None;
        }
    };
    group.forwarding.protocol = protocol;
    group.forwarding.tls_server_name = name;
    for line in &at.lines {
        option(at, line, &mut group.forwarding, out);
    }
    checked(at, group, out)
}

/// The group, with a name in its certificates exactly where there are certificates.
fn checked(at: &Directive, mut group: Group, out: &mut Mapped) -> Option<Group> {
    let encrypted = matches!(group.forwarding.protocol, Protocol::TLS | Protocol::HTTPS);
    match &group.forwarding.tls_server_name {
        Some(name) if encrypted && !is_domain(name) => {
            out.unmapped(at, format!("{name} is no name that spec.dns takes for tlsServerName"));
            None
        }
        None if encrypted => {
            out.unmapped(at, "the name in the resolvers' certificate is missing: add tls_servername NAME");
            None
        }
        _ => {
            group.forwarding.tls_server_name = group.forwarding.tls_server_name.filter(|_| encrypted);
            Some(group)
        }
    }
}

/// A resolver as it is written.
struct Target {
    protocol: &'static str,
    upstream: Upstream,
    /// The name behind `%`, of TLS alone.
    name: Option<String>,
}

fn target(word: &str) -> Result<Target, String> {
    let (protocol, rest) = match word.split_once("://") {
        None => ("dns", word),
        Some(("dns", rest)) => ("dns", rest),
        Some(("tls", rest)) => ("tls", rest),
        Some(("https", rest)) => ("https", rest),
        Some((other, _)) => return Err(format!("is asked over {other}, which Netkeel does not speak")),
    };
    if rest.starts_with('/') {
        return Err("is a file: list the addresses in it".to_owned());
    }
    if rest.contains("__PILLAR__") {
        return Err("is a placeholder: put the address in its place".to_owned());
    }
    // `1.1.1.1%name`, `1.1.1.1%name:853`, `[fd00::1%name]:853`
    let (address, name) = match rest.split_once('%') {
        None => (rest.to_owned(), None),
        Some((address, behind)) => {
            let (name, port) = behind.split_once(':').unwrap_or((behind, ""));
            let close = if address.starts_with('[') { "]" } else { "" };
            let port = if port.is_empty() { String::new() } else { format!(":{port}") };
            (format!("{address}{close}{port}"), Some(zone(name.trim_end_matches(']'))))
        }
    };
    if name.is_some() && protocol != "tls" {
        return Err("names an interface or certificate, which is for TLS alone".to_owned());
    }
    let own = match protocol {
        "tls" => 853,
        "https" => 443,
        _ => 53,
    };
    let bare = address.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let socket = match bare {
        Ok(ip) => SocketAddr::new(ip, own),
        Err(_) => address
            .parse()
            .map_err(|_| "is no address: Netkeel asks resolvers by their address".to_owned())?,
    };
    if socket.port() == 0 {
        return Err("has no port".to_owned());
    }
    // the usual port is not written
    let port = Some(socket.port()).filter(|port| *port != own);
    Ok(Target { protocol, upstream: Upstream { ip: socket.ip(), port }, name })
}

/// One option. Those that only tune what Netkeel does in its own way are told as notes.
fn option(at: &Directive, line: &Line, forwarding: &mut Forwarding, out: &mut Mapped) {
    let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
    let why = match words.as_slice() {
        ["policy", "random"] => return forwarding.policy = Policy::Random,
        ["policy", "round_robin"] => return forwarding.policy = Policy::RoundRobin,
        ["policy", "sequential" | "first"] => return forwarding.policy = Policy::Sequential,
        ["policy", ..] => "Netkeel knows Random, RoundRobin and Sequential",
        ["max_concurrent", "0"] => return forwarding.max_concurrent = 100_000,
        ["max_concurrent", many] => match many.parse() {
            Ok(many @ 1..=100_000) => return forwarding.max_concurrent = many,
            _ => "spec.dns takes 1 to 100000",
        },
        ["read_timeout", time] => match milliseconds(time).and_then(|time| whole(time, 50, 10_000)) {
            Some(time) => return forwarding.timeout_milliseconds = time,
            None => "spec.dns takes 50 ms to 10 s",
        },
        ["force_tcp"] | ["protocol", "dns", "force_tcp"] => {
            if forwarding.protocol == Protocol::UDP {
                forwarding.protocol = Protocol::TCP;
            }
            return;
        }
        ["prefer_udp" | "tls"] | ["protocol", "dns"] => return,
        ["tls_servername", name] => return forwarding.tls_server_name = Some(zone(name)),
        ["tls", ..] => {
            "certificates of clients, and authorities of one's own, are not taken: use resolvers with a certificate that everybody trusts"
        }
        ["except", excepted @ ..] => {
            let zones = excepted.iter().flat_map(|word| zones(word)).map(|zone| (line.place.clone(), zone));
            return out.excepted.extend(zones);
        }
        ["failover", codes @ ..] => return failover(at, line, codes, forwarding, out),
        [
            "max_fails"
            | "health_check"
            | "expire"
            | "max_age"
            | "max_idle_conns"
            | "max_connect_attempts"
            | "fail_timeout"
            | "spray"
            | "doh_method"
            | "failfast_all_unhealthy_upstreams",
            ..,
        ] => {
            let why = "Netkeel finds out itself which resolvers answer, and keeps connections as long as they serve";
            return out.findings.note(&line.place, format!("{} {}", at.name, words.join(" ")), why);
        }
        ["next" | "next_on_nodata", ..] => "only one group is asked: list all resolvers in it, with failover",
        ["source_address", ..] => "questions leave from the address of the DNS server's pod",
        ["resolver", ..] => "resolvers are named by their address",
        ["protocol", ..] => "Netkeel asks over UDP, TCP, TLS or HTTPS",
        _ => "Netkeel does not know this option",
    };
    out.findings.unmapped(&line.place, format!("{} {}", at.name, words.join(" ")), why);
}

fn failover(at: &Directive, line: &Line, codes: &[&str], forwarding: &mut Forwarding, out: &mut Mapped) {
    let mut known = Vec::new();
    for code in codes {
        match code_of(code) {
            Some(code) if !known.contains(&code) => known.push(code),
            Some(_) => {}
            None => {
                let why = "spec.dns takes FormErr, ServFail, NXDomain, NotImp and Refused";
                out.findings.unmapped(&line.place, format!("{} failover {code}", at.name), why);
            }
        }
    }
    forwarding.failover = known;
}

/// A code of an answer, as the API names it.
pub(super) fn code_of(text: &str) -> Option<ResponseCode> {
    match text.to_ascii_uppercase().as_str() {
        "NOERROR" => Some(ResponseCode::NoError),
        "FORMERR" => Some(ResponseCode::FormErr),
        "SERVFAIL" => Some(ResponseCode::ServFail),
        "NXDOMAIN" => Some(ResponseCode::NXDomain),
        "NOTIMP" => Some(ResponseCode::NotImp),
        "REFUSED" => Some(ResponseCode::Refused),
        _ => None,
    }
}
