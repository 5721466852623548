//! Addresses of the test cluster, in each family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::IpFamily;

/// The bridge that joins everything.
pub(crate) const FABRIC: Both = Both::new([172, 30, 0, 254], [0xfd00, 0x30, 0, 0, 0, 0, 0, 0xfe]);
/// The host outside the cluster, the nodes' default gateway and resolver.
pub(crate) const OUTSIDE: Both = Both::new([172, 30, 0, 1], [0xfd00, 0x30, 0, 0, 0, 0, 0, 1]);
/// Addresses that only the outside host has: `outside.test`.
pub(crate) const OUTSIDE_SERVER: Both =
    Both::new([198, 51, 100, 10], [0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10]);
/// The Service `kubernetes`: the first of the Services.
pub(super) const API_SERVICE: Both = Both::new([10, 96, 0, 1], [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 1]);
/// Where kubelets expect DNS: the tenth of the Services.
pub(super) const DNS_SERVICE: Both = Both::new([10, 96, 0, 10], [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 10]);
const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];

/// An address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Both {
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

impl Both {
    const fn new(ipv4: [u8; 4], ipv6: [u16; 8]) -> Self {
        Self { ipv4: Ipv4Addr::from_octets(ipv4), ipv6: Ipv6Addr::from_segments(ipv6) }
    }

    /// Those of the families that a cluster has, IPv4 first.
    pub(crate) fn of(self, families: IpFamily) -> Vec<IpAddr> {
        let both = [self.ipv4.into(), self.ipv6.into()];
        both.into_iter().filter(|address| families.has(*address)).collect()
    }

    /// The first of these.
    pub(crate) fn first(self, families: IpFamily) -> IpAddr {
        if families == IpFamily::Ipv6 { self.ipv6.into() } else { self.ipv4.into() }
    }
}

/// The addresses of node `index`, counted from 1.
pub(crate) fn node(index: u8) -> Both {
    Both::new([172, 30, 0, 10 + index], [0xfd00, 0x30, 0, 0, 0, 0, 1, index.into()])
}

/// An address of the fabric with the length of its prefix.
pub(crate) fn on_fabric(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 })
}

/// An address with the length of its own prefix.
pub(super) fn single(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// An address or a name as it is written before a port.
pub(crate) fn before_port(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// The ranges of the Services, as kube-apiserver takes them.
pub(super) fn services(families: IpFamily) -> String {
    match (families, SERVICES) {
        (IpFamily::Ipv4, [ipv4, _]) => ipv4.to_owned(),
        (IpFamily::Ipv6, [_, ipv6]) => ipv6.to_owned(),
        (IpFamily::Dual, both) => both.join(","),
    }
}

/// Every address of the node, for a program to listen at.
pub(super) fn any(families: IpFamily) -> IpAddr {
    match families {
        IpFamily::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        IpFamily::Ipv4 | IpFamily::Dual => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// Addresses separated by commas, as options take them.
pub(super) fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
