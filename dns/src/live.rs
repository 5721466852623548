//! What the servers are told while they run: `spec.dns` of the ClusterNetwork, made ready for questions.
//! A new one takes the place of the old one as a whole; one that cannot be read leaves the old one in force.

use std::net::SocketAddr;

use ipnet::IpNet;
use netkeel_crds::cluster_network::Dns;

use crate::forward::{Forwarder, upstreams};
use crate::metrics::Metrics;
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
        Settings { ttl: dns.ttl_seconds, pod_ranges, ..self.settings.clone() }
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

/// What holds for questions at a moment.
#[derive(Debug)]
pub struct Live {
    /// As it was told.
    pub dns: Dns,
    pub(crate) forwarder: Forwarder,
}

impl Live {
    /// Makes `dns` ready.
    #[must_use]
    pub fn new(dns: Dns, base: &Base, metrics: &Metrics) -> Self {
        let upstreams = base.upstreams(&dns);
        if upstreams.is_empty() {
            tracing::error!(
                "no upstream resolver: only names of the cluster are answered; set spec.dns.upstreams"
            );
        }
        Self { forwarder: Forwarder::new(&upstreams, metrics.clone()), dns }
    }
    /// How many questions are under way to resolvers at most.
    pub(crate) fn under_way(&self) -> usize {
        let stubs = self.dns.stub_domains.iter().map(|stub| &stub.forwarding);
        let all = stubs.chain([&self.dns.forwarding]).map(|forwarding| forwarding.max_concurrent as usize);
        all.sum()
    }
}
