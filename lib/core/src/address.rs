//! Addresses as Netkeel carries them, and as old Kubernetes objects may spell them.

use std::net::Ipv4Addr;

pub use netkeel_dataplane_common::Address;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_canonical_addresses_of_old_objects_are_read() {
        assert_eq!(parse_ipv4("010.096.000.001"), Some(Ipv4Addr::new(10, 96, 0, 1)));
        assert_eq!(parse_ipv4("::ffff:10.96.0.1"), Some(Ipv4Addr::new(10, 96, 0, 1)));
        for bad in ["", "10.96.0", "10.96.0.1.2", "10.96.0.256", "10.96.0.+1", "None", "fd00::1"] {
            assert_eq!(parse_ipv4(bad), None, "{bad}");
        }
    }
}
