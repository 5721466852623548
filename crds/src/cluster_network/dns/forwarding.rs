//! How resolvers outside the cluster are asked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    rule::rules,
    text::{DomainText, Upstream},
};

/// How a group of resolvers is asked.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.protocol in ['TLS', 'HTTPS'] ? has(self.tlsServerName) : !has(self.tlsServerName)",
     "tlsServerName is the name in the resolvers' certificate: set it with protocol TLS or HTTPS, and only then"),
    ("self.protocol in ['TLS', 'HTTPS'] || !has(self.caCertificates)",
     "caCertificates says whose certificates the resolvers may have: set it with protocol TLS or HTTPS only"),
])))]
pub struct Forwarding {
    /// What they are asked over. With TLS the port of an address without one is 853, with HTTPS 443.
    pub protocol: Protocol,
    /// Name that the resolvers' certificate must have; needed with TLS and HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DomainText>")]
    pub tls_server_name: Option<String>,
    /// Certificates, in PEM, of the authorities that the resolvers' certificate may come from; by default the public ones that Mozilla lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65_536), regex(pattern = "-----BEGIN CERTIFICATE-----"))]
    pub ca_certificates: Option<String>,
    /// Path of questions over HTTPS (RFC 8484).
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^/[-A-Za-z0-9._~/]*$"))]
    pub https_path: String,
    /// Which of them is asked first. Those that do not answer are asked last.
    pub policy: Policy,
    /// How long one is waited for before the next is asked, in milliseconds.
    #[schemars(range(min = 50, max = 10_000))]
    pub timeout_milliseconds: u32,
    /// Questions under way at a time; more are refused.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_concurrent: u32,
    /// Answers upon which another one is asked.
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub failover: Vec<ResponseCode>,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            tls_server_name: None,
            ca_certificates: None,
            https_path: "/dns-query".to_owned(),
            policy: Policy::default(),
            timeout_milliseconds: 1500,
            max_concurrent: 1000,
            failover: vec![ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp],
        }
    }
}

/// What a resolver is asked over.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Datagrams, and TCP for answers that do not fit one.
    #[default]
    UDP,
    /// TCP alone.
    TCP,
    /// DNS over TLS (RFC 7858).
    TLS,
    /// DNS over HTTPS (RFC 8484).
    HTTPS,
}

impl Protocol {
    /// Where a resolver is asked that names no port.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::UDP | Self::TCP => 53,
            Self::TLS => 853,
            Self::HTTPS => 443,
        }
    }
}

/// Which resolver of a group is asked first.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Any.
    #[default]
    Random,
    /// One after the other.
    RoundRobin,
    /// The first that answers, in the order of the list.
    Sequential,
}

/// What an answer says of itself (RFC 1035 section 4.1.1).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseCode {
    /// There is such a name.
    NoError,
    /// The question could not be read.
    FormErr,
    /// It could not be resolved.
    ServFail,
    /// There is no such name.
    NXDomain,
    /// The server cannot do that.
    NotImp,
    /// The server does not want to.
    Refused,
}

/// A zone with resolvers of its own.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StubDomain {
    /// The zone, such as `corp.example` or `168.192.in-addr.arpa`.
    #[schemars(with = "DomainText")]
    pub zone: String,
    /// Its resolvers, `ip` or `ip:port`.
    #[schemars(length(min = 1, max = 15), extend("x-kubernetes-list-type" = "set"))]
    pub upstreams: Vec<Upstream>,
    /// How they are asked.
    #[serde(default)]
    pub forwarding: Forwarding,
}
