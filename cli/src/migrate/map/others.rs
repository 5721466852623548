//! All other plugins of CoreDNS: what Netkeel does anyway, and what it does not do.

use netkeel_crds::cluster_network::dns::{LoggedQueries, QueryType, Tls};

use super::{Directive, Kind, Mapped, Server, Wishes};

/// What a plugin comes to.
enum Means {
    /// Netkeel does it always.
    Same,
    /// Netkeel does it another way.
    Note(&'static str),
    /// Netkeel does not do it.
    Missing(&'static str),
}

/// Each plugin of CoreDNS's `plugin.cfg` that has no function of its own here, and some that are often built in.
fn meaning(name: &str) -> Means {
    use Means::{Missing, Note, Same};
    match name {
        "errors" | "health" | "ready" | "prometheus" | "loop" | "reload" | "minimal" | "cancel"
        | "metadata" | "multisocket" | "timeouts" => Same,
        "loadbalance" | "bufsize" | "bind" => Same, // as far as their words do not say more
        "any" => {
            Note("questions for ANY are answered in their own way: refuse them with spec.dns.acl (types ANY)")
        }
        "debug" | "pprof" => Note("what the servers log of questions is said by spec.dns.queryLog"),
        "root" => Note("no files are read"),
        "trace" => Note("traces are those of spec.observability.traces"),
        _ => Missing(missing(name)),
    }
}

/// Why a plugin has no place.
fn missing(name: &str) -> &'static str {
    match name {
        "dns64" => {
            "AAAA records are not made from A records (RFC 6147): do it in the resolvers of spec.dns.upstreams"
        }
        "dnssec" | "sign" => "zones are not signed: the cluster's names are for its pods alone",
        "transfer" => "zones are not transferred: read Services from the API",
        "file" | "auto" => {
            "zone files are not served: run a server for them and name it in spec.dns.stubDomains, or use spec.dns.hosts"
        }
        "secondary" => "zones are not copied: name their server in spec.dns.stubDomains",
        "etcd" | "route53" | "azure" | "clouddns" | "nomad" => {
            "records are not read from there: run a server that does, and name it in spec.dns.stubDomains"
        }
        "grpc" => "resolvers are not asked over gRPC: use UDP, TCP, TLS or HTTPS in spec.dns.forwarding",
        "grpc_server" | "quic" | "https" | "https3" => {
            "DNS is served over UDP, TCP and TLS (spec.dns.tls) alone"
        }
        "view" => {
            "every client gets the same answers: tell clients apart with spec.dns.acl, or run another server for them"
        }
        "geoip" => "the place of clients is not looked up",
        "dnstap" => {
            "questions go to the log with spec.dns.queryLog, and to traces with spec.observability.traces"
        }
        "chaos" => "questions of class CH are refused",
        "nsid" => "servers do not name themselves in answers (RFC 5001)",
        "local" => "names such as localhost have no answer of their own: give them one in spec.dns.hosts",
        "tsig" => "messages are not signed (RFC 8945)",
        "header" => "flags of answers are not changed",
        "proxyproto" => {
            "clients are known by the address that they have: no proxy stands in front of the servers"
        }
        "shed" => "too many questions are held off by client: set spec.dns.rateLimit",
        "erratic" | "whoami" => "it is for tests; run CoreDNS for it",
        "on" => "no programs are run",
        "federation" => "federations went with Kubernetes 1.16; remove it",
        "k8s_gateway" => {
            "names of Ingresses and Gateways are not served: spec.dns.externalZones has those of Services"
        }
        "fanout" => "resolvers are asked one after the other: use spec.dns.upstreams or spec.dns.stubDomains",
        "alternate" => "another resolver is asked upon some answers with failover of spec.dns.forwarding",
        _ => STRANGER,
    }
}

/// Why a word that is no plugin of CoreDNS has no place.
const STRANGER: &str = "it is not among CoreDNS's own plugins, and Netkeel does not know it: run the server that has it, and name that in spec.dns.stubDomains";

/// A plugin that has no function of its own here.
pub(super) fn plugin(at: &Directive, server: &Server<'_>, out: &mut Mapped) {
    match meaning(&at.name) {
        Means::Missing(why) => out.unmapped(at, why),
        Means::Note(why) => out.findings.note(&at.place, &at.name, why),
        Means::Same => same(at, server, out),
    }
}

/// Words with which a plugin that Netkeel always has says more.
fn same(at: &Directive, server: &Server<'_>, out: &mut Mapped) {
    let words: Vec<&str> =
        at.args.iter().chain(at.lines.iter().flat_map(|line| &line.words)).map(String::as_str).collect();
    match (at.name.as_str(), words.as_slice()) {
        ("loadbalance", [] | ["round_robin"]) => {}
        ("loadbalance", _) => {
            out.unmapped(at, "addresses in answers are in any order, all with the same weight");
        }
        ("bufsize", [] | ["1232"]) => {}
        ("bufsize", _) => out.findings.note(&at.place, "bufsize", "answers over UDP have 1232 bytes at most"),
        ("bind", _) if out.dns.placement == netkeel_crds::cluster_network::dns::Placement::EveryNode => {}
        ("bind", [_, ..]) => out.findings.note(
            &at.place,
            "bind",
            "the servers listen at the address of their pod, behind kube-dns",
        ),
        ("health" | "ready" | "prometheus", [address, ..])
            if address.contains(':') && server.kind == Kind::Root =>
        {
            let usual = [":8080", ":8181", ":9153"].iter().any(|port| address.ends_with(port));
            let why =
                "health, readiness and metrics are at port 9472 of the servers: /healthz, /readyz, /metrics";
            if !usual {
                out.findings.note(&at.place, &at.name, why);
            }
        }
        _ => {}
    }
}

/// `log [NAMES...] [FORMAT] { class CLASSES... }`.
pub(super) fn log(at: &Directive, server: &Server<'_>, out: &mut Mapped) {
    if server.kind != Kind::Root {
        return out
            .unmapped(at, "questions of one zone are not logged alone: set spec.dns.queryLog for all names");
    }
    if at.args.iter().any(|word| word != "." && !word.contains('{')) {
        return out.unmapped(
            at,
            "questions of some names are not logged alone: set spec.dns.queryLog for all names",
        );
    }
    if at.args.iter().any(|word| word.contains('{')) {
        out.findings.note(&at.place, "log", "lines of the log have a format of their own");
    }
    let classes: Vec<&str> = at.lines.iter().flat_map(|line| &line.words).map(String::as_str).collect();
    let has = |class: &str| classes.contains(&class);
    let queries = match classes.as_slice() {
        [] => LoggedQueries::All,
        _ if has("all") || has("success") => LoggedQueries::All,
        _ if has("denial") => LoggedQueries::Denials,
        _ => LoggedQueries::Errors,
    };
    if (has("success") && !(has("denial") && has("error")) && !has("all")) || (has("denial") && !has("error"))
    {
        let told = if queries == LoggedQueries::All { "All" } else { "Denials" };
        out.findings.note(&at.place, "log class", format!("{told} has the questions that fail too"));
    }
    out.dns.query_log.queries = queries;
}

/// `tls CERTIFICATE KEY [AUTHORITIES]`: which Secret they come from, only the user knows.
pub(super) fn tls(at: &Directive, server: &Server<'_>, wishes: &Wishes, out: &mut Mapped) {
    if at.args.len() > 2 || !at.lines.is_empty() {
        out.unmapped(
            at,
            "clients show no certificates, and certificates come from a Secret: see spec.dns.tls",
        );
    }
    match &wishes.tls_secret {
        Some(secret) => out.dns.tls = Some(Tls { secret_name: secret.clone() }),
        None if server.over_tls || at.args.len() >= 2 => {
            let why = "put the certificate into a Secret of type kubernetes.io/tls in kube-system and give --tls-secret NAME";
            out.unmapped(at, why);
        }
        None => {}
    }
}

/// A type of records, as the API names it.
pub(super) fn query_type(text: &str) -> Option<QueryType> {
    serde_json::from_value(text.to_ascii_uppercase().into()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `plugin.cfg` of coredns/coredns 4b26cced (2026-08-20).
    const PLUGINS: &str = "root metadata geoip cancel proxyproto quic grpc_server https https3 timeouts multisocket reload nsid bufsize \
        bind debug trace ready health pprof shed prometheus errors log dnstap local dns64 any chaos loadbalance tsig rewrite \
        autopath acl cache header dnssec tls minimal template transfer hosts route53 azure clouddns k8s_external kubernetes \
        file auto secondary etcd loop forward grpc erratic whoami on sign view nomad";

    #[test]
    fn every_plugin_of_coredns_is_known_by_name() {
        let own = [
            "kubernetes",
            "forward",
            "cache",
            "hosts",
            "rewrite",
            "template",
            "acl",
            "k8s_external",
            "autopath",
            "tls",
            "log",
        ];
        for name in PLUGINS.split_whitespace().filter(|name| !own.contains(name)) {
            let known = !matches!(meaning(name), Means::Missing(why) if why == STRANGER);
            assert!(known, "{name}");
        }
    }

    #[test]
    fn types_of_questions_are_those_of_the_api() {
        assert_eq!(query_type("aaaa"), Some(QueryType::AAAA));
        assert_eq!(query_type("HINFO"), None);
    }
}
