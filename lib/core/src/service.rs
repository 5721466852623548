//! Services: what the API says ([`Service`], [`Slice`]), what it means ([`endpoints`]) and what the kernel's maps hold of it ([`layout`]).

pub mod endpoints;
pub mod layout;

use std::sync::Arc;

pub use netkeel_dataplane_common::{Protocol, backends::Backend, services::Frontend};

use crate::{address::Address, name::ObjectName};

/// The protocol as the Kubernetes API names it; absent means TCP. SCTP is not served.
#[must_use]
pub fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

/// How a Service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By cluster addresses (those with node ports and load balancers have them too).
    Cluster(Vec<Address>),
    /// By name alone: DNS answers with the endpoints.
    Headless,
    /// By name alone: DNS answers with this name.
    External(Arc<str>),
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name that joins it to the ports of the slices; empty when it has none.
    pub name: Arc<str>,
    /// Number that clients use.
    pub number: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// A Kubernetes Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// How clients reach it.
    pub reach: Reach,
    /// Its TCP and UDP ports.
    pub ports: Vec<Port>,
    /// False when a label hands the Service to another proxy or marks it headless: the data path ignores it.
    pub proxied: bool,
    /// Clients are served by ready endpoints of their own node where there are any (`trafficDistribution: PreferSameNode`, KEP-3015).
    pub prefers_own_node: bool,
}

/// A port of a slice. Slices carry numbers: named target ports are already resolved, for each slice apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name that joins it to the port of the Service; empty when it has none.
    pub name: Arc<str>,
    /// Number that the endpoints of this slice listen on.
    pub number: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// One endpoint of a slice, with the API's defaults applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The first address of the endpoint.
    pub address: Address,
    /// Takes new connections.
    pub ready: bool,
    /// Answers, ready or not.
    pub serving: bool,
    /// Is being deleted.
    pub terminating: bool,
    /// Name of the pod in DNS, where it has one.
    pub hostname: Option<Arc<str>>,
    /// Whether it is for clients of the node that reads this.
    pub place: Place,
}

/// Where an endpoint is, seen from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It runs on the node.
    Here,
    /// It runs elsewhere.
    Elsewhere,
    /// The slice's `hints.forNodes` name the node.
    HintedHere,
    /// The slice's `hints.forNodes` name other nodes.
    HintedElsewhere,
}

impl Place {
    /// Whether the endpoint is for the node's clients before others.
    #[must_use]
    pub const fn is_here(self) -> bool {
        matches!(self, Self::Here | Self::HintedHere)
    }

    /// Whether the slice says for which nodes it is.
    #[must_use]
    pub const fn is_hinted(self) -> bool {
        matches!(self, Self::HintedHere | Self::HintedElsewhere)
    }
}

/// A Kubernetes `EndpointSlice` of addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Namespace and name.
    pub name: ObjectName,
    /// The Service that it belongs to.
    pub service: ObjectName,
    /// Its TCP and UDP ports.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// False when a label marks it as part of a headless Service: the data path ignores it.
    pub proxied: bool,
}
