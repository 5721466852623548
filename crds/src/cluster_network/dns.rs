//! `spec.dns`: names of the cluster and the way outside.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

use crate::{
    rule::rules,
    text::{IpText, Upstream},
};

/// Names of the cluster, and the way to names outside it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
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
    /// Number of DNS servers.
    #[schemars(range(min = 1, max = 100))]
    pub replicas: u16,
    /// Resolvers for names outside the cluster, `ip` or `ip:port`; empty takes those of the server's node.
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub upstreams: Vec<Upstream>,
    /// Address of the Service `kube-dns`, as the kubelets' `clusterDNS` names it; by default the tenth of the first service CIDR.
    #[serde(rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IpText>")]
    pub cluster_ip: Option<IpAddr>,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".to_owned(),
            replicas: 2,
            upstreams: Vec::new(),
            cluster_ip: None,
        }
    }
}
