//! The plugins that know the cluster: `kubernetes`, `k8s_external`, `autopath`.

use netkeel_crds::cluster_network::dns::{
    EmptyServices, ExternalSource, ExternalZone, PodRecords, SearchPath,
};

use super::{Directive, Kind, Mapped, Server, is_domain, is_reverse, most, servers::covers, within};
use crate::migrate::{finding::Place, parser::Line, value::zones};

/// `kubernetes [ZONES...]`.
pub(super) fn kubernetes(at: &Directive, server: &Server<'_>, out: &mut Mapped) {
    let zones = Mapped::zones(&at.args, server);
    let mut names = zones.iter().filter(|zone| !is_reverse(zone));
    let Some(primary) = names.next() else {
        return out.unmapped(at, "it serves no domain of names");
    };
    if out.served {
        return out.unmapped(at, "a second one: a cluster has one domain");
    }
    out.served = true;
    domain(primary, &at.place, out);
    for other in names {
        let why = format!(
            "a cluster has one domain, {primary}: give {other} a rewrite of the suffix in spec.dns.rewrites"
        );
        out.unmapped(at, why);
    }
    out.dns.pod_records = PodRecords::Disabled;
    for line in &at.lines {
        option(line, out);
    }
    shorter_in_cache(at, server, out);
}

/// The domain of the cluster, as the API takes it.
pub(super) fn domain(zone: &str, place: &Place, out: &mut Mapped) {
    if !is_domain(zone) || zone.len() > 200 || zone.contains('_') {
        let zone = if zone.is_empty() { "." } else { zone };
        return out.findings.unmapped(place, "kubernetes", format!("{zone} is no domain for a cluster"));
    }
    if zone != out.dns.cluster_domain {
        let why = format!(
            "{zone} is the cluster's domain: set it when you create the ClusterNetwork, since it cannot be changed later"
        );
        out.findings.note(place, "kubernetes", why);
    }
    zone.clone_into(&mut out.dns.cluster_domain);
}

fn option(line: &Line, out: &mut Mapped) {
    let (name, args) = line.words.split_first().map_or(("", &[][..]), |(name, args)| (name.as_str(), args));
    let first = args.first().map(String::as_str);
    let why = match (name, first) {
        ("pods", Some("disabled")) => return out.dns.pod_records = PodRecords::Disabled,
        ("pods", Some("insecure")) => return out.dns.pod_records = PodRecords::Insecure,
        ("pods", Some("verified")) => return out.dns.pod_records = PodRecords::Verified,
        ("endpoint_pod_names", None) => return out.dns.endpoint_pod_names = true,
        ("ignore", Some("empty_service")) => return out.dns.empty_services = EmptyServices::NXDomain,
        ("ttl", Some(ttl)) => match ttl.parse() {
            Ok(ttl) if ttl <= 3600 => return out.dns.ttl_seconds = ttl,
            _ => "the time to live is a number of seconds from 0 to 3600",
        },
        ("fallthrough", Some(_))
            if args.iter().flat_map(|word| zones(word)).all(|zone| is_reverse(&zone)) =>
        {
            return;
        }
        ("fallthrough", _) => {
            "names of the cluster that there are not are asked nowhere else: give names of your own below the cluster's domain a place in spec.dns.hosts or spec.dns.stubDomains"
        }
        (
            "startup_timeout"
            | "apiserver_qps"
            | "apiserver_burst"
            | "apiserver_max_inflight"
            | "resyncperiod"
            | "upstream",
            _,
        ) => return,
        ("endpoint" | "tls" | "kubeconfig", _) => {
            let why = "Netkeel finds the API server itself";
            return out.findings.note(&line.place, format!("kubernetes {name}"), why);
        }
        ("namespaces" | "labels" | "namespace_labels", _) => {
            "names of all Services are served: refuse some with spec.dns.acl (zones NAMESPACE.svc.CLUSTERDOMAIN)"
        }
        ("noendpoints", _) => "names of endpoints and headless Services are always served",
        ("multicluster", _) => {
            "names of several clusters (clusterset.local) are not served: give the zone a server in spec.dns.stubDomains"
        }
        ("zonal", _) => "names of a topology zone are not served: use trafficDistribution of the Service",
        ("transfer", _) => "the zone cannot be transferred: read Services from the API",
        _ => "Netkeel does not know this option",
    };
    out.findings.unmapped(&line.place, format!("kubernetes {}", line.words.join(" ")), why);
}

