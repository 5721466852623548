//! What the server tells Prometheus: under the names of CoreDNS what its dashboards expect, the rest as
//! `netkeel_dns_*`.

mod caching;
mod lasting;
mod reason;

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use netkeel_telemetry::metrics::{Counter, Family, Gauge, Histogram, Labels, Registry};

use crate::fast::Answered;
use crate::message::Transport;
pub(crate) use caching::Caching;
use lasting::Lasting;
pub use reason::Reason;
use reason::limited;

type Counters = Family<Labels, Counter>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// What is counted. Clones share it.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The `server` label: scheme and address, as CoreDNS writes it.
    server: String,
    /// The `zone` label of names of the cluster.
    domain: String,
    requests: Counters,
    responses: Counters,
    durations: Histograms,
    upstream_durations: Histograms,
    upstream_failures: Counters,
    probe_failures: Counters,
    all_rest: Counter,
    rejects: Counter,
    caching: Caching,
    ignored: Counter,
    /// By [`Reason`].
    limited: [Counter; Reason::ALL.len()],
    tls_loads: Counters,
    tls_open: Gauge,
    services: Gauge,
    serial: Gauge,
    events: Counters,
    lasting: Lasting,
    denials: Counters,
    config_rejected: Gauge,
    log_drops: Counter,
}

/// One question and its answer, as they are counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) transport: Transport,
    pub(crate) client: SocketAddr,
    /// `None` where the question could not be read.
    pub(crate) rtype: Option<RecordType>,
    pub(crate) by: By,
    pub(crate) code: ResponseCode,
    pub(crate) took: Duration,
}

/// Who answered a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The cluster's zone.
    Zone,
    /// An upstream resolver.
    Upstream,
    /// One, earlier: its answer was kept.
    Cache,
    /// A rule of the ACL.
    Acl,
    /// A rewrite that leads nowhere.
    Rewrite,
    /// An override.
    Template,
    /// The hosts.
    Hosts,
    /// An external zone.
    External,
}

impl By {
    /// The `plugin` label: the plugin of CoreDNS that does the same.
    fn plugin(self) -> &'static str {
        match self {
            Self::Zone => "kubernetes",
            Self::Upstream => "forward",
            Self::Cache => "cache",
            Self::Acl => "acl",
            Self::Rewrite => "rewrite",
            Self::Template => "template",
            Self::Hosts => "hosts",
            Self::External => "k8s_external",
        }
    }
}

impl Metrics {
    /// Metrics in `registry`, of a server at `listen` for `domain`.
    #[must_use]
    pub fn new(registry: &Registry, listen: SocketAddr, domain: &str) -> Self {
        Self {
            server: format!("dns://{listen}"),
            domain: domain.to_owned(),
            requests: registry.counters(
                "coredns_dns_requests",
                "Questions by transport, family and type",
                &["server", "zone", "view", "proto", "family", "type"],
            ),
            responses: registry.counters(
                "coredns_dns_responses",
                "Answers by response code",
                &["server", "zone", "view", "rcode", "plugin"],
            ),
            durations: registry.histograms(
                "coredns_dns_request_duration_seconds",
                "Time from a question to its answer",
                &["server", "zone", "view", "type"],
            ),
            upstream_durations: registry.histograms(
                "coredns_proxy_request_duration_seconds",
                "Time an upstream resolver took to reply",
                &["proxy_name", "to", "rcode"],
            ),
            upstream_failures: registry.counters(
                "netkeel_dns_upstream_failures",
                "Tries that an upstream resolver did not answer",
                &["to"],
            ),
            probe_failures: registry.counters(
                "coredns_proxy_healthcheck_failures",
                "Probes that an upstream resolver which had failed did not answer",
                &["proxy_name", "to"],
            ),
            all_rest: registry.counter(
                "coredns_forward_healthcheck_broken",
                "Questions put to a group of upstream resolvers of which none has answered of late",
            ),
            caching: Caching::new(registry, &format!("dns://{listen}")),
            rejects: registry
                .counter("coredns_forward_max_concurrent_rejects", "Questions refused: too many under way"),
            ignored: registry.counter("netkeel_dns_ignored_packets", "Packets that are no questions"),
            limited: limited(registry),
            tls_loads: tls_loads(registry),
            tls_open: registry.gauge("netkeel_dns_tls_open", "1 while DNS over TLS is served"),
            services: registry.gauge("netkeel_dns_services", "Services whose names are answered"),
            serial: registry.gauge("netkeel_dns_zone_serial", "Serial of the zone, one more at each change"),
            events: registry.counters(
                "netkeel_dns_watch_events",
                "Events of the API server by kind of object; `undecodable` ones name a bad object in the log",
                &["object", "event"],
            ),
            lasting: Lasting::new(registry),
            denials: denials(registry),
            config_rejected: config_rejected(registry),
            log_drops: log_drops(registry),
        }
    }

