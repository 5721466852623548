//! What the servers are told while they run: `spec.dns` of the ClusterNetwork, made ready for questions.
//! A new one takes the place of the old one as a whole; one that cannot be read leaves the old one in force.

use std::net::SocketAddr;

use ipnet::IpNet;
use netkeel_crds::cluster_network::{Dns, PodRecords, SearchPath};
use netkeel_index::dns::Mistake;

use crate::forward::{Forwarder, upstreams};
use crate::metrics::Metrics;
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
        let told: Vec<SocketAddr> = dns.upstreams.iter().map(|upstream| upstream.0).collect();
        let mut upstreams = if told.is_empty() { self.of_node.clone() } else { told };
        upstreams.retain(|upstream| !self.listen.iter().any(|listen| upstreams::is_self(*upstream, *listen)));
        upstreams
    }
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
}

impl Live {
    /// Makes `dns` ready.
    ///
    /// # Errors
    /// It says what no schema can refuse.
    pub fn new(dns: Dns, base: &Base, metrics: &Metrics) -> Result<Self, Mistake> {
        let rules = Rules::new(&dns)?;
        let upstreams = base.upstreams(&dns);
        if upstreams.is_empty() {
            tracing::error!(
                "no upstream resolver: only names of the cluster are answered; set spec.dns.upstreams, or name resolvers in the \
                 file of the kubelet's resolvConf"
            );
        }
        let logged = Logged::new(&dns.query_log);
        Ok(Self { forwarder: Forwarder::new(&upstreams, metrics.clone()), rules, logged, dns })
    }
}
