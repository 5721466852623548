//! What the kernel has: devices and addresses, as far as the overlay cares.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    address::AddressMessage,
    link::{InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
};

use crate::link::{Error, address, netlink::Rtnetlink};

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    pub(super) mac: Vec<u8>,
    pub(super) up: bool,
    /// Its frames have Ethernet headers.
    pub(super) ethernet: bool,
    pub(super) no_arp: bool,
    vxlan: Option<Vec<InfoVxlan>>,
}

impl Device {
    /// The UDP port, where this is a VXLAN device.
    pub(super) fn vxlan_port(&self) -> Option<u16> {
        self.vxlan.as_ref()?.iter().find_map(|info| match info {
            InfoVxlan::Port(port) => Some(*port),
            _ => None,
        })
    }

    /// Whether it was made as the overlay's device is made; what can be changed later is not looked at.
    pub(super) fn is_ours(&self, port: u16, over_ipv6: bool) -> bool {
        let has = |wanted: &InfoVxlan| self.vxlan.as_ref().is_some_and(|infos| infos.contains(wanted));
        has(&InfoVxlan::CollectMetadata(true))
            && has(&InfoVxlan::Learning(false))
            && has(&InfoVxlan::Port(port))
            && (!over_ipv6 || has(&InfoVxlan::UDPZeroCsumRX(true)))
    }
}

/// An address on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) index: u32,
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
}

impl Held {
    /// Whether this is the address alone, without a subnet.
    pub(super) fn is_single(&self, address: IpAddr) -> bool {
        self.address == address && self.prefix == if address.is_ipv4() { 32 } else { 128 }
    }
}

pub(super) fn devices(net: &mut Rtnetlink) -> Result<Vec<Device>, Error> {
    let found = net.dump("list links", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(found.into_iter().filter_map(device).collect())
}

/// Addresses of both families, without those that the kernel itself gives to links.
pub(super) fn addresses(net: &mut Rtnetlink) -> Result<Vec<Held>, Error> {
    let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let found = net.dump("list addresses", question)?;
    Ok(found.iter().filter_map(held).collect())
}

fn device(message: RouteNetlinkMessage) -> Option<Device> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let flags = message.header.flags;
    let (up, no_arp) = (flags.contains(LinkFlags::Up), flags.contains(LinkFlags::Noarp));
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let mut device = Device { index: message.header.index, up, no_arp, ethernet, ..Device::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name = name,
            LinkAttribute::Mtu(mtu) => device.mtu = mtu,
            LinkAttribute::Address(mac) => device.mac = mac,
            LinkAttribute::LinkInfo(infos) => device.vxlan = infos.into_iter().find_map(vxlan),
            _ => {}
        }
    }
    Some(device)
}

fn vxlan(info: LinkInfo) -> Option<Vec<InfoVxlan>> {
    match info {
        LinkInfo::Data(InfoData::Vxlan(infos)) => Some(infos),
        _ => None,
    }
}

fn held(message: &RouteNetlinkMessage) -> Option<Held> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let address = address::of(message)?;
    Some(Held { index: message.header.index, address, prefix: message.header.prefix_len })
}
