//! The one address type of maps and programs.

use core::{
    fmt, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::pod::map_abi;

/// An IPv6 or (v4-mapped) IPv4 address, 16 bytes in network byte order.
///
/// Aligned to 4 bytes, so that the kernel side copies words and not bytes.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 16]);
map_abi!(Address: 16);

/// The third word of a v4-mapped address, as it lies in memory.
const MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Address {
    /// `::`, "not set".
    pub const UNSPECIFIED: Self = Self([0; 16]);

    /// The v4-mapped form of four bytes in network byte order.
    #[must_use]
    #[inline(always)]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self::v4_word(u32::from_ne_bytes(bytes))
    }

    /// The v4-mapped form of an IPv4 address held in a word as it lies in memory (network byte order).
    #[must_use]
    #[inline(always)]
    pub const fn v4_word(word: u32) -> Self {
        Self::from_words([0, 0, MAPPED, word])
    }

    /// From four words as they lie in memory (network byte order).
    #[must_use]
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        // SAFETY: arrays of integers of one size. Not put together from bytes: the kernel side would keep each of them apart.
        Self(unsafe { mem::transmute::<[u32; 4], [u8; 16]>(words) })
    }

    /// Four words as they lie in memory (network byte order).
    #[must_use]
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        // SAFETY: as in `from_words`.
        unsafe { mem::transmute::<[u8; 16], [u32; 4]>(self.0) }
    }

    /// The IPv4 address as a word in network byte order, when this is a v4-mapped address.
    #[must_use]
    #[inline(always)]
    pub const fn as_v4_word(&self) -> Option<u32> {
        match self.words() {
            [0, 0, MAPPED, word] => Some(word),
            _ => None,
        }
    }

    /// Whether both are the same address. Word by word, where `==` makes the kernel side compare bytes.
    #[must_use]
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        let (a, b) = (self.words(), other.words());
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
    }

    /// Whether this is a v4-mapped address.
    #[must_use]
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.as_v4_word().is_some()
    }

    /// The IPv4 address that a v4-mapped address stands for.
    #[must_use]
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.as_v4_word().map(|word| word.to_ne_bytes().into())
    }

    /// The address as the standard library knows it; a v4-mapped one becomes IPv4.
    #[must_use]
    pub const fn ip(&self) -> IpAddr {
        Ipv6Addr::from_octets(self.0).to_canonical()
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::v4(address.octets())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        Self(address.octets())
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        address.ip()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_addresses_are_v4_mapped_and_come_back() {
        let address = Address::from(Ipv4Addr::new(10, 96, 0, 1));
        assert_eq!(address.0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 96, 0, 1]);
        assert!(address.is_v4());
        assert_eq!(address.as_v4_word(), Some(u32::from_ne_bytes([10, 96, 0, 1])));
        assert_eq!(address.ip(), IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)));
    }

    #[test]
    fn an_address_is_itself_alone() {
        let address = Address::from_words([1, 2, 3, 4]);
        for byte in 0..16 {
            let mut other = address;
            assert!(address.is(&other));
            other.0[byte] ^= 1;
            assert!(!address.is(&other), "byte {byte}");
        }
    }

    #[test]
    fn ipv6_addresses_are_kept_whole() {
        let ip: Ipv6Addr = "fd00:10:244::7".parse().unwrap();
        let address = Address::from(ip);
        assert!(!address.is_v4());
        assert_eq!(Address::from_words(address.words()), address);
        assert_eq!(address.ip(), IpAddr::V6(ip));
    }
}
