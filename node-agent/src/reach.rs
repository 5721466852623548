//! How another node's pods are reached: through the tunnel, straight to the node as the next hop, or by routes of somebody else. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use netkeel_core::node::Encapsulation;

/// A network that an interface of this node has an address in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Index of the interface.
    pub ifindex: u32,
    /// The address with its prefix.
    pub net: IpNet,
}

/// How another node is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Through the tunnel.
    Tunnel,
    /// As the next hop on a subnet of this node.
    Direct {
        /// Index of the interface on that subnet.
        ifindex: u32,
        /// Address of the node.
        gateway: IpAddr,
    },
    /// As the main routing table says.
    Elsewhere,
}

/// How a node is reached whose address of the packets' family is `gateway`. The tunnel is left only where both nodes are told to: one that is
/// not yet may not let in what comes without it.
#[must_use]
pub fn reach(
    (own, other): (Encapsulation, Encapsulation),
    gateway: Option<IpAddr>,
    subnets: &[Subnet],
) -> Reach {
    if own == Encapsulation::Vxlan || other == Encapsulation::Vxlan {
        return Reach::Tunnel;
    }
    let direct = gateway.and_then(|gateway| Some((gateway, on_link(gateway, subnets)?)));
    match direct {
        Some((gateway, ifindex)) => Reach::Direct { ifindex, gateway },
        None if own == Encapsulation::None => Reach::Elsewhere,
        None => Reach::Tunnel,
    }
}

/// The interface on whose subnet an address is, as the kernel would choose: that of the longest prefix, then the first. An address of this node
/// itself is on none.
fn on_link(address: IpAddr, subnets: &[Subnet]) -> Option<u32> {
    if subnets.iter().any(|subnet| subnet.net.addr() == address) {
        return None;
    }
    let around = subnets.iter().filter(|subnet| subnet.net.contains(&address));
    let longest = around.reduce(
        |best, other| {
            if other.net.prefix_len() > best.net.prefix_len() { other } else { best }
        },
    );
    longest.map(|subnet| subnet.ifindex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Encapsulation::{None as Native, Vxlan, VxlanCrossSubnet as Cross};

    fn subnets() -> Vec<Subnet> {
        let nets = [
            (2, "192.0.2.1/24"),
            (2, "fd00:18::1/64"),
            (3, "192.0.2.129/25"),
            (4, "198.51.100.7/32"),
            (5, "203.0.113.0/31"),
        ];
        nets.map(|(ifindex, net)| Subnet { ifindex, net: net.parse().unwrap() }).into()
    }

    #[test]
    fn a_node_is_the_next_hop_where_both_are_told_to_and_it_is_on_a_subnet() {
        let direct = |ifindex, gateway: &str| Reach::Direct { ifindex, gateway: gateway.parse().unwrap() };
        for (modes, gateway, wanted) in [
            ((Vxlan, Vxlan), Some("192.0.2.2"), Reach::Tunnel),
            ((Cross, Vxlan), Some("192.0.2.2"), Reach::Tunnel),
            ((Vxlan, Native), Some("192.0.2.2"), Reach::Tunnel),
            ((Native, Vxlan), Some("10.0.0.2"), Reach::Tunnel),
            ((Native, Native), Some("192.0.2.2"), direct(2, "192.0.2.2")),
            ((Cross, Cross), Some("192.0.2.2"), direct(2, "192.0.2.2")),
            ((Cross, Native), Some("192.0.2.2"), direct(2, "192.0.2.2")),
            ((Cross, Cross), Some("192.0.2.200"), direct(3, "192.0.2.200")),
            ((Native, Native), Some("fd00:18::2"), direct(2, "fd00:18::2")),
            ((Cross, Cross), Some("fd00:19::2"), Reach::Tunnel),
            ((Native, Native), Some("fd00:19::2"), Reach::Elsewhere),
            ((Cross, Cross), Some("10.0.0.2"), Reach::Tunnel),
            ((Native, Native), Some("10.0.0.2"), Reach::Elsewhere),
            ((Native, Cross), Some("10.0.0.2"), Reach::Elsewhere),
            ((Cross, Native), Some("10.0.0.2"), Reach::Tunnel),
            ((Cross, Cross), None, Reach::Tunnel),
            ((Native, Native), None, Reach::Elsewhere),
            // A subnet of one address has no neighbours, one of two has one.
            ((Cross, Cross), Some("198.51.100.8"), Reach::Tunnel),
            ((Cross, Cross), Some("203.0.113.1"), direct(5, "203.0.113.1")),
            // Two nodes with one address: the kernel would talk to itself.
            ((Cross, Cross), Some("192.0.2.1"), Reach::Tunnel),
            ((Cross, Cross), Some("fd00:18::1"), Reach::Tunnel),
        ] {
            let gateway = gateway.map(|text| text.parse().unwrap());
            assert_eq!(reach(modes, gateway, &subnets()), wanted, "{modes:?} {gateway:?}");
        }
    }
}