/// A `cache` in the same block shortens what clients are told, so it counts where it is less.
fn shorter_in_cache(at: &Directive, server: &Server<'_>, out: &mut Mapped) {
    let Some(cache) = server.directives("cache").next() else { return };
    let mut ttl: Option<u32> = cache.args.first().and_then(|ttl| ttl.parse().ok());
    for line in &cache.lines {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["success", _, seconds, ..] => ttl = seconds.parse().ok(),
            ["disable", "success", zones @ ..] if covers_cluster(zones, out) => return,
            _ => {}
        }
    }
    if let Some(ttl) = ttl.filter(|ttl| *ttl > 0 && *ttl < out.dns.ttl_seconds) {
        let why = format!(
            "the cache in this block shortens ttl {} to {ttl} s, so ttlSeconds is {ttl}",
            out.dns.ttl_seconds
        );
        out.findings.note(&at.place, "kubernetes", why);
        out.dns.ttl_seconds = ttl;
    }
}

fn covers_cluster(words: &[&str], out: &Mapped) -> bool {
    let outer: Vec<String> = words.iter().flat_map(|word| zones(word)).collect();
    words.is_empty() || covers(&outer, &out.dns.cluster_domain)
}

/// `k8s_external [ZONES...]`. CoreDNS answers with addresses of load balancers and with `externalIPs`.
pub(super) fn external(at: &Directive, server: &Server<'_>, out: &mut Mapped) {
    let zones = Mapped::zones(&at.args, server);
    for zone in out.domains(at, zones) {
        let there = out.dns.external_zones.iter().any(|external| external.zone == zone);
        if there {
            continue;
        }
        if out.dns.external_zones.len() >= most::EXTERNAL_ZONES {
            out.unmapped(at, format!("{zone}: there are {} external zones at most", most::EXTERNAL_ZONES));
            continue;
        }
        let sources = vec![ExternalSource::LoadBalancer, ExternalSource::ExternalIP];
        out.dns.external_zones.push(ExternalZone { zone, sources });
    }
    for line in &at.lines {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        let why = match words.as_slice() {
            ["apex", "dns"] => continue,
            ["ttl", seconds] if seconds.parse() == Ok(out.dns.ttl_seconds) => continue,
            ["ttl", ..] => "the time to live is that of all names of the cluster, spec.dns.ttlSeconds",
            ["apex", ..] => "the name of the zone's own server is dns",
            ["headless", ..] => "headless Services have no names outside the cluster",
            ["fallthrough", ..] => "names of the zone that there are not are asked nowhere else",
            _ => "Netkeel does not know this option",
        };
        out.findings.unmapped(&line.place, format!("k8s_external {}", words.join(" ")), why);
    }
}

/// `autopath [ZONES...] @kubernetes`.
pub(super) fn autopath(at: &Directive, out: &mut Mapped) {
    match at.args.last().map(String::as_str) {
        Some("@kubernetes") => out.dns.search_path = SearchPath::ServerSide,
        _ => out.unmapped(at, "the search list of a pod is made from its namespace, not read from a file: set spec.dns.searchPath to ServerSide"),
    }
}

/// A block of the cluster's own zones needs no resolvers for these.
pub(super) fn own(server: &Server<'_>, zone: &str, out: &Mapped) -> bool {
    let relayed = server.directives("kubernetes").next().is_none();
    server.kind == Kind::Cluster && (within(zone, &out.dns.cluster_domain) || (is_reverse(zone) && relayed))
}
