//! A pod's link: a veth pair whose pod side has a /32 or a /128 address or both, a default route of each family through an on-link gateway that nobody
//! has to answer for, and whose host side has the pod's route. Both ends know each other's MAC address for good.

mod message;
pub mod seen;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use netkeel_core::{address::Addresses, ipam::Owner};

use super::{
    Error, address, name,
    netlink::{Change, Rtnetlink},
    shaper,
};
use crate::{bandwidth::Bandwidth, sysctl};

/// The gateway that every pod sees; a permanent neighbour entry answers for it.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The same for IPv6, `fe80::1`.
pub const GATEWAY_IPV6: Ipv6Addr =
    Ipv6Addr::from_octets(netkeel_dataplane_common::frame::discovery::GATEWAY.0);
/// `rtm_protocol` of every route that is ours.
pub const PROTOCOL: u8 = 0x6e;

/// A link that both sides have brought up has its carrier long before this time.
const CARRIER: Duration = Duration::from_millis(200);

/// Everything that makes one pod's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodVeth {
    /// Name on the host.
    pub host_name: String,
    /// Name in the pod.
    pub pod_name: String,
    pub host_mac: [u8; 6],
    pub pod_mac: [u8; 6],
    /// The pod's addresses, one at least.
    pub addresses: Addresses,
    /// The addresses from which the node itself talks to the pod; without one of a family Linux takes that of any interface.
    pub source: Addresses,
    /// MTU of both sides, bytes.
    pub mtu: u32,
    /// Limits on what is sent to the pod and on what it sends.
    pub bandwidth: Bandwidth,
}

impl PodVeth {
    /// The link of `owner`.
    #[must_use]
    pub fn new(owner: &Owner, addresses: Addresses, mtu: u32) -> Self {
        let (host_mac, pod_mac) = name::macs(owner);
        let (host_name, pod_name) = (name::host_side(owner), owner.interface.clone());
        let (source, bandwidth) = (Addresses::default(), Bandwidth::default());
        Self { host_name, pod_name, host_mac, pod_mac, addresses, source, mtu, bandwidth }
    }

    /// Makes the pair, both sides down, the pod side in the namespace of `netns`. Gives the host side's index.
    ///
    /// # Errors
    /// What the kernel says, `EEXIST` where a side's name is taken.
    pub fn create(&self, host: &mut Rtnetlink, netns: BorrowedFd<'_>) -> Result<u32, Error> {
        let what = format!("make veth {} with {} in the pod", self.host_name, self.pod_name);
        host.apply(vec![Change::create(what, message::pair(self, netns.as_raw_fd()))])?;
        seen::link(host, &self.host_name)?.map(|link| link.index).ok_or_else(|| vanished(&self.host_name))
    }

    /// Brings the pod side up with its address and routes.
    ///
    /// # Errors
    /// The first step that the kernel refused.
    pub fn configure_pod(&self, pod: &mut Rtnetlink) -> Result<(), Error> {
        let link = seen::link(pod, &self.pod_name)?.ok_or_else(|| vanished(&self.pod_name))?;
        let in_pod = |what: &str| format!("{what} in the pod of {}", self.host_name);
        let mut changes: Vec<_> = self.queue_in_pod(link.index).into_iter().collect();
        changes.extend([
            Change::change(in_pod("bring lo up"), message::up(message::LOOPBACK)),
            Change::change(in_pod("bring the link up"), message::up(link.index)),
        ]);
        for ip in self.addresses.iter() {
            let gateway = gateway(ip);
            changes.extend([
                Change::put(in_pod(&format!("set {ip}")), address::add(link.index, ip)),
                Change::put(
                    in_pod("set the gateway's MAC"),
                    message::neighbour(link.index, gateway, self.host_mac),
                ),
            ]);
            if gateway.is_ipv4() {
                // A link-local gateway is on the link by itself.
                changes.push(Change::put(
                    in_pod("set the gateway's route"),
                    message::link_route(link.index, gateway, None),
                ));
            }
            changes.push(Change::put(
                in_pod("set the default route"),
                message::default_route(link.index, gateway),
            ));
        }
        pod.apply(changes)
    }

