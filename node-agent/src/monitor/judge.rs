//! Which notices may mean that something of ours is gone or changed. Pure: what exists is remembered here, and a notice that
//! tells nothing new stirs nothing.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    ops::{BitOr, BitOrAssign},
};

use ipnet::IpNet;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::{RouteAttribute, RouteMessage, RouteProtocol},
};

use super::Notice;
use crate::{
    host_port,
    link::{address, name::is_host_side, veth::PROTOCOL},
    masquerade, overlay,
};

/// What has to be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stir {
    /// Device, addresses, routes to blocks, settings, masquerading.
    pub network: bool,
    /// Routes to pods, whether their links are up, and host ports: the kernel lists these at once, so that a look costs little however
    /// often pods come and go.
    pub routes: bool,
    /// All of pods' links: settings and programs too, link by link.
    pub pods: bool,
}

impl Stir {
    /// Nothing.
    pub const NONE: Self = Self { network: false, routes: false, pods: false };
    /// Everything.
    pub const ALL: Self = Self { network: true, routes: true, pods: true };
    const NETWORK: Self = Self { network: true, ..Self::NONE };
    const ROUTES: Self = Self { routes: true, ..Self::NONE };
    const PODS: Self = Self { pods: true, ..Self::NONE };

    fn when(self, so: bool) -> Self {
        if so { self } else { Self::NONE }
    }
}

impl BitOr for Stir {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            network: self.network || other.network,
            routes: self.routes || other.routes,
            pods: self.pods || other.pods,
        }
    }
}

impl BitOrAssign for Stir {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// Whose a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// The host side of a pod's link.
    Pod,
    /// The overlay.
    Overlay,
    /// Somebody else's; it may carry packets to other nodes.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Device {
    whose: Whose,
    up: bool,
    mtu: u32,
    mac: Vec<u8>,
}

/// What exists, and so what is news.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    devices: HashMap<u32, Device>,
    addresses: HashSet<(u32, IpAddr)>,
    /// Destinations of routes of ours.
    routes: HashSet<IpNet>,
}

impl Judge {
    /// One that knows what these notices tell.
    #[must_use]
    pub fn of(notices: &[Notice]) -> Self {
        let mut this = Self::default();
        for notice in notices {
            this.judge(notice);
        }
        this
    }

    /// What has to be looked at after this.
    pub fn judge(&mut self, notice: &Notice) -> Stir {
        match notice {
            Notice::Route { message, replaces } => self.message(message, *replaces),
            Notice::Setting { ifindex, forwarding, rp_filter } => {
                self.setting(*ifindex, *forwarding, *rp_filter)
            }
            Notice::FilterGone { ifindex } => Stir::PODS.when(self.whose(*ifindex) == Some(Whose::Pod)),
            Notice::Table { name } => {
                Stir::NETWORK.when(name == masquerade::TABLE) | Stir::ROUTES.when(name == host_port::TABLE)
            }
        }
    }

    fn message(&mut self, message: &RouteNetlinkMessage, replaces: bool) -> Stir {
        use RouteNetlinkMessage as Message;
        match message {
            // Ports of a bridge are told as links of that family.
            Message::NewLink(link) | Message::DelLink(link)
                if link.header.interface_family == AddressFamily::Bridge =>
            {
                Stir::NONE
            }
            Message::NewLink(link) => self.link(link),
            Message::DelLink(link) => self.link_gone(link.header.index),
            Message::NewAddress(address) => {
                let new = held(address).is_some_and(|held| self.addresses.insert(held));
                self.address(address).when(new)
            }
            Message::DelAddress(address) => {
                if let Some(held) = held(address) {
                    self.addresses.remove(&held);
                }
                self.address(address)
            }
            Message::NewRoute(route) => self.route(route, replaces),
            Message::DelRoute(route) => self.route_gone(route),
            _ => Stir::NONE,
        }
    }

