//! What the kernel holds of pods' links, read back.

use std::{collections::HashMap, net::Ipv4Addr};

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    address::AddressAttribute,
    link::{LinkAttribute, LinkFlags, LinkMessage, State},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol},
};

use super::{PROTOCOL, message};
use crate::link::{Error, name, netlink::Rtnetlink};

/// A link that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    pub up: bool,
    /// Whether packets can leave: both sides are up and the kernel has given the link its queue.
    pub operational: bool,
}

/// The link called `name`, if there is one.
///
/// # Errors
/// What the kernel says, other than that there is none.
pub fn link(socket: &mut Rtnetlink, name: &str) -> Result<Option<Link>, Error> {
    match socket.get(&format!("look for link {name}"), message::named(name)) {
        Ok(answer) => Ok(read_link(&answer)),
        Err(error) if error.errno() == Some(nix::libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All host sides of pods.
///
/// # Errors
/// What the kernel says.
pub fn host_links(socket: &mut Rtnetlink) -> Result<HashMap<String, Link>, Error> {
    let links = socket.dump("list links", message::all_links())?;
    let ours = links.iter().filter_map(read_link).filter(|link| name::is_host_side(&link.name));
    Ok(ours.map(|link| (link.name.clone(), link)).collect())
}

/// A route of ours to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRoute {
    /// Index of the link that it goes to.
    pub link: u32,
    /// Its preferred source.
    pub source: Option<Ipv4Addr>,
}

/// Routes of ours to single addresses.
///
/// # Errors
/// What the kernel says.
pub fn pod_routes(socket: &mut Rtnetlink) -> Result<HashMap<Ipv4Addr, PodRoute>, Error> {
    let routes = socket.dump("list routes", message::all_routes())?;
    Ok(routes.iter().filter_map(read_pod_route).collect())
}

/// Whether any link has this address.
///
/// # Errors
/// What the kernel says.
pub fn has_address(socket: &mut Rtnetlink, wanted: Ipv4Addr) -> Result<bool, Error> {
    let found = socket.dump("list addresses", message::all_addresses())?;
    let local = AddressAttribute::Local(wanted.into());
    let is_it = |message: &RouteNetlinkMessage| matches!(message, RouteNetlinkMessage::NewAddress(address) if address.attributes.contains(&local));
    Ok(found.iter().any(is_it))
}

/// IPv4 addresses of the link with this index.
///
/// # Errors
/// What the kernel says.
pub fn addresses(socket: &mut Rtnetlink, index: u32) -> Result<Vec<Ipv4Addr>, Error> {
    let found = socket.dump("list addresses", message::all_addresses())?;
    let of_link = found.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewAddress(address) if address.header.index == index => Some(address.attributes),
        _ => None,
    });
    let local = of_link.flatten().filter_map(|attribute| match attribute {
        AddressAttribute::Local(std::net::IpAddr::V4(address)) => Some(address),
        _ => None,
    });
    Ok(local.collect())
}

/// Where the default route goes: gateway and link.
///
/// # Errors
/// What the kernel says.
pub fn default_route(socket: &mut Rtnetlink) -> Result<Option<(Ipv4Addr, u32)>, Error> {
    let routes = socket.dump("list routes", message::all_routes())?;
    Ok(routes.iter().find_map(|message| {
        let route = unwrap_route(message).filter(|route| route.header.destination_prefix_length == 0)?;
        Some((gateway(route)?, oif(route)?))
    }))
}

fn read_link(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(LinkMessage { header, attributes, .. }) = message else { return None };
    let up = header.flags.contains(LinkFlags::Up);
    let mut link =
        Link { index: header.index, name: String::new(), mac: None, mtu: 0, up, operational: false };
    for attribute in attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::OperState(state) => link.operational = *state == State::Up,
            _ => {}
        }
    }
    Some(link)
}

fn read_pod_route(message: &RouteNetlinkMessage) -> Option<(Ipv4Addr, PodRoute)> {
    let route = unwrap_route(message)?;
    let header = &route.header;
    if header.protocol != RouteProtocol::Other(PROTOCOL) || header.destination_prefix_length != 32 {
        return None;
    }
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    let source = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    Some((destination?, PodRoute { link: oif(route)?, source }))
}

fn unwrap_route(message: &RouteNetlinkMessage) -> Option<&RouteMessage> {
    if let RouteNetlinkMessage::NewRoute(route) = message { Some(route) } else { None }
}

fn oif(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn gateway(route: &RouteMessage) -> Option<Ipv4Addr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })
}
