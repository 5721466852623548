//! Addresses of both families in rtnetlink messages. Values only.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    route::RouteAddress,
};

/// The family as netlink numbers it.
#[must_use]
pub fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Bits of an address of this family.
#[must_use]
pub fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Sets an address without a subnet. An IPv6 one may be used at once: nobody is asked whether another has it.
#[must_use]
pub fn add(index: u32, address: IpAddr) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewAddress(message(index, address, bits(address)))
}

/// Removes an address.
#[must_use]
pub fn remove(index: u32, address: IpAddr, prefix: u8) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelAddress(message(index, address, prefix))
}

fn message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = prefix;
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    if address.is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

/// The address that a message is about; none for link-local ones of IPv6, which the kernel gives to links by itself.
#[must_use]
pub fn of(message: &AddressMessage) -> Option<IpAddr> {
    local(message).filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()))
}

/// The address that a message is about, whatever it is.
#[must_use]
pub fn local(message: &AddressMessage) -> Option<IpAddr> {
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    // IPv6 says which one is local only where the other end has another.
    local.or(address)
}

/// The address in a route's attribute.
#[must_use]
pub fn of_route(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// An address as an attribute of a route.
#[must_use]
pub fn to_route(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}