    fn link(&mut self, link: &LinkMessage) -> Stir {
        let device = device(link);
        let (whose, up, mtu) = (device.whose, device.up, device.mtu);
        let before = self.devices.insert(link.header.index, device.clone());
        match whose {
            Whose::Overlay => Stir::NETWORK.when(before.as_ref() != Some(&device)),
            Whose::Pod => Stir::ROUTES.when(before.is_some_and(|before| before.up && !up)),
            // Linux drops the routes over a device that goes down.
            Whose::Other => {
                Stir::NETWORK.when(before.is_some_and(|before| before.mtu != mtu || before.up != up))
            }
        }
    }

    /// A pod's link does not come back: its namespace ended, or the pod has lost it for good.
    fn link_gone(&mut self, index: u32) -> Stir {
        self.addresses.retain(|(of, _)| *of != index);
        let gone = self.devices.remove(&index);
        Stir::NETWORK.when(gone.is_some_and(|device| device.whose == Whose::Overlay))
    }

    /// Linux drops, without a word, all routes whose preferred source goes: pods' too.
    fn address(&self, address: &AddressMessage) -> Stir {
        (Stir::NETWORK | Stir::ROUTES).when(self.whose(address.header.index) != Some(Whose::Pod))
    }

    fn route(&mut self, route: &RouteMessage, replaces: bool) -> Stir {
        let Some(destination) = destination(route) else { return Stir::NONE };
        if is_ours(route) {
            self.routes.insert(destination);
            return Stir::NONE;
        }
        // The route that was replaced is not told apart.
        let taken = replaces && self.routes.contains(&destination);
        look_at(destination).when(taken)
    }

    fn route_gone(&mut self, route: &RouteMessage) -> Stir {
        let destination = destination(route).filter(|_| is_ours(route));
        destination.map_or(Stir::NONE, |destination| {
            self.routes.remove(&destination);
            look_at(destination)
        })
    }

    fn setting(&self, ifindex: i32, forwarding: Option<bool>, rp_filter: Option<i32>) -> Stir {
        const ALL: i32 = -1;
        let whose = if ifindex == ALL {
            Some(Whose::Other)
        } else {
            u32::try_from(ifindex).ok().and_then(|index| self.whose(index))
        };
        let stopped = forwarding == Some(false);
        match whose {
            // Whoever made it is about to set it up.
            None => Stir::NONE,
            Some(Whose::Pod) => Stir::PODS.when(stopped || rp_filter.is_some_and(|filter| filter != 1)),
            Some(Whose::Overlay) => {
                Stir::NETWORK.when(stopped || rp_filter.is_some_and(|filter| filter != 2))
            }
            Some(Whose::Other) => Stir::NETWORK.when(stopped),
        }
    }

    fn whose(&self, index: u32) -> Option<Whose> {
        self.devices.get(&index).map(|device| device.whose)
    }
}

/// A route to one address is a pod's.
fn look_at(destination: IpNet) -> Stir {
    if destination.prefix_len() == destination.max_prefix_len() { Stir::ROUTES } else { Stir::NETWORK }
}

fn is_ours(route: &RouteMessage) -> bool {
    route.header.protocol == RouteProtocol::Other(PROTOCOL)
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => address::of_route(address),
        _ => None,
    });
    IpNet::new(address?, route.header.destination_prefix_length).ok()
}

fn held(address: &AddressMessage) -> Option<(u32, IpAddr)> {
    Some((address.header.index, address::local(address)?))
}

fn device(link: &LinkMessage) -> Device {
    let up = link.header.flags.contains(LinkFlags::Up);
    let mut device = Device { whose: Whose::Other, up, mtu: 0, mac: Vec::new() };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) if name == overlay::DEVICE => device.whose = Whose::Overlay,
            LinkAttribute::IfName(name) if is_host_side(name) => device.whose = Whose::Pod,
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::Address(mac) => device.mac.clone_from(mac),
            _ => {}
        }
    }
    device
}

#[cfg(test)]
mod tests;
