//! Names as the cluster zone sees them: lower-case labels below the cluster domain, the label of an
//! endpoint without a host name, and reverse names turned back into addresses.
//! Pure text and addresses; nothing here knows Services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;
use ipnet::IpNet;

/// What a question's name is, seen from the cluster domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Below (or at) the cluster domain: the lower-case labels left of it, leftmost first.
    Inside(Vec<String>),
    /// Below the cluster domain, with a label that no object of Kubernetes can have.
    Impossible,
    /// The reverse name of one address.
    Reverse(IpAddr),
    /// The reverse name of a network, in which the names of its addresses lie.
    ReverseNetwork(IpNet),
    /// Below such a name, with a label that no reverse name has.
    BelowReverse(IpNet),
    /// Any other name.
    Elsewhere,
}

/// Says where `name` lies relative to `domain`, whatever the case of its letters.
pub(crate) fn place(name: &Name, domain: &Name) -> Place {
    if domain.zone_of(name) {
        let below = name.iter().len() - domain.iter().len(); // `num_labels` leaves out a leading `*`
        return name
            .iter()
            .take(below)
            .map(label)
            .collect::<Option<_>>()
            .map_or(Place::Impossible, Place::Inside);
    }
    reverse(name).unwrap_or(Place::Elsewhere)
}

fn label(raw: &[u8]) -> Option<String> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let text = std::str::from_utf8(raw).ok().filter(|_| raw.iter().all(plain))?;
    Some(text.to_ascii_lowercase())
}

/// The address whose whole reverse name this is.
pub(crate) fn address(name: &Name) -> Option<IpAddr> {
    match reverse(name) {
        Some(Place::Reverse(address)) => Some(address),
        _ => None,
    }
}

/// What a name below `in-addr.arpa` or `ip6.arpa` stands for (RFC 1035 section 3.5, RFC 3596 section 2.5).
fn reverse(name: &Name) -> Option<Place> {
    let labels: Vec<&[u8]> = name.iter().collect();
    let (head, [zone, arpa]) = labels.split_last_chunk()?;
    if !arpa.eq_ignore_ascii_case(b"arpa") {
        return None;
    }
    let digits = |parse: fn(&[u8]) -> Option<u8>| head.iter().rev().map_while(move |label| parse(label));
    let (address, known, full) = if zone.eq_ignore_ascii_case(b"in-addr") {
        let mut octets = [0; 4];
        let known = octets.iter_mut().zip(digits(octet)).map(|(into, from)| *into = from).count();
        (IpAddr::from(octets), known, known * 8)
    } else if zone.eq_ignore_ascii_case(b"ip6") {
        let nibbles: Vec<u128> = digits(nibble).map(u128::from).take(32).collect();
        let bits =
            nibbles.iter().zip(1_u32..).fold(0, |bits, (nibble, count)| bits | nibble << (128 - 4 * count));
        (Ipv6Addr::from(bits).into(), nibbles.len(), nibbles.len() * 4)
    } else {
        return None;
    };
    let network = IpNet::new(address, u8::try_from(full).ok()?).ok()?;
    Some(match (known == head.len(), network.prefix_len() == network.max_prefix_len()) {
        (true, true) => Place::Reverse(address),
        (true, false) => Place::ReverseNetwork(network),
        (false, _) => Place::BelowReverse(network),
    })
}

fn octet(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok()?;
    text.parse().ok().filter(|number: &u8| number.to_string() == text)
}

fn nibble(label: &[u8]) -> Option<u8> {
    let [digit] = *label else { return None };
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The address that the name of a pod is made of: `10-1-2-3` → `10.1.2.3`, `fd00--1` → `fd00::1`.
pub(crate) fn undashed(label: &str) -> Option<IpAddr> {
    let dots = label.matches('-').count() == 3 && !label.contains("--");
    let address: IpAddr = label.replace('-', if dots { "." } else { ":" }).parse().ok()?;
    Some(address.to_canonical())
}

/// The label of an endpoint that has no host name: `10.1.2.3` → `10-1-2-3`, `fd00::` → `fd00--0`.
pub(crate) fn dashed(address: IpAddr) -> String {
    let mut text = address.to_string().replace(['.', ':'], "-");
    if text.ends_with('-') {
        text.push('0');
    }
    if text.starts_with('-') {
        text.insert(0, '0');
    }
    text
}

/// The address that has this very label: the other way round. One address has one.
pub(crate) fn undashed_label(label: &str) -> Option<IpAddr> {
    if !label.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return None;
    }
    let v4 = |label: &str| label.replace('-', ".").parse::<Ipv4Addr>().ok();
    if let Some(address) = v4(label) {
        return Some(address.into());
    }
    let mapped = label.strip_prefix("0--ffff-").and_then(v4).map(|address| address.to_ipv6_mapped());
    let address = mapped.or_else(|| label.replace('-', ":").parse().ok()).map(IpAddr::V6)?;
    (dashed(address) == label).then_some(address)
}

