//! One Service and the endpoints its slices name, merged by label so that a question finds them at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::Name;

use crate::name::dashed;
use crate::wire::put_address;

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Name, empty for an unnamed port, which has no `_name._protocol` record.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port number, host byte order.
    pub number: u16,
}

/// What a Service says about its names.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    ExternalName(Option<Name>),
    /// Exists, but its object cannot be read.
    Unreadable,
}

/// The ready endpoints of one EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Host name, where the pod has one, and addresses of each ready endpoint.
    pub endpoints: Vec<(Option<String>, Vec<IpAddr>)>,
    /// Ports of all of them.
    pub ports: Vec<Port>,
}

/// One name below a Service, and what answers there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Addresses, in order.
    pub addresses: BTreeSet<IpAddr>,
    /// Ports, in order.
    pub ports: BTreeSet<Port>,
}

/// The name that an address points back to. Those of Services come first in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pointer {
    /// The Service (dotted) whose cluster address it is.
    Service(String),
    /// The Service (dotted) and the label of the endpoint there.
    Endpoint(String, String),
}

/// A Service, its slices, and the endpoints made of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    service: Option<Service>,
    slices: BTreeMap<String, Arc<Slice>>,
    endpoints: Arc<BTreeMap<String, Endpoint>>,
    ready: Ready,
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
        Self { v4: v4.into(), v6: v6.into() }
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

    /// Makes that anew after a change; `ttl` in seconds.
    pub(super) fn make_ready(&mut self, ttl: u32) {
        self.ready = match &self.service {
            Some(Service::ClusterIp { addresses, .. }) => Ready::of(addresses.iter().copied(), ttl),
            Some(Service::Headless) => {
                let all = self.endpoints.values().flat_map(|endpoint| endpoint.addresses.iter().copied());
                Ready::of(all.collect::<BTreeSet<_>>().into_iter(), ttl) // one address may have two names
            }
            Some(Service::ExternalName(_) | Service::Unreadable) | None => Ready::default(),
        };
    }

    pub(crate) fn service(&self) -> Option<&Service> {
        self.service.as_ref()
    }

    /// The ready endpoints by label.
    pub(crate) fn endpoints(&self) -> &BTreeMap<String, Endpoint> {
        &self.endpoints
    }

    pub(super) fn is_empty(&self) -> bool {
        self.service.is_none() && self.slices.is_empty()
    }

    pub(super) fn set_service(&mut self, service: Option<Service>) -> bool {
        let changed = self.service != service;
        self.service = service;
        changed
    }

    pub(super) fn set_slice(&mut self, name: &str, slice: Option<Slice>) -> bool {
        if self.slices.get(name).map(Arc::as_ref) == slice.as_ref() {
            return false;
        }
        match slice {
            Some(slice) => self.slices.insert(name.to_owned(), Arc::new(slice)),
            None => self.slices.remove(name),
        };
        self.endpoints = Arc::new(merge(self.slices.values()));
        true
    }

    /// Every address of the Service and its endpoints with the name it points back to.
    pub(super) fn pointers(&self, dotted: &str) -> BTreeSet<(IpAddr, Pointer)> {
        let own = match &self.service {
            None | Some(Service::ExternalName(_) | Service::Unreadable) => return BTreeSet::new(),
            Some(Service::ClusterIp { addresses, .. }) => addresses.as_slice(),
            Some(Service::Headless) => &[],
        };
        let of_service = own.iter().map(|address| (*address, Pointer::Service(dotted.to_owned())));
        let of_endpoints = self.endpoints.iter().flat_map(|(label, endpoint)| {
            let pointer = Pointer::Endpoint(dotted.to_owned(), label.clone());
            endpoint.addresses.iter().map(move |address| (*address, pointer.clone()))
        });
        of_service.chain(of_endpoints).collect()
    }
}

fn merge<'a>(slices: impl Iterator<Item = &'a Arc<Slice>>) -> BTreeMap<String, Endpoint> {
    let mut merged: BTreeMap<String, Endpoint> = BTreeMap::new();
    for slice in slices {
        for (hostname, addresses) in &slice.endpoints {
            for address in addresses {
                let label =
                    hostname.as_ref().map_or_else(|| dashed(*address), |name| name.to_ascii_lowercase());
                let endpoint = merged.entry(label).or_default();
                endpoint.addresses.insert(*address);
                endpoint.ports.extend(slice.ports.iter().cloned());
            }
        }
    }
    merged
}
