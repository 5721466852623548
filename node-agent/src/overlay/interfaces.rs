//! The node's interfaces, as far as packets to and from other nodes go over them.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use netkeel_core::address::Addresses;

use super::{
    DEVICE, Error,
    seen::{addresses, devices},
};
use crate::{
    link::{name::is_host_side, netlink::Rtnetlink},
    reach::Subnet,
};

/// The interface that holds the node's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Its name.
    pub device: String,
    /// Its MTU, bytes.
    pub mtu: u32,
}

impl Underlay {
    /// What should be known of pods' packets of up to `mtu` bytes with outer headers of `overhead` bytes: those that do not fit
    /// leave in fragments or not at all, and nobody is told.
    #[must_use]
    pub fn too_small_for(&self, mtu: u32, overhead: u32) -> Option<String> {
        let fits = self.mtu.saturating_sub(overhead);
        (mtu > fits).then(|| {
            format!(
                "packets of {mtu} bytes do not fit into {} of this node, whose MTU is {}: set spec.podNetwork.mtu of \
                 ClusterNetwork default to Auto, or to {fits} or less",
                self.device, self.mtu
            )
        })
    }
}

/// An interface with addresses that is neither the overlay's nor a pod's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Whether it is up and its frames have Ethernet headers, which the programs read.
    pub neighbours: bool,
    /// Its addresses, with the prefixes of their subnets.
    pub nets: Vec<IpNet>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces(Vec<Interface>);

impl Interfaces {
    /// Those of this network namespace.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn read(net: &mut Rtnetlink) -> Result<Self, Error> {
        let held = addresses(net)?;
        let nets = |index| {
            let of = held.iter().filter(move |held| held.index == index);
            of.filter_map(|held| IpNet::new(held.address, held.prefix).ok()).collect()
        };
        let others = devices(net)?.into_iter().filter(|it| it.name != DEVICE && !is_host_side(&it.name));
        let interfaces = others.map(|it| Interface {
            nets: nets(it.index),
            index: it.index,
            name: it.name,
            mtu: it.mtu,
            neighbours: it.up && it.ethernet,
        });
        Ok(Self(interfaces.filter(|it| !it.nets.is_empty()).collect()))
    }

    /// The one with the node's first address.
    ///
    /// # Errors
    /// When none has it.
    pub fn underlay(&self, node: &Addresses) -> Result<Underlay, Error> {
        let address = node.first().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let found = self.0.iter().find(|it| it.has(address));
        found.map(|it| Underlay { device: it.name.clone(), mtu: it.mtu }).ok_or(Error::NoUnderlay { address })
    }

    /// The subnets on which other nodes may be next hops.
    #[must_use]
    pub fn subnets(&self) -> Vec<Subnet> {
        let of =
            |it: &Interface| it.nets.iter().map(|&net| Subnet { ifindex: it.index, net }).collect::<Vec<_>>();
        self.0.iter().filter(|it| it.neighbours).flat_map(of).collect()
    }

    /// Index and name of those over which other nodes' packets come: with an address of the node, and `also` these.
    #[must_use]
    pub fn carriers(&self, node: &Addresses, also: &BTreeSet<u32>) -> Vec<(u32, String)> {
        let is_one = |it: &&Interface| {
            it.neighbours && (also.contains(&it.index) || node.iter().any(|address| it.has(address)))
        };
        self.0.iter().filter(is_one).map(|it| (it.index, it.name.clone())).collect()
    }

    /// The smallest MTU of these, by index; bytes.
    #[must_use]
    pub fn smallest_mtu(&self, of: &BTreeSet<u32>) -> Option<u32> {
        self.0.iter().filter(|it| of.contains(&it.index)).map(|it| it.mtu).min()
    }
}

impl Interface {
    fn has(&self, address: IpAddr) -> bool {
        self.nets.iter().any(|net| net.addr() == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_that_leaves_no_room_for_the_headers_is_told_with_one_that_does() {
        let underlay = Underlay { device: "eth0".to_owned(), mtu: 1500 };
        assert_eq!(underlay.too_small_for(1450, 50), None);
        let told = underlay.too_small_for(1451, 50).unwrap();
        assert!(
            told.contains("1451 bytes do not fit into eth0") && told.contains("to 1450 or less"),
            "{told}"
        );
        assert_eq!(underlay.too_small_for(1500, 0), None);
        assert!(underlay.too_small_for(1501, 0).is_some());
        assert!(Underlay { mtu: 40, ..underlay }.too_small_for(576, 50).is_some());
    }

    #[test]
    fn packets_come_over_what_has_a_nodes_address_or_leads_to_one_and_has_frames() {
        let interface = |index: u32, neighbours, nets: &[&str]| Interface {
            index,
            name: format!("eth{index}"),
            mtu: 1500 - index,
            neighbours,
            nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
        };
        let all = Interfaces(vec![
            interface(1, false, &["127.0.0.1/8"]),
            interface(2, true, &["192.0.2.1/24"]),
            interface(3, true, &["fd00:18::1/64"]),
            interface(4, true, &["198.51.100.1/24"]),
            interface(5, false, &["203.0.113.1/24"]),
        ]);
        let node = Addresses::of(["192.0.2.1", "fd00:18::1"].map(|text| text.parse().unwrap()));
        let names = |also: &[u32]| {
            let carriers = all.carriers(&node, &also.iter().copied().collect());
            carriers.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!((&*names(&[]), &*names(&[4, 5])), ("eth2 eth3", "eth2 eth3 eth4"));
        assert_eq!(all.subnets().iter().map(|subnet| subnet.ifindex).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(all.underlay(&node).unwrap(), Underlay { device: "eth2".to_owned(), mtu: 1498 });
        assert_eq!(all.smallest_mtu(&BTreeSet::from([2, 4])), Some(1496));
        assert_eq!(all.smallest_mtu(&BTreeSet::new()), None);
    }
}
