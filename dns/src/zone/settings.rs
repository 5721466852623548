//! What the zone is told and no object says.

use hickory_proto::rr::Name;
use ipnet::IpNet;
use netkeel_crds::cluster_network::{Dns, EmptyServices, PodRecords};

/// What the zone is told and no object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster domain, fully qualified.
    pub domain: Name,
    /// Time to live of answers, in seconds.
    pub ttl: u32,
    /// `name.namespace` of the Service in front of the DNS servers, lower case.
    pub dns_service: String,
    /// Ranges of Services whose reverse names are never asked elsewhere.
    pub service_ranges: Vec<IpNet>,
    /// Those of pods.
    pub pod_ranges: Vec<IpNet>,
    /// Which names made of a pod's address there are.
    pub pod_records: PodRecords,
    /// Whether endpoints without a host name are called as their pods are.
    pub endpoint_pod_names: bool,
    /// What is said of a Service with a cluster address and no ready endpoint.
    pub empty_services: EmptyServices,
}

impl Settings {
    /// What holds for `domain` where nothing else is said: the defaults of `spec.dns`, and no ranges.
    #[must_use]
    pub fn new(domain: Name) -> Self {
        let dns = Dns::default();
        Self {
            domain,
            ttl: dns.ttl_seconds,
            dns_service: "kube-dns.kube-system".to_owned(),
            service_ranges: vec![],
            pod_ranges: vec![],
            pod_records: dns.pod_records,
            endpoint_pod_names: dns.endpoint_pod_names,
            empty_services: dns.empty_services,
        }
    }

    /// Whether all addresses of `network` can only be the cluster's.
    pub(crate) fn is_own(&self, network: IpNet) -> bool {
        self.service_ranges.iter().chain(&self.pod_ranges).any(|range| range.contains(&network))
    }
}
