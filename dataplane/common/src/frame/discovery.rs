//! IPv6 neighbour discovery on a pod's link: what a pod may say of itself, and whom it may ask for.

use super::same_mac;
use crate::{Address, Reason, links::Link};

/// Bytes of a solicitation or advertisement without an option.
pub const SHORT_LEN: usize = 24;
/// Bytes of one with the sender's link-layer address.
pub const LONG_LEN: usize = 32;

/// The gateway of every pod, `fe80::1`.
pub const GATEWAY: Address = Address([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Options: whose link-layer address it is that follows.
const SOURCE: u8 = 1;
const TARGET: u8 = 2;
/// What every router on the way would lower.
const HOP_LIMIT: u8 = 255;

/// A message as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// MAC address of the sender of the frame.
    pub source_mac: [u8; 6],
    /// Source address.
    pub source: Address,
    /// Hop limit of the packet.
    pub hop_limit: u8,
    /// The message from its type on; zero behind [`SHORT_LEN`] where there is no option.
    pub bytes: [u8; LONG_LEN],
    /// Length of the message.
    pub length: usize,
}

/// Whether the pod behind `link` may send this: it asks for its gateway, or says that its own address is its own.
///
/// # Errors
/// [`Reason::NeighbourDiscovery`].
#[inline(always)]
pub const fn check(message: &Message, link: &Link) -> Result<(), Reason> {
    let Message { source_mac, source, hop_limit, bytes, length } = message;
    let own = link.owns(source) && same_mac(*source_mac, link.mac);
    let (about, option) = match bytes[0] {
        SOLICITATION => (&GATEWAY, SOURCE),
        ADVERTISEMENT => (&link.ipv6, TARGET),
        _ => return Err(Reason::NeighbourDiscovery),
    };
    let valid = *hop_limit == HOP_LIMIT && bytes[1] == 0;
    if own && valid && target(bytes).is(about) && (*length == SHORT_LEN || is_own(bytes, option, link)) {
        Ok(())
    } else {
        Err(Reason::NeighbourDiscovery)
    }
}

/// Whether the option gives the pod's own MAC address.
#[inline(always)]
const fn is_own(bytes: &[u8; LONG_LEN], kind: u8, link: &Link) -> bool {
    let mac = [bytes[26], bytes[27], bytes[28], bytes[29], bytes[30], bytes[31]];
    bytes[24] == kind && bytes[25] == 1 && same_mac(mac, link.mac)
}

/// The address that a message is about.
#[inline(always)]
const fn target(bytes: &[u8; LONG_LEN]) -> Address {
    Address::from_words([word(bytes, 8), word(bytes, 12), word(bytes, 16), word(bytes, 20)])
}

#[inline(always)]
const fn word(bytes: &[u8; LONG_LEN], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
    const POD: Address = Address([0xfd, 0, 0, 0x10, 2, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);

    fn message(kind: u8, target: Address, option: Option<u8>) -> Message {
        let mut bytes = [0; LONG_LEN];
        bytes[0] = kind;
        bytes[8..24].copy_from_slice(&target.0);
        if let Some(option) = option {
            bytes[24..26].copy_from_slice(&[option, 1]);
            bytes[26..].copy_from_slice(&MAC);
        }
        let length = if option.is_some() { LONG_LEN } else { SHORT_LEN };
        Message { source_mac: MAC, source: POD, hop_limit: 255, bytes, length }
    }

    #[test]
    fn a_pod_asks_for_its_gateway_and_speaks_of_itself() {
        let link = Link::new(POD, MAC, 1);
        let (ask, tell) =
            (message(SOLICITATION, GATEWAY, Some(SOURCE)), message(ADVERTISEMENT, POD, Some(TARGET)));
        let short = (message(SOLICITATION, GATEWAY, None), message(ADVERTISEMENT, POD, None));
        for good in [ask, tell, short.0, short.1] {
            assert_eq!(check(&good, &link), Ok(()), "{good:?}");
            let other = Address::from_words([1, 2, 3, 4]);
            for bad in [
                Message { source: other, ..good },
                Message { source: Address::UNSPECIFIED, ..good },
                Message { source_mac: [2; 6], ..good },
                Message { hop_limit: 254, ..good },
            ] {
                assert_eq!(check(&bad, &link), Err(Reason::NeighbourDiscovery), "{bad:?}");
            }
        }
        for byte in (0..2).chain(8..LONG_LEN) {
            for mut bad in [ask, tell] {
                bad.bytes[byte] ^= 0x80;
                assert_eq!(check(&bad, &link), Err(Reason::NeighbourDiscovery), "byte {byte} changed");
            }
        }
        for kind in [133, 134, 137] {
            assert!(check(&message(kind, GATEWAY, Some(SOURCE)), &link).is_err(), "type {kind}");
        }
    }

    #[test]
    fn a_pod_without_ipv6_says_nothing() {
        let link = Link::new(Address::v4([10, 244, 0, 7]), MAC, 1);
        for mut message in [message(SOLICITATION, GATEWAY, None), message(ADVERTISEMENT, POD, None)] {
            for source in [POD, Address::UNSPECIFIED] {
                message.source = source;
                assert!(check(&message, &link).is_err());
            }
        }
    }
}
