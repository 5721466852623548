//! Names as the cluster zone sees them: lower-case labels below the cluster domain, the label of an
//! endpoint without a host name, and reverse names turned back into addresses.
//! Pure text and addresses; nothing here knows Services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

/// What a question's name is, seen from the cluster domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Below (or at) the cluster domain: the lower-case labels left of it, leftmost first.
    Inside(Vec<String>),
    /// Below the cluster domain, with a label that no object of Kubernetes can have.
    Impossible,
    /// The reverse name of one address.
    Reverse(IpAddr),
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
    reverse(name).map_or(Place::Elsewhere, Place::Reverse)
}

fn label(raw: &[u8]) -> Option<String> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let text = std::str::from_utf8(raw).ok().filter(|_| raw.iter().all(plain))?;
    Some(text.to_ascii_lowercase())
}

/// The address that a complete name below `in-addr.arpa` or `ip6.arpa` stands for.
pub(crate) fn reverse(name: &Name) -> Option<IpAddr> {
    let labels: Vec<&[u8]> = name.iter().collect();
    let (tail, head) = (labels.get(labels.len().checked_sub(2)?..)?, &labels[..labels.len() - 2]);
    if !tail[1].eq_ignore_ascii_case(b"arpa") {
        return None;
    }
    match (head.len(), tail[0]) {
        (4, zone) if zone.eq_ignore_ascii_case(b"in-addr") => reverse_v4(head),
        (32, zone) if zone.eq_ignore_ascii_case(b"ip6") => reverse_v6(head),
        _ => None,
    }
}

fn reverse_v4(labels: &[&[u8]]) -> Option<IpAddr> {
    let mut octets = [0; 4];
    for (octet, label) in octets.iter_mut().rev().zip(labels) {
        let text = std::str::from_utf8(label).ok()?;
        *octet = text.parse().ok().filter(|number: &u8| number.to_string() == text)?;
    }
    Some(Ipv4Addr::from(octets).into())
}

fn reverse_v6(labels: &[&[u8]]) -> Option<IpAddr> {
    let mut bits = 0_u128;
    for label in labels.iter().rev() {
        let [digit] = **label else { return None };
        bits = bits << 4 | u128::from(char::from(digit).to_digit(16)?);
    }
    Some(Ipv6Addr::from(bits).into())
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
            ("0.96.10.in-addr.arpa.", Place::Elsewhere),
            ("256.0.96.10.in-addr.arpa.", Place::Elsewhere),
            ("01.0.96.10.in-addr.arpa.", Place::Elsewhere),
        ];
        for (text, expected) in cases {
            assert_eq!(place(&name(text), &domain), expected, "{text}");
        }
    }

    #[test]
    fn every_address_survives_the_way_through_its_reverse_name() {
        for text in ["10.96.0.10", "0.0.0.0", "255.255.255.255", "::", "fd00:10:96::a", "2001:db8::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(reverse(&Name::from(address)), Some(address));
        }
        assert_eq!(reverse(&name("ip6.arpa.")), None);
        assert_eq!(reverse(&name("ab.0.96.10.ip6.arpa.")), None);
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
}
