//! Routes to the blocks of other nodes, over the overlay or to the node as the next hop, and none for what of the own blocks is not in use.
//! Only routes with our protocol number are ever changed or removed; those of pods' links are not looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use ipnet::IpNet;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};

use crate::link::{
    Error, address,
    netlink::{Change, Rtnetlink},
    veth::PROTOCOL,
};

/// Where a block's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over the overlay's device, from the node's own overlay address.
    Overlay {
        /// Index of the device.
        ifindex: u32,
        /// Preferred source, of the block's family.
        source: IpAddr,
    },
    /// To the block's node as the next hop, from the node's own overlay address: the same source whichever way is taken, so that connections
    /// of the node's processes go on when it changes.
    Direct {
        /// Index of the device on whose subnet the next hop is.
        ifindex: u32,
        /// The next hop, of the block's family.
        gateway: IpAddr,
        /// Preferred source, of the block's family.
        source: IpAddr,
    },
    /// Nowhere: the sender is told at once. Addresses in use have a more specific route.
    Unreachable,
}

/// How many routes were written and removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Routes written.
    pub written: usize,
    /// Routes removed.
    pub removed: usize,
}

/// Makes our routes to blocks exactly these. Writes before it removes.
///
/// # Errors
/// The first route that the kernel refused; `EEXIST` when somebody else has a route to that block.
pub fn converge(net: &mut Rtnetlink, wanted: &BTreeMap<IpNet, Way>) -> Result<Changes, Error> {
    let have = block_routes(net)?;
    let mut changes = Vec::new();
    for (block, way) in wanted.iter().filter(|(block, way)| have.get(block) != Some(way)) {
        let what = format!("set the route to {block}");
        let message = RouteNetlinkMessage::NewRoute(message(*block, *way));
        // Replacing takes the first route to the block, so only our own is ever replaced.
        let change = if have.contains_key(block) { Change::put } else { Change::create };
        changes.push(change(what, message));
    }
    let written = changes.len();
    for (block, way) in have.iter().filter(|(block, _)| !wanted.contains_key(block)) {
        let message = RouteNetlinkMessage::DelRoute(message(*block, *way));
        changes.push(Change::change(format!("remove the route to {block}"), message));
    }
    let removed = changes.len() - written;
    if !changes.is_empty() {
        net.apply(changes)?;
    }
    Ok(Changes { written, removed })
}

/// Removes our routes to blocks. Those of pods' links go with the links.
///
/// # Errors
/// The first route that the kernel refused to remove.
pub fn remove(net: &mut Rtnetlink) -> Result<(), Error> {
    converge(net, &BTreeMap::new()).map(drop)
}

/// What should be known of nodes that are on no subnet of this one, where there is no tunnel. Some are named.
#[must_use]
pub fn unprovided(nodes: &BTreeSet<Arc<str>>) -> Option<String> {
    const NAMED: usize = 3;
    let named: Vec<&str> = nodes.iter().take(NAMED).map(|name| &**name).collect();
    let more = nodes.len() - named.len();
    let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!nodes.is_empty()).then(|| {
        format!(
            "no interface of this node is on a subnet of {}{and_more}, whose pods are reached by the routes that the network has: provide \
             routes to their blocks, or set spec.podNetwork.encapsulation of ClusterNetwork default to VXLANCrossSubnet",
            named.join(", ")
        )
    })
}

/// Our routes to blocks. A route to one address is a pod's, or the kernel's.
fn block_routes(net: &mut Rtnetlink) -> Result<BTreeMap<IpNet, Way>, Error> {
    let found = net.dump("list routes", RouteNetlinkMessage::GetRoute(RouteMessage::default()))?;
    let to_many = |(block, _): &(IpNet, Way)| block.prefix_len() < block.max_prefix_len();
    Ok(found.into_iter().filter_map(block_route).filter(to_many).collect())
}

fn block_route(message: RouteNetlinkMessage) -> Option<(IpNet, Way)> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    if header.protocol != RouteProtocol::Other(PROTOCOL) || header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let (mut destination, mut ifindex, mut gateway, mut source) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = address::of_route(address),
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(address) => gateway = address::of_route(address),
            RouteAttribute::PrefSource(address) => source = address::of_route(address),
            _ => {}
        }
    }
    let block = IpNet::new(destination?, header.destination_prefix_length).ok()?;
    // A route of ours that lacks a part is not as wanted, whatever is wanted.
    let (ifindex, source) = (ifindex.unwrap_or_default(), source.unwrap_or(Ipv4Addr::UNSPECIFIED.into()));
    let way = match (header.kind, gateway) {
        (RouteType::Unreachable, _) => Way::Unreachable,
        (_, Some(gateway)) => Way::Direct { ifindex, gateway, source },
        (_, None) => Way::Overlay { ifindex, source },
    };
    Some((block, way))
}

fn message(block: IpNet, way: Way) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = address::family(block.network());
    route.header.destination_prefix_length = block.prefix_len();
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Other(PROTOCOL);
    route.attributes.push(RouteAttribute::Destination(block.network().into()));
    match way {
        Way::Overlay { ifindex, source } => {
            route.header.kind = RouteType::Unicast;
            route.header.scope = RouteScope::Link;
            route
                .attributes
                .extend([RouteAttribute::Oif(ifindex), RouteAttribute::PrefSource(source.into())]);
        }
        Way::Direct { ifindex, gateway, source } => {
            route.header.kind = RouteType::Unicast;
            route.header.scope = RouteScope::Universe;
            route.attributes.extend([
                RouteAttribute::Oif(ifindex),
                RouteAttribute::Gateway(gateway.into()),
                RouteAttribute::PrefSource(source.into()),
            ]);
        }
        Way::Unreachable => route.header.kind = RouteType::Unreachable,
    }
    route
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_without_a_way_are_named_some_of_them() {
        let told = |count: u32| unprovided(&(0..count).map(|n| Arc::from(format!("n{n}"))).collect());
        assert_eq!(told(0), None);
        let told = |count| told(count).unwrap();
        assert!(told(1).contains("on a subnet of n0, whose pods") && told(1).contains("VXLANCrossSubnet"));
        assert!(told(9).contains("of n0, n1, n2 and 6 more, whose"), "{}", told(9));
    }
}