/// Names as texts in what is kept on disk.
pub(crate) mod names {
    use hickory_proto::rr::Name;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::{Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(names: &[Name], to: S) -> Result<S::Ok, S::Error> {
        names.iter().map(Name::to_ascii).collect::<Vec<_>>().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Name>, D::Error> {
        let texts: Vec<String> = Vec::deserialize(from)?;
        texts.iter().map(|text| Name::from_ascii(text).map_err(D::Error::custom)).collect()
    }
}

/// A name, or none, as text in what is kept on disk.
pub(crate) mod optional {
    use hickory_proto::rr::Name;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::{Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(crate) fn serialize<S: Serializer>(name: &Option<Name>, to: S) -> Result<S::Ok, S::Error> {
        name.as_ref().map(Name::to_ascii).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Name>, D::Error> {
        let text: Option<String> = Option::deserialize(from)?;
        text.map(|text| Name::from_ascii(text).map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn inside(labels: &[&str]) -> Place {
        Place::Inside(labels.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_are_placed_whatever_their_case() {
        let domain = name("cluster.local.");
        let cases = [
            ("cluster.local.", inside(&[])),
            ("Web.SHOP.svc.ClusteR.LocaL.", inside(&["web", "shop", "svc"])),
            ("_http._tcp.web.shop.svc.cluster.local.", inside(&["_http", "_tcp", "web", "shop", "svc"])),
            ("a\\.b.shop.svc.cluster.local.", Place::Impossible),
            ("*.cluster.local.", Place::Impossible),
            ("notcluster.local.", Place::Elsewhere),
            ("local.", Place::Elsewhere),
            (".", Place::Elsewhere),
            ("1.0.96.10.in-addr.ARPA.", Place::Reverse("10.96.0.1".parse().unwrap())),
            ("0.96.10.in-addr.arpa.", Place::ReverseNetwork("10.96.0.0/24".parse().unwrap())),
            ("in-addr.arpa.", Place::ReverseNetwork("0.0.0.0/0".parse().unwrap())),
            ("0.0.D.f.IP6.arpa.", Place::ReverseNetwork("fd00::/16".parse().unwrap())),
            ("256.0.96.10.in-addr.arpa.", Place::BelowReverse("10.96.0.0/24".parse().unwrap())),
            ("01.0.96.10.in-addr.arpa.", Place::BelowReverse("10.96.0.0/24".parse().unwrap())),
            ("x.1.0.96.10.in-addr.arpa.", Place::BelowReverse("10.96.0.1/32".parse().unwrap())),
            ("1.1.0.96.10.in-addr.arpa.", Place::BelowReverse("10.96.0.1/32".parse().unwrap())),
            ("00.d.f.ip6.arpa.", Place::BelowReverse("fd00::/8".parse().unwrap())),
            ("arpa.", Place::Elsewhere),
            ("e164.arpa.", Place::Elsewhere),
        ];
        for (text, expected) in cases {
            assert_eq!(place(&name(text), &domain), expected, "{text}");
        }
    }

    #[test]
    fn every_address_survives_the_way_through_its_reverse_name() {
        for text in ["10.96.0.10", "0.0.0.0", "255.255.255.255", "::", "fd00:10:96::a", "2001:db8::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(reverse(&Name::from(address)), Some(Place::Reverse(address)));
        }
    }

    #[test]
    fn labels_lead_back_to_their_address_alone() {
        for address in [
            "10.1.2.3",
            "fd00::",
            "fd00::1",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "1:2:3:4:5:6:7:8",
            "1:0:0:4::8",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(undashed_label(&dashed(address)), Some(address), "{address}");
        }
        for label in [
            "10-1-2-03",
            "10-1-2",
            "fd00-0-0-0-0-0-0-1",
            "FD00--1",
            "fd00--",
            "web",
            "",
            "-",
            "0--ffff-a00-1",
        ] {
            assert_eq!(undashed_label(label), None, "{label}");
        }
    }

    #[test]
    fn dashed_addresses_are_valid_labels() {
        for (address, label) in [
            ("172.0.0.2", "172-0-0-2"),
            ("5678:abcd::1", "5678-abcd--1"),
            ("fd00::", "fd00--0"),
            ("::1", "0--1"),
        ] {
            assert_eq!(dashed(address.parse().unwrap()), label);
            assert_eq!(undashed(label), Some(address.parse().unwrap()));
        }
    }

    #[test]
    fn names_of_pods_are_addresses_or_nothing() {
        let v4 = Some("10.0.0.1".parse().unwrap());
        for (label, address) in [
            ("10-0-0-1", v4),
            ("0--ffff-a00-1", v4), // the same address, as IPv6 maps it
            ("fd00-0-0-0-0-0-0-1", Some("fd00::1".parse().unwrap())),
            ("10-0-0-01", None),
            ("10-0-0-256", None),
            ("10-0-0", None),
            ("fd00--1--2", None),
            ("web", None),
        ] {
            assert_eq!(undashed(label), address, "{label}");
        }
    }
}
