//! What the kernel holds of pods' links, read back.

use std::{collections::HashMap, net::IpAddr};

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage, State},
    route::{RouteAttribute, RouteMessage, RouteProtocol},
};

use super::{PROTOCOL, message};
use crate::link::{Error, address, name, netlink::Rtnetlink};

/// A link that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    pub up: bool,
    /// Kind of the queue of what is sent over it, `noqueue` where it has none.
    pub queue: String,
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
    pub source: Option<IpAddr>,
}

/// Routes of ours to single addresses.
///
/// # Errors
/// What the kernel says.
pub fn pod_routes(socket: &mut Rtnetlink) -> Result<HashMap<IpAddr, PodRoute>, Error> {
    let routes = socket.dump("list routes", message::all_routes())?;
    Ok(routes.iter().filter_map(read_pod_route).collect())
}

/// Addresses of all links, without those that the kernel itself gives to links.
///
/// # Errors
/// What the kernel says.
pub fn all_addresses(socket: &mut Rtnetlink) -> Result<Vec<IpAddr>, Error> {
    let found = socket.dump("list addresses", message::all_addresses())?;
    let address = |message: &RouteNetlinkMessage| match message {
        RouteNetlinkMessage::NewAddress(message) => address::of(message),
        _ => None,
    };
    Ok(found.iter().filter_map(address).collect())
}

/// Addresses of the link with this index, without those that the kernel itself gives to links.
///
/// # Errors
/// What the kernel says.
pub fn addresses(socket: &mut Rtnetlink, index: u32) -> Result<Vec<IpAddr>, Error> {
    let found = socket.dump("list addresses", message::all_addresses())?;
    let of_link = found.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewAddress(address) if address.header.index == index => address::of(address),
        _ => None,
    });
    Ok(of_link.collect())
}

/// Where the default routes go: gateway and link.
///
/// # Errors
/// What the kernel says.
pub fn default_routes(socket: &mut Rtnetlink) -> Result<Vec<(IpAddr, u32)>, Error> {
    let routes = socket.dump("list routes", message::all_routes())?;
    let default = routes.iter().filter_map(|message| {
        let route = unwrap_route(message).filter(|route| route.header.destination_prefix_length == 0)?;
        Some((gateway(route)?, oif(route)?))
    });
    Ok(default.collect())
}

fn read_link(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(LinkMessage { header, attributes, .. }) = message else { return None };
    let up = header.flags.contains(LinkFlags::Up);
    let (name, queue) = (String::new(), String::new());
    let mut link = Link { index: header.index, name, mac: None, mtu: 0, up, queue, operational: false };
    for attribute in attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Qdisc(queue) => link.queue.clone_from(queue),
            LinkAttribute::OperState(state) => link.operational = *state == State::Up,
            _ => {}
        }
    }
    Some(link)
}

fn read_pod_route(message: &RouteNetlinkMessage) -> Option<(IpAddr, PodRoute)> {
    let route = unwrap_route(message)?;
    let header = &route.header;
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => address::of_route(address),
        _ => None,
    })?;
    let source = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(address) => address::of_route(address),
        _ => None,
    });
    let single = header.destination_prefix_length == address::bits(destination);
    let ours = header.protocol == RouteProtocol::Other(PROTOCOL) && single;
    Some((destination, PodRoute { link: oif(route)?, source })).filter(|_| ours)
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

fn gateway(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => address::of_route(address),
        _ => None,
    })
}
