//! The rtnetlink messages that a pod's link is made of. Values only.

use std::{net::Ipv4Addr, os::fd::RawFd};

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};

use super::{PROTOCOL, PodVeth};

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

pub(super) fn all_routes() -> RouteNetlinkMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    RouteNetlinkMessage::GetRoute(route)
}

pub(super) fn all_addresses() -> RouteNetlinkMessage {
    let mut address = AddressMessage::default();
    address.header.family = AddressFamily::Inet;
    RouteNetlinkMessage::GetAddress(address)
}

pub(super) fn address(index: u32, address: Ipv4Addr) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 32;
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
    RouteNetlinkMessage::NewAddress(message)
}

/// An entry that is never asked for again.
pub(super) fn neighbour(index: u32, address: Ipv4Addr, mac: [u8; 6]) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    RouteNetlinkMessage::NewNeighbour(message)
}

/// `address/32 dev index scope link`, and `src source`.
pub(super) fn link_route(index: u32, address: Ipv4Addr, source: Option<Ipv4Addr>) -> RouteNetlinkMessage {
    let mut route = to_link(index, address);
    route.attributes.extend(source.map(|source| RouteAttribute::PrefSource(RouteAddress::Inet(source))));
    RouteNetlinkMessage::NewRoute(route)
}

pub(super) fn link_route_removed(index: u32, address: Ipv4Addr) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelRoute(to_link(index, address))
}

fn to_link(index: u32, address: Ipv4Addr) -> RouteMessage {
    let mut route = route(index, RouteScope::Link);
    route.header.destination_prefix_length = 32;
    route.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(address)));
    route
}

/// `default via gateway dev index onlink`.
pub(super) fn default_route(index: u32, gateway: Ipv4Addr) -> RouteNetlinkMessage {
    let mut route = route(index, RouteScope::Universe);
    route.header.flags = RouteFlags::Onlink;
    route.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    RouteNetlinkMessage::NewRoute(route)
}

fn route(index: u32, scope: RouteScope) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Other(PROTOCOL);
    route.header.scope = scope;
    route.header.kind = RouteType::Unicast;
    route.attributes.push(RouteAttribute::Oif(index));
    route
}
