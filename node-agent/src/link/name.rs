//! What follows from a pod's owner alone: the name of the host side and both MAC addresses. Nothing needs to be stored,
//! and a repeated ADD makes the same link again.

use netkeel_core::ipam::Owner;
use sha2::{Digest, Sha256};

/// How names of our host sides begin.
pub const PREFIX: &str = "nk";

/// Name of the host side of `owner`'s link: `nk` and 12 hex digits.
#[must_use]
pub fn host_side(owner: &Owner) -> String {
    let digest = digest(owner);
    digest[..6].iter().fold(PREFIX.to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// Whether a link's name is one of ours.
#[must_use]
pub fn is_host_side(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// MAC addresses of the host side and of the pod side, locally administered. They are set, not left to the kernel:
/// it marks random ones as such, and udev then replaces them a moment later.
#[must_use]
pub fn macs(owner: &Owner) -> ([u8; 6], [u8; 6]) {
    let digest = digest(owner);
    (local(&digest[8..14]), local(&digest[14..20]))
}

fn local(bytes: &[u8]) -> [u8; 6] {
    let mut mac = [0; 6];
    mac.copy_from_slice(bytes);
    mac[0] = mac[0] & 0xfc | 0x02;
    mac
}

fn digest(owner: &Owner) -> [u8; 32] {
    Sha256::new().chain_update(&owner.container_id).chain_update(&owner.interface).finalize().into()
}

/// A MAC address as text.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(id: &str) -> Owner {
        Owner { container_id: id.to_owned(), interface: "eth0".to_owned() }
    }

    #[test]
    fn a_name_fits_an_interface_and_is_the_digest_of_id_and_interface() {
        let name = host_side(&owner("a"));
        // printf aeth0 | sha256sum
        assert_eq!(name, "nk4a800c8f5e75");
        assert!(name.len() < 16 && is_host_side(&name));
        assert!(!is_host_side("nk0") && !is_host_side("eth0"));
    }

    #[test]
    fn macs_are_local_unicast_and_differ() {
        let (host, pod) = macs(&owner("a"));
        assert_ne!(host, pod);
        assert!([host, pod].iter().all(|mac| mac[0] & 3 == 2));
        assert_eq!(mac_text([2, 0, 0xab, 0, 0, 1]), "02:00:ab:00:00:01");
    }
}
