//! `SERVICES`: the addresses that are translated to backends. A hash.

use crate::{Address, pod::map_abi};

/// Name of the map, without the layout version.
pub const NAME: &str = "SERVICES";
/// Service ports of the whole cluster.
pub const MAX: u32 = 131_072;

/// Transport protocols that a service can have; the value is the IP protocol number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
}

impl Protocol {
    /// From an IP protocol number; `None` is what no service is looked up for.
    #[must_use]
    #[inline(always)]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// What clients ask for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The service's address.
    pub address: Address,
    /// The service's port, network byte order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
}
map_abi!(Frontend: 20);

impl Frontend {
    /// The key of a service; `port` in host byte order.
    #[must_use]
    pub const fn new(address: Address, port: u16, protocol: Protocol) -> Self {
        Self { address, port: port.to_be(), protocol: protocol as u8, reserved: 0 }
    }
}

/// Where a service's backends are.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// Number of the service, first half of the key of its backends. Chosen by the agent.
    pub id: u32,
    /// Number of backends; their slots are `0..count`. Zero: clients are refused.
    pub count: u32,
}
map_abi!(Service: 8);

/// The slot that a client with this random number gets; `None` when the service has no backends.
#[must_use]
#[inline(always)]
pub const fn slot(random: u32, count: u32) -> Option<u32> {
    random.checked_rem(count)
}

/// The number of a socket for [`slot`], always the same one. Cookies are counted up, and every other one may be
/// of the same kind: hence the upper half of a product with a large odd number, which spreads any of them.
#[must_use]
#[inline(always)]
pub const fn spread(cookie: u64) -> u32 {
    (cookie.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_spread_whatever_the_pattern_of_their_cookies() {
        for (step, count) in [(1_u64, 3_u32), (2, 2), (3, 3), (4, 2), (4096, 4)] {
            let mut seen = [0_u32; 4];
            for cookie in (0..400).map(|number| 1000 + number * step) {
                seen[slot(spread(cookie), count).unwrap() as usize] += 1;
            }
            let fair = 400 / count;
            let seen = &seen[..count as usize];
            assert!(seen.iter().all(|&share| share.abs_diff(fair) <= fair / 4), "{step}: {seen:?}");
        }
    }

    #[test]
    fn every_slot_is_chosen_and_none_beyond() {
        let mut seen = [0_u32; 3];
        for random in 0..300 {
            seen[slot(random, 3).unwrap() as usize] += 1;
        }
        assert_eq!(seen, [100; 3]);
        assert_eq!(slot(7, 0), None);
    }

    #[test]
    fn a_frontend_carries_its_port_in_network_byte_order() {
        let frontend = Frontend::new(Address::v4([10, 96, 0, 10]), 53, Protocol::Udp);
        assert_eq!(frontend.port.to_ne_bytes(), [0, 53]);
        assert_eq!(frontend.protocol, 17);
    }

    #[test]
    fn only_tcp_and_udp_are_looked_up() {
        assert_eq!(Protocol::from_number(6), Some(Protocol::Tcp));
        assert_eq!(Protocol::from_number(17), Some(Protocol::Udp));
        assert_eq!(Protocol::from_number(1), None);
    }
}
