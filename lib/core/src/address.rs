//! Addresses as Netkeel carries them, and as old Kubernetes objects may spell them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

pub use netkeel_dataplane_common::Address;

/// A family of addresses. Prints as `IPv4` or `IPv6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which addresses are named.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// That of a network.
    #[must_use]
    pub fn of_net(net: &IpNet) -> Self {
        Self::of(net.addr())
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// At most one address of each family: a pod's, or a node's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// The IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

impl Addresses {
    /// The first of each family among these.
    #[must_use]
    pub fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        addresses.into_iter().fold(Self::default(), |all, address| match address {
            IpAddr::V4(v4) => Self { ipv4: all.ipv4.or(Some(v4)), ..all },
            IpAddr::V6(v6) => Self { ipv6: all.ipv6.or(Some(v6)), ..all },
        })
    }

    /// All of them, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }

    /// The first, IPv4 where there is one.
    #[must_use]
    pub fn first(&self) -> Option<IpAddr> {
        self.iter().next()
    }

    /// That of the family of `other`.
    #[must_use]
    pub fn like(&self, other: IpAddr) -> Option<IpAddr> {
        self.iter().find(|address| address.is_ipv4() == other.is_ipv4())
    }

    /// Where two nodes meet on the underlay, given the address of the other one: over IPv4 where both have it.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Option<IpAddr> {
        other.iter().find(|address| self.like(*address).is_some())
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.iter().any(|own| own == address)
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.iter().map(|address| address.to_string()).collect();
        f.write_str(&all.join(", "))
    }
}

/// Reads an IPv4 address the way old Kubernetes objects may carry it: leading zeros are decimal (KEP-4858).
#[must_use]
pub fn parse_ipv4(text: &str) -> Option<Ipv4Addr> {
    if let Some(v4) = text.strip_prefix("::ffff:").or_else(|| text.strip_prefix("::FFFF:")) {
        return parse_ipv4(v4);
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit()))?;
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

/// Reads an address of either family as Kubernetes objects may carry it; a v4-mapped one is IPv4.
#[must_use]
pub fn parse(text: &str) -> Option<IpAddr> {
    parse_ipv4(text).map(IpAddr::V4).or_else(|| text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_of_a_family_is_kept_ipv4_first() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let all = Addresses::of(["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2"].map(ip));
        assert_eq!(all.to_string(), "10.0.0.1, fd00::1");
        assert_eq!((all.first(), all.like(ip("::"))), (Some(ip("10.0.0.1")), Some(ip("fd00::1"))));
        assert!(all.contains(ip("fd00::1")) && !all.contains(ip("fd00::2")));
        assert_eq!(Addresses::default().first(), None);
    }

    #[test]
    fn nodes_meet_over_ipv4_where_both_have_it() {
        let of = |texts: &[&str]| Addresses::of(texts.iter().map(|text| text.parse().unwrap()));
        let (four, six, both) = (of(&["10.0.0.1"]), of(&["fd00::1"]), of(&["10.0.0.2", "fd00::2"]));
        for (own, other, met) in [
            (four, both, Some("10.0.0.2")),
            (both, both, Some("10.0.0.2")),
            (six, both, Some("fd00::2")),
            (both, six, Some("fd00::1")),
            (four, six, None),
        ] {
            assert_eq!(own.meet(&other), met.map(|text| text.parse().unwrap()), "{own} and {other}");
        }
    }

    #[test]
    fn non_canonical_addresses_of_old_objects_are_read() {
        assert_eq!(parse_ipv4("010.096.000.001"), Some(Ipv4Addr::new(10, 96, 0, 1)));
        assert_eq!(parse_ipv4("::ffff:10.96.0.1"), Some(Ipv4Addr::new(10, 96, 0, 1)));
        assert_eq!(parse("fd00::00a"), Some("fd00::a".parse().unwrap()));
        assert_eq!(parse("::ffff:a60:1"), Some(Ipv4Addr::new(10, 96, 0, 1).into()));
        assert_eq!((parse("010.96.0.1"), parse("fd00::g")), (parse("10.96.0.1"), None));
        for bad in ["", "10.96.0", "10.96.0.1.2", "10.96.0.256", "10.96.0.+1", "None", "fd00::1"] {
            assert_eq!(parse_ipv4(bad), None, "{bad}");
        }
    }
}
