//! `spec.dns`: names of the cluster, and the way to names outside it.

mod cache;
mod forwarding;
mod local;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

pub use cache::{Cache, ServeStale, StaleMode};
pub use forwarding::{Forwarding, Policy, Protocol, ResponseCode, StubDomain};
pub use local::{
    AclAction, AclRule, AnswerRecord, ExternalSource, ExternalZone, Host, LoggedQueries, MatchKind,
    NameMatch, Override, QueryLog, QueryType, RateLimit, RecordKind, Rewrite, SearchPath,
};

use crate::{
    rule::rules,
    text::{IpText, Upstream},
};

/// Names of the cluster, and the way to names outside it. All but `clusterIP` and `replicas` take effect in the running servers, at once.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.externalZones.all(e, e.zone != self.clusterDomain && !e.zone.endsWith('.' + self.clusterDomain) && !self.clusterDomain.endsWith('.' + e.zone))",
     "an external zone must not lie in the cluster domain, nor the cluster domain in it"),
])))]
pub struct Dns {
    /// Domain below which the cluster's names live; the kubelets' `clusterDomain` must be the same.
    #[schemars(
        length(min = 1, max = 200),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    #[schemars(extend("x-kubernetes-validations" = rules(&[
        ("self == oldSelf", "the domain of a cluster cannot be changed"),
    ])))]
    pub cluster_domain: String,
    /// Number of DNS servers. With `placement: EveryNode` there is one on each node instead.
    #[schemars(range(min = 1, max = 100))]
    pub replicas: u16,
    /// Where the servers run.
    pub placement: Placement,
    /// Whether a `NetworkPolicy` may cut the servers off, such as one of `kube-system` that denies everything to all pods.
    pub network_policies: NetworkPolicies,
    /// Address of the Service `kube-dns`, as the kubelets' `clusterDNS` names it; by default the tenth of the first service CIDR.
    #[serde(rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IpText>")]
    pub cluster_ip: Option<IpAddr>,
    /// Time to live of answers from the cluster's own names, in seconds.
    #[schemars(range(min = 0, max = 3600))]
    pub ttl_seconds: u32,
    /// Whether `10-244-0-7.NAMESPACE.pod.CLUSTERDOMAIN` has an address.
    pub pod_records: PodRecords,
    /// Endpoints without a host name are named after their pod (`web-7d4.web.shop.svc.…`) instead of their address (`10-244-0-7.web.shop.svc.…`).
    pub endpoint_pod_names: bool,
    /// What the name of a Service with a cluster address and no ready endpoint is answered with.
    pub empty_services: EmptyServices,
    /// Resolvers for names outside the cluster, `ip` or `ip:port`; empty takes those of the server's node.
    #[schemars(length(max = 15), extend("x-kubernetes-list-type" = "set"))]
    pub upstreams: Vec<Upstream>,
    /// How `upstreams` are asked.
    pub forwarding: Forwarding,
    /// Zones with resolvers of their own; the longest zone that a name lies in counts.
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["zone"]))]
    pub stub_domains: Vec<StubDomain>,
    /// Answers of resolvers that are kept. The cluster's own names need no cache.
    pub cache: Cache,
    /// Names with addresses of their own, forwards and backwards, as in `/etc/hosts`.
    #[schemars(length(max = 256))]
    pub hosts: Vec<Host>,
    /// Names that are asked for under another name. The first that matches counts.
    #[schemars(length(max = 64))]
    pub rewrites: Vec<Rewrite>,
    /// Answers given instead of any other, for zones and types. The first that matches counts.
    #[schemars(length(max = 64))]
    pub overrides: Vec<Override>,
    /// Who may ask what. The first rule that matches counts; what none matches is allowed.
    #[schemars(length(max = 64))]
    pub acl: Vec<AclRule>,
    /// Zones in which Services have their outside addresses: `SERVICE.NAMESPACE.ZONE`.
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["zone"]))]
    pub external_zones: Vec<ExternalZone>,
    /// Questions that are written to the log.
    pub query_log: QueryLog,
    /// Who tries the search list of a pod's `resolv.conf`.
    pub search_path: SearchPath,
    /// How many questions a client may ask.
    pub rate_limit: RateLimit,
    /// DNS over TLS at port 853 of the Service `kube-dns` (RFC 7858); none where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// Where DNS servers run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// As many as `replicas` says, on different nodes where there are enough.
    #[default]
    Replicas,
    /// One on each node: pods are answered on their node, and elsewhere while the server there does not answer.
    EveryNode,
}

/// What network policies do to DNS servers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkPolicies {
    /// Nothing: the policy `kube-system/netkeel-dns` allows the servers everything, and policies only add up.
    #[default]
    Exempt,
    /// What they do to any pod.
    Enforced,
}

/// Names of pods, made of their address.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodRecords {
    /// There are none.
    Disabled,
    /// Any address has one in each namespace that there is, whether a pod has it or not.
    #[default]
    Insecure,
    /// Pods have one in their namespace.
    Verified,
}

/// Services without a ready endpoint.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyServices {
    /// They are answered like others.
    #[default]
    Answer,
    /// Their name does not exist while they have none.
    NXDomain,
}

/// A certificate to serve DNS over TLS with.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Name of the Secret of type `kubernetes.io/tls` in the namespace `kube-system`. A changed certificate is taken without a restart.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub secret_name: String,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".to_owned(),
            replicas: 2,
            placement: Placement::default(),
            network_policies: NetworkPolicies::default(),
            cluster_ip: None,
            ttl_seconds: 5,
            pod_records: PodRecords::default(),
            endpoint_pod_names: false,
            empty_services: EmptyServices::default(),
            upstreams: Vec::new(),
            forwarding: Forwarding::default(),
            stub_domains: Vec::new(),
            cache: Cache::default(),
            hosts: Vec::new(),
            rewrites: Vec::new(),
            overrides: Vec::new(),
            acl: Vec::new(),
            external_zones: Vec::new(),
            query_log: QueryLog::default(),
            search_path: SearchPath::default(),
            rate_limit: RateLimit::default(),
            tls: None,
        }
    }
}