    /// Brings the host side up with the pod's route. Where no interface has the route's source any more, it has none.
    ///
    /// # Errors
    /// The first step that the kernel refused, or a setting that cannot be written.
    pub fn configure_host(&self, host: &mut Rtnetlink, index: u32, settings: &Path) -> Result<(), Error> {
        sysctl::converge(settings, &self.host_name, sysctl::POD)?;
        let on = |what: &str| format!("{what} {}", self.host_name);
        let mut changes: Vec<_> = self.queue_on_host(index).into_iter().collect();
        changes.push(Change::change(on("bring up"), message::up(index)));
        for ip in self.addresses.iter() {
            changes
                .push(Change::put(on("set the pod's MAC on"), message::neighbour(index, ip, self.pod_mac)));
        }
        host.apply(changes)?;
        self.addresses.iter().try_for_each(|ip| {
            let route =
                |source| Change::put(on("set the pod's route on"), message::link_route(index, ip, source));
            let source = self.source.like(ip);
            match host.apply(vec![route(source)]) {
                Err(error) if error.errno() == Some(nix::libc::EINVAL) && source.is_some() => {
                    host.apply(vec![route(None)])
                }
                done => done,
            }
        })
    }

    /// The host side's queue, which limits what is sent to the pod; it is there before anything can be sent.
    fn queue_on_host(&self, index: u32) -> Option<Change> {
        let limit = self.bandwidth.ingress?;
        let what = format!("what is sent to the pod over {} to {limit}", self.host_name);
        Some(shaper::put(&what, index, &limit.bucket(self.mtu)))
    }

    /// The pod side's queue, which limits what the pod sends.
    fn queue_in_pod(&self, index: u32) -> Option<Change> {
        let limit = self.bandwidth.egress?;
        let what = format!("what the pod of {} sends to {limit}", self.host_name);
        Some(shaper::put(&what, index, &limit.bucket(self.mtu)))
    }

    /// Waits until the host side, which came up before its peer, can send: the kernel queues nothing on it until
    /// it has noticed its carrier, a little later and by itself (`linkwatch`, Linux 6.18); what is sent before is lost.
    ///
    /// # Errors
    /// What the kernel says, or that the link is gone. A kernel that takes too long is not waited for.
    pub fn await_host(&self, host: &mut Rtnetlink) -> Result<(), Error> {
        let since = Instant::now();
        while !seen::link(host, &self.host_name)?.ok_or_else(|| vanished(&self.host_name))?.operational {
            if since.elapsed() > CARRIER {
                tracing::warn!(
                    link = self.host_name,
                    "the link has no carrier yet; its first packets may be lost"
                );
                break;
            }
            thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }
}

/// The gateway of the family of this address.
#[must_use]
pub const fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(GATEWAY),
        IpAddr::V6(_) => IpAddr::V6(GATEWAY_IPV6),
    }
}

fn vanished(name: &str) -> Error {
    Error::Vanished { name: name.to_owned() }
}

/// Removes a link with its peer, routes and neighbours; one that is not there is fine. Takes about 18 ms (RCU).
///
/// # Errors
/// What the kernel says.
pub fn delete(host: &mut Rtnetlink, index: u32) -> Result<(), Error> {
    let removed = host.apply(vec![Change::change(format!("remove link {index}"), message::removed(index))]);
    removed.or_else(|error| if error.errno() == Some(nix::libc::ENODEV) { Ok(()) } else { Err(error) })
}

/// Removes the host's route to a pod, so that nothing more is sent to it; one that is not there is fine.
///
/// # Errors
/// What the kernel says.
pub fn delete_route(host: &mut Rtnetlink, index: u32, address: IpAddr) -> Result<(), Error> {
    let what = format!("remove the route to {address}");
    let removed = host.apply(vec![Change::change(what, message::link_route_removed(index, address))]);
    removed.or_else(|error| match error.errno() {
        Some(nix::libc::ESRCH | nix::libc::ENODEV) => Ok(()),
        _ => Err(error),
    })
}
