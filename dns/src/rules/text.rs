//! Names as text that rules compare: lower case, without the dot at the end. A dot or another byte within a label that is no plain
//! character is written as its number, `\046`, so that a dot in the text always stands between labels.

use std::fmt::Write;

use hickory_proto::rr::Name;

use crate::wire::HEADER;

/// `name` as text; empty for the root.
pub(super) fn text(name: &Name) -> String {
    let mut text = String::with_capacity(name.len());
    for label in name {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            match byte {
                b'.' | b'\\' => escape(&mut text, *byte),
                _ if byte.is_ascii_graphic() => text.push(char::from(byte.to_ascii_lowercase())),
                _ => escape(&mut text, *byte),
            }
        }
    }
    text
}

fn escape(text: &mut String, byte: u8) {
    let _ = write!(text, "\\{byte:03}"); // writing to a String does not fail
}

/// The fully qualified name that such a text stands for; `None` where it is too long for one or has an empty label.
pub(super) fn name(text: &str) -> Option<Name> {
    let labels = text.split('.').map(unescape).collect::<Option<Vec<_>>>()?;
    let mut name = Name::from_labels(labels.iter().map(Vec::as_slice)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn unescape(label: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (vec![], label);
    while let Some((plain, more)) = rest.split_once('\\') {
        bytes.extend(plain.bytes());
        bytes.push(more.get(..3)?.parse().ok()?);
        rest = more.get(3..)?;
    }
    bytes.extend(rest.bytes());
    Some(bytes)
}

/// [`text`] of the question in a packet; `None` where it has labels that are not plain.
pub(super) fn of_packet(packet: &[u8]) -> Option<String> {
    let (mut text, mut at) = (String::with_capacity(64), HEADER);
    loop {
        let length = usize::from(*packet.get(at)?);
        if length == 0 {
            return Some(text);
        }
        if !text.is_empty() {
            text.push('.');
        }
        for byte in packet.get(at + 1..=at + length)? {
            let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            text.push(char::from(plain.then_some(*byte)?.to_ascii_lowercase()));
        }
        at += length + 1;
    }
}

/// The part of `name` before `zone` and the dot between them, empty for the zone itself; `None` where it does not lie there. The zone `.` has all names.
pub(super) fn before<'a>(name: &'a str, zone: &str) -> Option<&'a str> {
    match name.strip_suffix(zone) {
        _ if zone == "." => Some(name),
        Some("") => Some(""),
        Some(head) => head.strip_suffix('.'),
        None => None,
    }
}

/// Whether `name` is `zone` or a name below it.
pub(super) fn lies_in(name: &str, zone: &str) -> bool {
    before(name, zone).is_some()
}

/// The zone's name, fully qualified. Schemas let nothing pass that is none; that would be the root here, which has nothing above it.
pub(super) fn zone_name(zone: &str) -> Name {
    let mut name = Name::from_ascii(zone).unwrap_or_default();
    name.set_fqdn(true);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_within_a_label_is_no_end_of_a_label() {
        let labels =
            |labels: &[&str]| Name::from_labels(labels.iter().map(|label| label.as_bytes())).unwrap();
        for (asked, expected) in [
            (labels(&["WWW", "Example", "com"]), "www.example.com"),
            (labels(&["a.b", "example"]), "a\\046b.example"),
            (labels(&["a b\\", "example"]), "a\\032b\\092.example"),
            (labels(&["*", "x_y", "example"]), "*.x_y.example"),
        ] {
            assert_eq!(text(&asked), expected);
            assert_eq!(name(expected), Some(asked));
        }
        assert_eq!((text(&Name::root()).as_str(), name("")), ("", None));
        for impossible in ["a..b", ".a", "a.", "a\\04", "a\\300b", &"x".repeat(64), &["y"; 128].join(".")] {
            assert_eq!(name(impossible), None, "{impossible}");
        }
        assert!(!lies_in("a\\046b.example", "b.example"));
    }

    #[test]
    fn zones_end_at_labels() {
        for (name, zone, expected) in [
            ("a.b.example", "b.example", Some("a")),
            ("b.example", "b.example", Some("")),
            ("xb.example", "b.example", None),
            ("example", "b.example", None),
            ("b.example", ".", Some("b.example")),
            ("", ".", Some("")),
            ("", "example", None),
        ] {
            assert_eq!(before(name, zone), expected, "{name} {zone}");
        }
    }
}
