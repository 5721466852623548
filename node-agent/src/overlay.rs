//! The overlay's device: one VXLAN device whose tunnel keys come from the programs on it, carrying the node's own address inside.

mod interfaces;
mod seen;

use std::{net::IpAddr, path::Path};

use netkeel_core::address::Addresses;
use rtnetlink::{
    LinkUnspec, LinkVxlan,
    packet_route::{RouteNetlinkMessage, link::LinkMessage},
};

pub use self::interfaces::{Interface, Interfaces, Underlay};
use self::seen::{Device, Held, addresses, devices};
use crate::{
    link::{
        self, address,
        netlink::{Change, Rtnetlink},
    },
    sysctl::{self, Strayed},
};

/// Name of the device.
pub const DEVICE: &str = "netkeel.vxlan";
/// What the outer headers take of the underlay's MTU, IPv4 underlay: Ethernet 14, IPv4 20, UDP 8, VXLAN 8.
pub const OVERHEAD: u32 = 50;
/// The same over an IPv6 underlay: Ethernet 14, IPv6 40, UDP 8, VXLAN 8.
pub const OVERHEAD_IPV6: u32 = 70;

/// The device as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// UDP port.
    pub port: u16,
    /// Largest inner packet, bytes.
    pub mtu: u32,
    /// The node's addresses on the underlay.
    pub node: Addresses,
    /// The node's own addresses inside the overlay, of each family the first of its first block.
    pub addresses: Addresses,
    /// Some outer packets are IPv6. They carry no checksum, as those over IPv4, which a receiver has to be told.
    pub over_ipv6: bool,
}

/// The device as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converged {
    /// Its index.
    pub index: u32,
    /// Settings that had been changed since the device was made.
    pub strayed: Vec<Strayed>,
}

