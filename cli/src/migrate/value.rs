//! Values of a Corefile: zones, times, addresses.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// A zone as names are compared: lower case, without the dot at its end. The root is empty.
pub(super) fn zone(text: &str) -> String {
    text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase()
}

/// Whether a name lies in a zone.
pub(super) fn within(name: &str, zone: &str) -> bool {
    let below = name.strip_suffix(zone);
    zone.is_empty() || below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
}

/// Whether a zone holds names of addresses.
pub(super) fn is_reverse(zone: &str) -> bool {
    ["in-addr.arpa", "ip6.arpa"].iter().any(|arpa| within(zone, arpa))
}

/// Whether the API takes a zone or name: what the schema of domains says.
pub(super) fn is_domain(text: &str) -> bool {
    let inner = |letter: u8| matches!(letter, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=253).contains(&text.len())
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// The zones of a word such as `corp.example`, `.` or `10.0.0.0/22`: the last are several.
pub(super) fn zones(text: &str) -> Vec<String> {
    match text.parse::<IpNet>() {
        Ok(net) => reverse(net.trunc()),
        Err(_) => vec![zone(text)],
    }
}

/// What a block serves: its protocol, port and zones.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) protocol: String,
    pub(super) port: Option<u16>,
    pub(super) zones: Vec<String>,
}

/// Reads a key of a block such as `.:53`, `tls://corp.example`, `10.0.0.0/24:5353` or `:53`.
pub(super) fn served(key: &str) -> Served {
    let (protocol, rest) = key.split_once("://").unwrap_or(("dns", key));
    let numbered = rest.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = numbered.map_or((rest, None), |(host, port)| (host, Some(port)));
    Served { protocol: protocol.to_ascii_lowercase(), port, zones: zones(host) }
}

/// Reverse zones of a block of addresses: one where it ends at a dot, else one for each part that does.
fn reverse(net: IpNet) -> Vec<String> {
    let (bits, arpa) = match net {
        IpNet::V4(_) => (8, "in-addr.arpa"),
        IpNet::V6(_) => (4, "ip6.arpa"),
    };
    let length = net.prefix_len().div_ceil(bits) * bits;
    let parts = net.subnets(length).into_iter().flatten();
    parts.map(|part| reversed(&labels(part.network()), usize::from(length / bits), arpa)).collect()
}

fn reversed(labels: &[String], count: usize, arpa: &str) -> String {
    let labels = labels.iter().take(count).rev().map(String::as_str);
    labels.chain([arpa]).collect::<Vec<_>>().join(".")
}

fn labels(address: IpAddr) -> Vec<String> {
    match address {
        IpAddr::V4(v4) => v4.octets().iter().map(u8::to_string).collect(),
        IpAddr::V6(v6) => nibbles(v6),
    }
}

fn nibbles(address: Ipv6Addr) -> Vec<String> {
    address
        .octets()
        .iter()
        .flat_map(|octet| [octet >> 4, octet & 15])
        .map(|nibble| format!("{nibble:x}"))
        .collect()
}

/// A time as Go writes it (`1h30m`, `1.5s`, `500ms`), in milliseconds.
pub(super) fn milliseconds(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-6),
        ("us", 1e-3),
        ("µs", 1e-3),
        ("ms", 1.0),
        ("s", 1000.0),
        ("m", 60_000.0),
        ("h", 3_600_000.0),
    ];
    if text == "0" {
        return Some(0.0);
    }
    let mut rest = text;
    let mut total = None;
    while !rest.is_empty() {
        let number = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (value, behind) = rest.split_at(number);
        let unit = behind.find(|letter: char| letter.is_ascii_digit()).unwrap_or(behind.len());
        let (name, behind) = behind.split_at(unit);
        let (_, scale) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        total = Some(total.unwrap_or(0.0) + value.parse::<f64>().ok()? * scale);
        rest = behind;
    }
    total
}

/// A whole number of units of that time, where the API takes it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number from 0 to the largest, which fits"
)]
pub(super) fn whole(value: f64, smallest: u32, largest: u32) -> Option<u32> {
    let rounded = value.ceil();
    (rounded >= f64::from(smallest) && rounded <= f64::from(largest)).then_some(rounded as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protocol, port and zones.
    type Expected = (&'static str, Option<u16>, &'static [&'static str]);

    #[test]
    fn keys_of_blocks_are_read() {
        let cases: [(&str, Expected); 12] = [
            (".:53", ("dns", Some(53), &[""])),
            (":53", ("dns", Some(53), &[""])),
            (".", ("dns", None, &[""])),
            ("Corp.Example.", ("dns", None, &["corp.example"])),
            ("tls://corp.example:853", ("tls", Some(853), &["corp.example"])),
            ("https://.", ("https", None, &[""])),
            ("10.0.0.0/24", ("dns", None, &["0.0.10.in-addr.arpa"])),
            ("10.0.0.0/24:5353", ("dns", Some(5353), &["0.0.10.in-addr.arpa"])),
            ("10.96.0.0/15", ("dns", None, &["96.10.in-addr.arpa", "97.10.in-addr.arpa"])),
            ("2001:db8::/32", ("dns", None, &["8.b.d.0.1.0.0.2.ip6.arpa"])),
            ("fd00::/7:53", ("dns", Some(53), &["c.f.ip6.arpa", "d.f.ip6.arpa"])),
            ("10.0.0.1", ("dns", None, &["10.0.0.1"])),
        ];
        for (key, (protocol, port, zones)) in cases {
            let zones = zones.iter().map(ToString::to_string).collect();
            assert_eq!(served(key), Served { protocol: protocol.to_owned(), port, zones }, "{key}");
        }
        assert_eq!(zones("0.0.0.0/0"), ["in-addr.arpa"]);
    }

    #[test]
    fn times_are_those_of_go() {
        let cases = [
            ("5s", Some(5000.0)),
            ("1h30m", Some(5_400_000.0)),
            ("1.5s", Some(1500.0)),
            ("500ms", Some(500.0)),
            ("0", Some(0.0)),
            ("", None),
            ("5", None),
            ("s", None),
            ("-1s", None),
            ("1.2.3s", None),
            ("5 s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(milliseconds(text), expected, "{text}");
        }
    }

    #[test]
    fn domains_are_those_that_the_api_takes() {
        for good in ["a", "corp.example", "_tcp.x-y.z", &"a".repeat(63), "168.192.in-addr.arpa"] {
            assert!(is_domain(good), "{good}");
        }
        for bad in ["", ".", "a.", "A", "*.a", "-a", "a-", "a..b", "bücher.example", &"a".repeat(64)] {
            assert!(!is_domain(bad), "{bad}");
        }
        assert!(within("a.b", "b") && within("b", "b") && within("b", "") && !within("ab", "b"));
    }
}
