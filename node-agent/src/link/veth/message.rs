//! The rtnetlink messages that a pod's link is made of. Values only.

use std::{net::IpAddr, os::fd::RawFd};

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};

use super::{PROTOCOL, PodVeth};
use crate::link::address::{bits, family, to_route};

/// Index of `lo` in every namespace.
pub(super) const LOOPBACK: u32 = 1;

pub(super) fn pair(veth: &PodVeth, netns: RawFd) -> RouteNetlinkMessage {
    let mut pod = side(&veth.pod_name, veth.pod_mac, veth.mtu);
    pod.attributes.push(LinkAttribute::NetNsFd(netns));
    let mut host = side(&veth.host_name, veth.host_mac, veth.mtu);
    host.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(pod))),
    ]));
    RouteNetlinkMessage::NewLink(host)
}

fn side(name: &str, mac: [u8; 6], mtu: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::Address(mac.to_vec()),
    ];
    link
}

pub(super) fn up(index: u32) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(link)
}

pub(super) fn removed(index: u32) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    RouteNetlinkMessage::DelLink(link)
}

pub(super) fn named(name: &str) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    RouteNetlinkMessage::GetLink(link)
}

pub(super) fn all_links() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessage::default())
}

/// Routes of both families.
pub(super) fn all_routes() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetRoute(RouteMessage::default())
}

/// Addresses of both families.
pub(super) fn all_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// An entry that is never asked for again.
pub(super) fn neighbour(index: u32, address: IpAddr, mac: [u8; 6]) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        }),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    RouteNetlinkMessage::NewNeighbour(message)
}

/// `address dev index scope link` of that address alone, and `src source`.
pub(super) fn link_route(index: u32, address: IpAddr, source: Option<IpAddr>) -> RouteNetlinkMessage {
    let mut route = to_link(index, address);
    let source = source.map(|source| RouteAttribute::PrefSource(to_route(source)));
    route.attributes.extend(source);
    RouteNetlinkMessage::NewRoute(route)
}

pub(super) fn link_route_removed(index: u32, address: IpAddr) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelRoute(to_link(index, address))
}

fn to_link(index: u32, address: IpAddr) -> RouteMessage {
    let mut route = route(index, family(address), RouteScope::Link);
    route.header.destination_prefix_length = bits(address);
    route.attributes.push(RouteAttribute::Destination(address.into()));
    route
}

/// `default via gateway dev index`; of IPv4 `onlink`.
pub(super) fn default_route(index: u32, gateway: IpAddr) -> RouteNetlinkMessage {
    let mut route = route(index, family(gateway), RouteScope::Universe);
    if gateway.is_ipv4() {
        route.header.flags = RouteFlags::Onlink;
    }
    route.attributes.push(RouteAttribute::Gateway(gateway.into()));
    RouteNetlinkMessage::NewRoute(route)
}

fn route(index: u32, family: AddressFamily, scope: RouteScope) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = family;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Other(PROTOCOL);
    route.header.scope = scope;
    route.header.kind = RouteType::Unicast;
    route.attributes.push(RouteAttribute::Oif(index));
    route
}
