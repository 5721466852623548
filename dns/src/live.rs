//! What the servers are told while they run: `spec.dns` of the ClusterNetwork, made ready for questions.
//! A new one takes the place of the old one as a whole; one that cannot be read leaves the old one in force.

use std::net::SocketAddr;
use std::time::Instant;

use ipnet::IpNet;
use netkeel_crds::cluster_network::dns::Protocol;
use netkeel_crds::cluster_network::{Dns, PodRecords, SearchPath, Upstream};
use netkeel_index::dns::{Mistake, mistakes, usable};

use crate::cache::{Given, quick};
use crate::fast::Answered;
use crate::forward::{Forwarder, Upstreams, upstreams};
use crate::loops::Avoid;
use crate::metrics::Metrics;
use crate::plain::Question;
use crate::querylog::Logged;
use crate::rules::Rules;
use crate::zone::Settings;

/// What no ClusterNetwork changes.
#[derive(Clone, Debug)]
pub struct Base {
    /// What the zone is told, with the time to live and ranges that hold without a ClusterNetwork.
    pub settings: Settings,
    /// Where questions are answered.
    pub listen: Vec<SocketAddr>,
    /// Resolvers of the server's node.
    pub of_node: Vec<SocketAddr>,
}

impl Base {
    /// What the zone is told by `dns`; pods have addresses of `pod_ranges`.
    #[must_use]
    pub fn settings(&self, dns: &Dns, pod_ranges: Vec<IpNet>) -> Settings {
        Settings {
            ttl: dns.ttl_seconds,
            pod_ranges,
            pod_records: dns.pod_records,
            endpoint_pod_names: dns.endpoint_pod_names,
            empty_services: dns.empty_services,
            ..self.settings.clone()
        }
    }

    /// The resolvers that names outside the cluster are sent to: those of the node where `dns` names none.
    /// One that is this server itself is left out.
    #[must_use]
    pub fn upstreams(&self, dns: &Dns) -> Vec<SocketAddr> {
        let of_node: Vec<Upstream> = self.of_node.iter().map(|address| of_node(*address)).collect();
        let told = if dns.upstreams.is_empty() { &of_node } else { &dns.upstreams };
        self.others(told, dns.forwarding.protocol)
    }

    /// Where `upstreams` are asked over `protocol`, without this server itself.
    fn others(&self, upstreams: &[Upstream], protocol: Protocol) -> Vec<SocketAddr> {
        let mut others: Vec<SocketAddr> =
            upstreams.iter().map(|upstream| upstream.at(protocol.port())).collect();
        others.retain(|upstream| !self.listen.iter().any(|listen| upstreams::is_self(*upstream, *listen)));
        others
    }

    /// All groups of resolvers that `dns` tells of.
    fn groups(&self, dns: &Dns) -> Vec<Upstreams> {
        let all =
            Upstreams { zone: None, addresses: self.upstreams(dns), forwarding: dns.forwarding.clone() };
        let stubs = dns.stub_domains.iter().map(|stub| Upstreams {
            zone: Some(stub.zone.clone()),
            addresses: self.others(&stub.upstreams, stub.forwarding.protocol),
            forwarding: stub.forwarding.clone(),
        });
        std::iter::once(all).chain(stubs).collect()
    }
}

/// A resolver of the node: its usual port is no more than what all of resolv.conf have.
fn of_node(address: SocketAddr) -> Upstream {
    Upstream { ip: address.ip(), port: Some(address.port()).filter(|port| *port != upstreams::PORT) }
}

fn good(dns: &Dns) -> Result<(), Mistake> {
    mistakes(dns).into_iter().next().map_or(Ok(()), Err)
}

/// Whether pods are followed: they cost memory, and most answers need none.
pub(crate) fn follows_pods(dns: &Dns) -> bool {
    dns.pod_records == PodRecords::Verified || dns.search_path == SearchPath::ServerSide
}

/// What holds for questions at a moment.
#[derive(Debug)]
pub struct Live {
    /// As it was told.
    pub dns: Dns,
    pub(crate) forwarder: Forwarder,
    pub(crate) rules: Rules,
    /// Which questions are logged.
    pub(crate) logged: Logged,
    /// Whether nothing stands between a question for a name outside the cluster and the cache.
    plain: bool,
}

