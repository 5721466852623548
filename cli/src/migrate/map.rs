//! From server blocks to `spec.dns`: what each plugin of a block means there, or that it means nothing.

mod acl;
mod cache;
mod cluster;
mod forward;
mod hosts;
mod others;
mod rewrite;
mod servers;
mod template;

use netkeel_crds::cluster_network::{
    Dns,
    dns::{AclAction, AclRule},
};

use super::{
    finding::{Findings, Place},
    parser::{Block, Directive},
    value::{is_domain, is_reverse, within, zones},
};
use servers::{Kind, Server};

/// How much the API takes of each list.
pub(super) mod most {
    pub(in super::super) const UPSTREAMS: usize = 15;
    pub(in super::super) const STUB_DOMAINS: usize = 64;
    pub(super) const HOSTS: usize = 256;
    pub(super) const NAMES_OF_HOST: usize = 16;
    pub(super) const RULES: usize = 64;
    pub(super) const TYPES: usize = 16;
    pub(super) const RECORDS: usize = 16;
    pub(super) const ZONES_OF_RULE: usize = 16;
    pub(super) const NETWORKS: usize = 64;
    pub(super) const EXTERNAL_ZONES: usize = 8;
}

/// What the user says beside the Corefile.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    /// Secret with the certificate of DNS over TLS.
    pub(super) tls_secret: Option<String>,
}

/// What has become of a Corefile so far.
#[derive(Debug, Default)]
pub(super) struct Mapped {
    pub(super) dns: Dns,
    pub(super) findings: Findings,
    /// The domain of the cluster is known.
    served: bool,
    /// Zones that a `forward` leaves out, until all stub domains are known.
    excepted: Vec<(Place, String)>,
    /// Rules that stand behind those of `acl`: what other plugins do for all names.
    behind: Vec<(Place, AclRule)>,
    /// Where `rewrite` goes on after a rule that matched: harmless where no rule follows.
    goes_on: Option<Place>,
}

impl Mapped {
    fn unmapped(&mut self, at: &Directive, why: impl std::fmt::Display) {
        self.findings.unmapped(&at.place, &at.name, why);
    }

    /// The zones of words, or of the block where there are none.
    fn zones(words: &[String], server: &Server<'_>) -> Vec<String> {
        match words {
            [] => server.zones.clone(),
            words => words.iter().flat_map(|word| zones(word)).collect(),
        }
    }

    /// The zones that the API takes; others are told.
    fn domains(&mut self, at: &Directive, zones: Vec<String>) -> Vec<String> {
        let (good, bad): (Vec<_>, Vec<_>) = zones.into_iter().partition(|zone| is_domain(zone));
        for zone in bad {
            let zone = if zone.is_empty() { "." } else { &zone };
            self.findings.unmapped(&at.place, &at.name, format!("{zone} is no zone that spec.dns takes"));
        }
        good
    }

    /// The zone lies in the cluster's domain.
    fn of_cluster(&self, zone: &str) -> bool {
        within(zone, &self.dns.cluster_domain)
    }
}

/// What the blocks of a Corefile mean.
pub(super) fn map(blocks: &[Block], wishes: &Wishes) -> Mapped {
    let mut out = Mapped::default();
    let servers = servers::servers(blocks, &mut out);
    for server in &servers {
        for directive in server.directives("kubernetes") {
            cluster::kubernetes(directive, server, &mut out);
        }
    }
    for server in &servers {
        server.directives.iter().for_each(|directive| plugin(directive, server, wishes, &mut out));
        servers::answers(server, &mut out);
    }
    finish(&servers, &mut out);
    out
}

/// One plugin of a block.
fn plugin(at: &Directive, server: &Server<'_>, wishes: &Wishes, out: &mut Mapped) {
    if let Some(name) = &at.unknown {
        let why = format!(
            "the value of {{${name}}} in the environment of CoreDNS is not known: give --env {name}=VALUE"
        );
        return out.unmapped(at, why);
    }
    match at.name.as_str() {
        "kubernetes" => {}
        "forward" | "proxy" => forward::forward(at, server, out),
        "cache" => cache::cache(at, server, out),
        "hosts" => hosts::hosts(at, server, out),
        "rewrite" => rewrite::rewrite(at, server, out),
        "template" => template::template(at, server, out),
        "acl" => acl::acl(at, server, out),
        "k8s_external" => cluster::external(at, server, out),
        "autopath" => cluster::autopath(at, out),
        "tls" => others::tls(at, server, wishes, out),
        "log" => others::log(at, server, out),
        _ => others::plugin(at, server, out),
    }
}

/// What can be said only when all blocks are known.
fn finish(servers: &[Server<'_>], out: &mut Mapped) {
    for (place, zone) in std::mem::take(&mut out.excepted) {
        let stub = out.dns.stub_domains.iter().any(|stub| stub.zone == zone);
        if !stub && !out.of_cluster(&zone) {
            let why = format!(
                "{zone} has no resolvers of its own: refuse it with spec.dns.acl, or give it some in spec.dns.stubDomains"
            );
            out.findings.unmapped(&place, "forward except", why);
        }
    }
    let allows = out.dns.acl.iter().any(|rule| rule.action == AclAction::Allow);
    for (place, rule) in std::mem::take(&mut out.behind) {
        if allows || out.dns.acl.len() >= most::RULES {
            let why = "for all names it would be a rule of spec.dns.acl behind those that allow, which end the list: put it in the right place by hand";
            out.findings.unmapped(&place, "template", why);
        } else {
            out.dns.acl.push(rule);
        }
    }
    if let Some(root) = servers.iter().find(|server| server.kind == Kind::Root) {
        if !root.forwards_all() {
            let why = "no forward . in it: CoreDNS refuses names outside its zones, Netkeel asks the resolvers of the node: refuse them with spec.dns.acl, or set spec.dns.upstreams";
            out.findings.unmapped(&root.place, "block .", why);
        } else if root.directives("cache").next().is_none() {
            let why = "no cache in it; Netkeel keeps answers of resolvers: set spec.dns.cache.maxEntries to 0 to keep none";
            out.findings.note(&root.place, "block .", why);
        }
    }
    if !out.served {
        out.findings.note(
            &Place::first(),
            "kubernetes",
            "there is no such plugin: is this the Corefile of a cluster?",
        );
    }
}