    pub(crate) fn seen(&self, seen: Seen) {
        let zone = if seen.by == By::Zone { self.domain.clone() } else { ".".to_owned() };
        let base = || -> Labels {
            vec![("server", self.server.clone()), ("zone", zone.clone()), ("view", String::new())]
        };
        let with = |more: &[(&'static str, &str)]| -> Labels {
            base().into_iter().chain(more.iter().map(|(name, value)| (*name, (*value).to_owned()))).collect()
        };
        let proto = if seen.transport == Transport::Udp { "udp" } else { "tcp" };
        let family = if seen.client.ip().to_canonical().is_ipv4() { "1" } else { "2" };
        let kind = kind(seen.rtype);
        let plugin = seen.by.plugin();
        self.requests.get_or_create(&with(&[("proto", proto), ("family", family), ("type", &kind)])).inc();
        self.responses.get_or_create(&with(&[("rcode", name(seen.code)), ("plugin", plugin)])).inc();
        self.durations.get_or_create(&with(&[("type", &kind)])).observe(seen.took.as_secs_f64());
    }

    /// The series of the commonest questions, looked up once.
    pub(crate) fn common(&self) -> Common {
        Common { own: self.series(&self.domain, "kubernetes"), cached: self.series(".", "cache") }
    }

    fn series(&self, zone: &str, plugin: &str) -> Series {
        let with = |more: &[(&'static str, &str)]| -> Labels {
            let base = [("server", &*self.server), ("zone", zone), ("view", "")];
            base.iter().chain(more).map(|(name, value)| (*name, (*value).to_owned())).collect()
        };
        let request = |family, kind| {
            let labels = with(&[("proto", "udp"), ("family", family), ("type", kind)]);
            self.requests.get_or_create(&labels).clone()
        };
        let response = |code| {
            let labels = with(&[("rcode", name(code)), ("plugin", plugin)]);
            self.responses.get_or_create(&labels).clone()
        };
        let duration = |kind| self.durations.get_or_create(&with(&[("type", kind)])).clone();
        Series {
            requests: ["1", "2"].map(|family| ["A", "AAAA"].map(|kind| request(family, kind))),
            responses: [ResponseCode::NoError, ResponseCode::NXDomain].map(response),
            durations: ["A", "AAAA"].map(duration),
        }
    }

    /// Of what makes a server last.
    pub(crate) fn lasting(&self) -> &Lasting {
        &self.lasting
    }

    pub(crate) fn ignored(&self) {
        self.ignored.inc();
    }

    pub(crate) fn limited(&self, reason: Reason, times: u64) {
        self.limited[reason as usize].inc_by(times);
    }

    pub(crate) fn tls_load(&self, result: &'static str) {
        self.tls_loads.get_or_create(&vec![("result", result.into())]).inc();
    }

    pub(crate) fn tls_open(&self, open: bool) {
        self.tls_open.set(open.into());
    }

    pub(crate) fn rejected(&self) {
        self.rejects.inc();
    }

    pub(crate) fn caching(&self) -> &Caching {
        &self.caching
    }

    /// A group's resolvers are all asked although they failed.
    pub(crate) fn all_upstreams_rest(&self) {
        self.all_rest.inc();
    }

    pub(crate) fn probe_failure(&self, to: SocketAddr) {
        let labels: Labels = vec![("proxy_name", "forward".into()), ("to", to.to_string())];
        self.probe_failures.get_or_create(&labels).inc();
    }

    pub(crate) fn upstream_reply(&self, to: SocketAddr, code: u8, took: Duration) {
        let code = ResponseCode::from(0, code);
        let labels: Labels =
            vec![("proxy_name", "forward".into()), ("to", to.to_string()), ("rcode", name(code).into())];
        self.upstream_durations.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn event(&self, object: &'static str, event: &'static str) {
        self.events.get_or_create(&vec![("object", object.into()), ("event", event.into())]).inc();
    }

    pub(crate) fn zone(&self, services: usize, serial: u32) {
        self.services.set(i64::try_from(services).unwrap_or(i64::MAX));
        self.serial.set(i64::from(serial));
    }

    pub(crate) fn denied(&self, action: &'static str) {
        self.denials.get_or_create(&vec![("action", action.into())]).inc();
    }

    pub(crate) fn config_rejected(&self, rejected: bool) {
        self.config_rejected.set(i64::from(rejected));
    }

    pub(crate) fn log_drops(&self) -> Counter {
        self.log_drops.clone()
    }

    pub(crate) fn upstream_failure(&self, to: SocketAddr) {
        self.upstream_failures.get_or_create(&vec![("to", to.to_string())]).inc();
    }
}

fn denials(registry: &Registry) -> Counters {
    registry.counters(
        "netkeel_dns_acl_denials",
        "Questions that a rule of spec.dns.acl denied, by its action",
        &["action"],
    )
}

fn config_rejected(registry: &Registry) -> Gauge {
    registry.gauge(
                "netkeel_dns_config_rejected",
                "1 while the newest spec.dns cannot be used and the last good one is in force; the log names field and reason",
            )
}

fn log_drops(registry: &Registry) -> Counter {
    registry.counter(
        "netkeel_dns_query_log_dropped_lines",
        "Lines of the query log that were left out: they came faster than they could be written",
    )
}

fn tls_loads(registry: &Registry) -> Counters {
    registry.counters(
        "netkeel_dns_tls_loads",
        "Changes of the certificate for DNS over TLS: `loaded`, `bad` or `missing`",
        &["result"],
    )
}

/// Counts questions for addresses over UDP that are answered quickly.
#[derive(Debug)]
pub(crate) struct Common {
    /// From the cluster's zone.
    own: Series,
    /// From the cache.
    cached: Series,
}

#[derive(Debug)]
struct Series {
    /// By the client's family and by type.
    requests: [[Counter; 2]; 2],
    /// Without an error, and of names that are not there.
    responses: [Counter; 2],
    durations: [Histogram; 2],
}

impl Common {
    pub(crate) fn seen(&self, client: SocketAddr, answered: Answered, took: Duration) {
        let series = if answered.cached { &self.cached } else { &self.own };
        let kind = usize::from(answered.rtype == RecordType::AAAA);
        let family = usize::from(!client.ip().to_canonical().is_ipv4());
        series.requests[family][kind].inc();
        series.responses[usize::from(answered.code == ResponseCode::NXDomain)].inc();
        series.durations[kind].observe(took.as_secs_f64());
    }
}

/// The types that CoreDNS counts apart; all the others are one.
fn kind(rtype: Option<RecordType>) -> String {
    use RecordType::{A, AAAA, ANY, CNAME, DNSKEY, DS, HTTPS, MX, NS, PTR, SOA, SRV, SVCB, TXT};
    match rtype {
        Some(
            rtype @ (A | AAAA | ANY | CNAME | DNSKEY | DS | HTTPS | MX | NS | PTR | SOA | SRV | SVCB | TXT),
        ) => rtype.to_string(),
        _ => "other".to_owned(),
    }
}

/// The code as Prometheus and the query log say it.
pub(crate) fn name(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "OTHER",
    }
}
