//! One Service and its slices.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::Name;
use serde::{Deserialize, Serialize};

use super::endpoints::Endpoints;
use super::{PackedSlice, Settings};
use crate::wire::put_address;

/// Transport protocol of a port.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, `_tcp`.
    Tcp,
    /// UDP, `_udp`.
    Udp,
    /// SCTP, `_sctp`.
    Sctp,
}

impl Protocol {
    /// The label that stands for the protocol in the name of an SRV record.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "_tcp",
            Self::Udp => "_udp",
            Self::Sctp => "_sctp",
        }
    }
}

/// One port of a Service or of an endpoint.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Name, empty for an unnamed port, which has no `_name._protocol` record.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port number, host byte order.
    pub number: u16,
}

/// What a Service says about its names.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Has cluster addresses of its own.
    ClusterIp {
        /// One address a family.
        addresses: Vec<IpAddr>,
        /// Ports at those addresses.
        ports: Vec<Port>,
    },
    /// Stands for its ready endpoints.
    Headless,
    /// Stands for a name elsewhere; `None` when what it holds is no host name.
    ExternalName(#[serde(with = "crate::name::optional")] Option<Name>),
    /// Exists, but its object cannot be read.
    Unreadable,
}

/// The name that an address points back to. Those of Services come first in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pointer {
    /// The Service (dotted) whose cluster address it is.
    Service(String),
    /// The Service (dotted) and the label of the endpoint there.
    Endpoint(String, String),
}

/// A Service and its slices.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    service: Option<Service>,
    /// By key.
    slices: Box<[Held]>,
    /// Whether endpoints without a host name are called as their pods are.
    pod_names: bool,
    ready: Ready,
}

/// A slice with its key, `namespace/name`.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) key: Arc<str>,
    pub(super) slice: Arc<PackedSlice>,
}

/// The address records of a Service's own name as they stand in replies, those of each family by themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ready {
    v4: Arc<[u8]>,
    v6: Arc<[u8]>,
}

impl Ready {
    fn of(addresses: impl Iterator<Item = IpAddr>, ttl: u32) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in addresses {
            put_address(if address.is_ipv4() { &mut v4 } else { &mut v6 }, ttl, address);
        }
        // An empty one takes no memory.
        let shared = |bytes: Vec<u8>| if bytes.is_empty() { Arc::default() } else { bytes.into() };
        Self { v4: shared(v4), v6: shared(v6) }
    }

    /// Those of one family.
    pub(crate) fn records(&self, is_v4: bool) -> &[u8] {
        if is_v4 { &self.v4 } else { &self.v6 }
    }
}

impl Entry {
    /// What answers questions for the addresses of the Service's own name.
    pub(crate) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Makes that anew after a change.
    pub(super) fn make_ready(&mut self, settings: &Settings) {
        self.pod_names = settings.endpoint_pod_names;
        self.ready = match &self.service {
            Some(Service::ClusterIp { addresses, .. }) => Ready::of(addresses.iter().copied(), settings.ttl),
            Some(Service::Headless) => Ready::of(self.endpoints().all_addresses().into_iter(), settings.ttl),
            Some(Service::ExternalName(_) | Service::Unreadable) | None => Ready::default(),
        };
    }

    pub(crate) fn service(&self) -> Option<&Service> {
        self.service.as_ref()
    }

    /// The ready endpoints by label.
    pub(crate) fn endpoints(&self) -> Endpoints<'_> {
        Endpoints { slices: &self.slices, pod_names: self.pod_names }
    }

    /// What the slices say, by their keys, `namespace/name`.
    pub(super) fn slices(&self) -> impl Iterator<Item = (&str, &PackedSlice)> {
        self.slices.iter().map(|held| (&*held.key, &*held.slice))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.service.is_none() && self.slices.is_empty()
    }

    pub(super) fn set_service(&mut self, service: Option<Service>) -> bool {
        let changed = self.service != service;
        self.service = service;
        changed
    }

    pub(super) fn set_slice(&mut self, key: &Arc<str>, slice: Option<PackedSlice>) -> bool {
        let place = self.slices.binary_search_by(|held| held.key.cmp(key));
        let held = place.ok().map(|place| &*self.slices[place].slice);
        if held == slice.as_ref() {
            return false;
        }
        let new = slice.map(|slice| Held { key: key.clone(), slice: Arc::new(slice) });
        let (before, after) = match place {
            Ok(place) => (&self.slices[..place], &self.slices[place + 1..]),
            Err(place) => self.slices.split_at(place),
        };
        self.slices = before.iter().cloned().chain(new).chain(after.iter().cloned()).collect();
        true
    }

    /// Every address that points back to a name of the Service or its endpoints, once and in order.
    pub(super) fn pointed(&self) -> Vec<IpAddr> {
        match &self.service {
            None | Some(Service::ExternalName(_) | Service::Unreadable) => vec![],
            Some(Service::Headless) => self.endpoints().all_addresses(),
            Some(Service::ClusterIp { addresses, .. }) => {
                let mut all = self.endpoints().all_addresses();
                all.extend(addresses);
                all.sort_unstable();
                all.dedup();
                all
            }
        }
    }

    /// The names, `dotted` or below it, that the address points back to.
    pub(super) fn pointers(&self, dotted: &str, address: IpAddr) -> impl Iterator<Item = Pointer> {
        let own = match &self.service {
            Some(Service::ClusterIp { addresses, .. }) if addresses.contains(&address) => {
                Some(Pointer::Service(dotted.to_owned()))
            }
            _ => None,
        };
        let labels = self.endpoints().labels(address);
        own.into_iter().chain(labels.map(move |label| Pointer::Endpoint(dotted.to_owned(), label)))
    }
}