impl Live {
    /// Makes `dns` ready.
    ///
    /// # Errors
    /// It says what no schema can refuse.
    pub fn new(dns: Dns, base: &Base, metrics: &Metrics) -> Result<Self, Mistake> {
        good(&dns)?;
        Self::make(dns, base, None, metrics)
    }

    /// Makes `dns` ready to take the place of this: what stays the same is taken over, with the answers that are kept.
    ///
    /// # Errors
    /// As [`Live::new`].
    pub fn next(&self, dns: Dns, base: &Base, metrics: &Metrics) -> Result<Self, Mistake> {
        good(&dns)?;
        Self::make(dns, base, Some(&self.forwarder), metrics)
    }

    /// What can be used of `dns`, ready to take the place of this: names of resolvers that cannot be asked as `dns` says are not resolved.
    ///
    /// # Errors
    /// As [`Live::new`].
    pub(crate) fn rest(&self, dns: Dns, base: &Base, metrics: &Metrics) -> Result<Self, Mistake> {
        Self::make(usable(dns), base, Some(&self.forwarder), metrics)
    }

    fn make(dns: Dns, base: &Base, before: Option<&Forwarder>, metrics: &Metrics) -> Result<Self, Mistake> {
        let rules = Rules::new(&dns)?;
        let forwarder = Forwarder::new(base.groups(&dns), &dns.cache, before, metrics);
        if !forwarder.has_upstreams() {
            tracing::error!(
                "no upstream resolver: only names of the cluster are answered; set spec.dns.upstreams, or name resolvers in the \
                 file of the kubelet's resolvConf"
            );
        }
        let logged = Logged::new(&dns.query_log);
        Ok(Self { forwarder, rules, logged, plain: is_plain(&dns), dns })
    }

    /// What is kept of the question under `key`. Its name is none of the zone's. It may be fetched anew for the next time, not from those
    /// that `avoid` names.
    pub(crate) fn known(&self, key: &[u8], since: Instant, avoid: impl FnOnce() -> Avoid) -> Option<Given> {
        let given = self.forwarder.known(key, since);
        match &given {
            Some(given) => self.forwarder.gives(key, given, since, avoid),
            None => self.forwarder.misses(),
        }
        given
    }

    /// Answers a question from what is kept, as [`Live::known`] does, where that is quickly done.
    pub(crate) fn cached(
        &self,
        question: &Question<'_>,
        (turn, since): (usize, Instant),
        avoid: impl FnOnce() -> Avoid,
        reply: &mut Vec<u8>,
    ) -> Option<Answered> {
        if !self.plain || question.is_reverse() {
            return None;
        }
        let given = self.forwarder.known(question.key(), since)?;
        let answered = quick::answer(question, &given, turn, reply)?;
        self.forwarder.gives(question.key(), &given, since, avoid);
        Some(answered)
    }

    /// How many questions are under way to resolvers at most.
    pub(crate) fn under_way(&self) -> usize {
        let stubs = self.dns.stub_domains.iter().map(|stub| &stub.forwarding);
        let all = stubs.chain([&self.dns.forwarding]).map(|forwarding| forwarding.max_concurrent as usize);
        all.sum()
    }
}

/// Whether `dns` says nothing that a question has to be held against before the cache may answer it. Destructured without `..`, so that
/// a new field does not compile until it is said here what it means.
fn is_plain(dns: &Dns) -> bool {
    let Dns {
        cluster_domain: _,
        replicas: _,
        placement: _,
        cluster_ip: _,
        ttl_seconds: _,
        pod_records: _,
        endpoint_pod_names: _,
        empty_services: _,
        upstreams: _,
        forwarding: _,
        stub_domains: _,
        cache: _,
        tls: _,
        network_policies: _,
        query_log: _,
        hosts,
        rewrites,
        overrides,
        acl,
        external_zones,
        search_path,
        rate_limit: _,
    } = dns;
    let usual = Dns::default();
    hosts.is_empty()
        && rewrites.is_empty()
        && overrides.is_empty()
        && acl.is_empty()
        && external_zones.is_empty()
        && search_path == &usual.search_path
}