/// Why there is no overlay.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else's VXLAN device has the port.
    #[error(
        "VXLAN device {device} uses UDP port {port} already: remove it, or choose another port in the ClusterNetwork"
    )]
    Conflict {
        /// The other device.
        device: String,
        /// The port.
        port: u16,
    },
    /// The node's address is on no interface.
    #[error("no interface has the node's address {address}: check the InternalIP of the Node")]
    NoUnderlay {
        /// The address.
        address: IpAddr,
    },
    /// A kernel setting could not be written.
    #[error(transparent)]
    Setting(#[from] sysctl::Error),
    /// What the kernel refused.
    #[error("set up the VXLAN device")]
    Link(#[from] link::Error),
    /// The device went away while it was set up.
    #[error("VXLAN device {DEVICE} vanished while it was set up: who removes it?")]
    Vanished,
}

/// Makes the device what it must be. One that is right is left alone.
/// `settings` is the folder of the kernel's network settings (`/proc/sys/net`).
///
/// # Errors
/// When another VXLAN device has the port, or the kernel refuses.
pub fn converge(net: &mut Rtnetlink, wanted: &Wanted, settings: &Path) -> Result<Converged, Error> {
    let mut found = devices(net)?;
    if let Some(other) =
        found.iter().find(|device| device.name != DEVICE && device.vxlan_port() == Some(wanted.port))
    {
        return Err(Error::Conflict { device: other.name.clone(), port: wanted.port });
    }
    let ours =
        found.iter().position(|device| device.name == DEVICE).map(|position| found.swap_remove(position));
    let ours_before = ours.as_ref().map(|device| device.index);
    let device = match ours {
        Some(device) if device.is_ours(wanted.port, wanted.over_ipv6) => device,
        Some(device) => {
            net.apply(vec![remove_device(device.index)])?;
            create(net, wanted)?
        }
        None => create(net, wanted)?,
    };
    let mut strayed = sysctl::converge(settings, DEVICE, sysctl::OVERLAY)?;
    if ours_before != Some(device.index) {
        strayed.clear();
    }
    adjust(net, &device, wanted)?;
    Ok(Converged { index: device.index, strayed })
}

/// Removes the device; none is no error.
///
/// # Errors
/// When the kernel refuses.
pub fn remove(net: &mut Rtnetlink) -> Result<(), Error> {
    match devices(net)?.into_iter().find(|device| device.name == DEVICE) {
        Some(device) => Ok(net.apply(vec![remove_device(device.index)])?),
        None => Ok(()),
    }
}

/// The device's MAC address: local, and another one on every node, or frames would be dropped as loops.
#[must_use]
pub fn mac(node: &Addresses) -> [u8; 6] {
    match (node.ipv4, node.ipv6) {
        (Some(ipv4), _) => {
            let [a, b, c, d] = ipv4.octets();
            [0x02, 0x6e, a, b, c, d]
        }
        (None, Some(ipv6)) => {
            // FNV-1a, of which five bytes are enough.
            let hash = ipv6.octets().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
            let mut mac = [0x06; 6];
            mac[1..].copy_from_slice(&hash.to_be_bytes()[..5]);
            mac
        }
        (None, None) => [0x02, 0x6e, 0, 0, 0, 0],
    }
}

fn create(net: &mut Rtnetlink, wanted: &Wanted) -> Result<Device, Error> {
    let message = LinkVxlan::new(DEVICE, 0)
        .collect_metadata(true)
        .learning(false)
        .port(wanted.port)
        .mtu(wanted.mtu)
        .udp_zero_csum6_rx(true)
        .address(mac(&wanted.node).to_vec())
        .arp(false)
        .build();
    let refused =
        net.apply(vec![Change::create(format!("make {DEVICE}"), RouteNetlinkMessage::NewLink(message))]);
    match refused {
        Err(error) if matches!(error.errno(), Some(nix::libc::EEXIST | nix::libc::EADDRINUSE)) => {
            return Err(Error::Conflict { device: "of another program".to_owned(), port: wanted.port });
        }
        other => other?,
    }
    devices(net)?.into_iter().find(|device| device.name == DEVICE).ok_or(Error::Vanished)
}

/// Sets what can be changed without making the device anew, where it differs.
fn adjust(net: &mut Rtnetlink, device: &Device, wanted: &Wanted) -> Result<(), Error> {
    let mut changes = Vec::new();
    let mac = mac(&wanted.node);
    if !(device.up && device.no_arp && device.mtu == wanted.mtu && device.mac == mac) {
        let message = LinkUnspec::new_with_index(device.index)
            .mtu(wanted.mtu)
            .address(mac.to_vec())
            .arp(false)
            .up()
            .build();
        changes.push(Change::change(format!("bring {DEVICE} up"), RouteNetlinkMessage::SetLink(message)));
    }
    let held: Vec<_> = addresses(net)?.into_iter().filter(|held| held.index == device.index).collect();
    for wanted in wanted.addresses.iter().filter(|wanted| !held.iter().any(|held| held.is_single(*wanted))) {
        let message = address::add(device.index, wanted);
        changes.push(Change::create(format!("set {wanted} on {DEVICE}"), message));
    }
    if changes.is_empty() { Ok(()) } else { Ok(net.apply(changes)?) }
}

/// Removes addresses from the device that are neither wanted nor among `former`. Routes from there must be others by now: Linux drops
/// them with the address.
///
/// # Errors
/// When the kernel refuses.
pub fn tidy(net: &mut Rtnetlink, index: u32, wanted: &Wanted, former: &[IpAddr]) -> Result<(), Error> {
    let kept: Vec<IpAddr> = wanted.addresses.iter().chain(former.iter().copied()).collect();
    let held = addresses(net)?.into_iter().filter(|held| held.index == index);
    let remove = |held: Held| {
        let message = address::remove(index, held.address, held.prefix);
        Change::change(format!("remove {} from {DEVICE}", held.address), message)
    };
    let changes: Vec<_> =
        held.filter(|held| !kept.iter().any(|kept| held.is_single(*kept))).map(remove).collect();
    if changes.is_empty() { Ok(()) } else { Ok(net.apply(changes)?) }
}

fn remove_device(index: u32) -> Change {
    let mut message = LinkMessage::default();
    message.header.index = index;
    Change::change(format!("remove {DEVICE}"), RouteNetlinkMessage::DelLink(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_another_local_mac() {
        let of = |texts: &[&str]| mac(&Addresses::of(texts.iter().map(|text| text.parse().unwrap())));
        assert_eq!(of(&["172.18.0.2"]), [0x02, 0x6e, 172, 18, 0, 2]);
        assert_eq!(of(&["172.18.0.2", "fd00::2"]), of(&["172.18.0.2"]), "IPv4 counts where there is some");
        let macs: std::collections::HashSet<_> =
            (0..1000).map(|number| of(&[&format!("fd00:18::{number:x}")])).collect();
        assert_eq!(macs.len(), 1000);
        let all = macs.into_iter().chain([of(&["172.18.0.2"])]);
        assert!(all.into_iter().all(|mac| mac[0] & 3 == 2), "unicast and locally administered");
    }

    #[test]
    fn a_conflict_says_who_has_the_port_and_what_to_do() {
        let error = Error::Conflict { device: "flannel.1".to_owned(), port: 8472 };
        assert!(
            error.to_string().starts_with("VXLAN device flannel.1 uses UDP port 8472 already: remove it")
        );
    }
}
