//! What kube-dns, and its cache on every node, are told in the object `kube-dns`.

use std::collections::BTreeMap;

use netkeel_crds::cluster_network::{
    Upstream,
    dns::{Forwarding, StubDomain},
};

use super::{
    finding::Place,
    lexer::Source,
    map::{Mapped, most},
    value::{is_domain, zone},
};

/// Keys of that object.
pub(super) const KEYS: [&str; 3] = ["stubDomains", "upstreamNameservers", "federations"];

/// A value that kube-dns could not read either.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {key} is not the JSON that kube-dns takes")]
pub(super) struct KubeDnsError {
    place: Place,
    key: &'static str,
    #[source]
    source: serde_json::Error,
}

/// Adds what kube-dns is told to what a Corefile says.
pub(super) fn map(data: &BTreeMap<String, Source>, out: &mut Mapped) -> Result<(), KubeDnsError> {
    if let Some(source) = data.get("upstreamNameservers").filter(|source| !source.text.trim().is_empty()) {
        upstreams(source, &read::<Vec<String>>(source, "upstreamNameservers")?, out);
    }
    if let Some(source) = data.get("stubDomains").filter(|source| !source.text.trim().is_empty()) {
        let stubs: BTreeMap<String, Vec<String>> = read(source, "stubDomains")?;
        for (domain, servers) in stubs {
            stub(source, &domain, &servers, out);
        }
    }
    if let Some(source) = data.get("federations").filter(|source| !source.text.trim().is_empty()) {
        out.findings.unmapped(
            &source.start,
            "federations",
            "federations went with Kubernetes 1.16; remove it",
        );
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(source: &Source, key: &'static str) -> Result<T, KubeDnsError> {
    serde_json::from_str(&source.text).map_err(|error| KubeDnsError {
        place: source.start.below(error.line().saturating_sub(1)),
        key,
        source: error,
    })
}

fn upstreams(source: &Source, servers: &[String], out: &mut Mapped) {
    let servers = addresses(source, "upstreamNameservers", servers, out);
    if servers.is_empty() {
        return;
    }
    if out.dns.upstreams.is_empty() {
        out.dns.upstreams = servers;
    } else if out.dns.upstreams != servers {
        let why = "the Corefile names other resolvers for all names, which count: list those to be asked in spec.dns.upstreams";
        out.findings.unmapped(&source.start, "upstreamNameservers", why);
    }
}

fn stub(source: &Source, domain: &str, servers: &[String], out: &mut Mapped) {
    let place = line_of(source, domain);
    let what = format!("stubDomains {domain}");
    let zone = zone(domain);
    if !is_domain(&zone) {
        return out.findings.unmapped(&place, what, "no zone that spec.dns takes");
    }
    let upstreams = addresses(source, &what, servers, out);
    if upstreams.is_empty() {
        return;
    }
    let there = out.dns.stub_domains.iter().find(|stub| stub.zone == zone);
    match there {
        Some(stub) if stub.upstreams == upstreams => {}
        Some(_) => {
            out.findings.unmapped(&place, what, "the Corefile names other resolvers for it, which count");
        }
        None if out.dns.stub_domains.len() >= most::STUB_DOMAINS => {
            let why = format!("there are {} stub domains at most", most::STUB_DOMAINS);
            out.findings.unmapped(&place, what, why);
        }
        None => out.dns.stub_domains.push(StubDomain { zone, upstreams, forwarding: Forwarding::default() }),
    }
}

/// Resolvers by their address; others are told.
fn addresses(source: &Source, what: &str, servers: &[String], out: &mut Mapped) -> Vec<Upstream> {
    let mut known = Vec::new();
    for server in servers {
        let place = line_of(source, server);
        match server.parse::<Upstream>() {
            Ok(upstream) if upstream.port == Some(0) => {
                out.findings.unmapped(&place, what, format!("{server} has no port"));
            }
            Ok(upstream) if known.contains(&upstream) => {}
            Ok(upstream) if known.len() < most::UPSTREAMS => known.push(upstream),
            Ok(_) => {
                let why = format!("{server}: there are {} resolvers at most", most::UPSTREAMS);
                out.findings.unmapped(&place, what, why);
            }
            Err(_) => {
                let why = format!(
                    "{server} is no address: Netkeel asks resolvers by their address, also those behind a Service"
                );
                out.findings.unmapped(&place, what, why);
            }
        }
    }
    known
}

/// The line on which a text of the JSON stands first.
fn line_of(source: &Source, text: &str) -> Place {
    let line = source.text.lines().position(|line| line.contains(&format!("\"{text}\"")));
    source.start.below(line.unwrap_or(0))
}
