//! `TUNNELS`: which node owns a block of pod addresses, and how packets get there. A longest-prefix-match trie of other nodes' blocks.

use core::fmt;

use crate::{Address, pod::map_abi};

/// Name of the map, without the layout version.
pub const NAME: &str = "TUNNELS";
/// Blocks of all other nodes.
pub const MAX: u32 = 65_536;

/// Bits in front of an IPv4 prefix in its v4-mapped form.
const MAPPED_BITS: u32 = 96;

/// A block of pod addresses.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// Length of the prefix over all 128 bits: an IPv4 /26 has 122.
    pub prefix_len: u32,
    /// First address of the block; the bits behind the prefix are zero.
    pub address: Address,
}
map_abi!(Block: 20);

/// The node that owns a block, and how packets get there.
///
/// The way is only the one out: what comes from the block is let in whichever way it came, so that the two nodes need not change
/// theirs at the same moment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// The node's address on the underlay: receiver, and the only sender, of the block's tunnelled packets.
    pub node: Address,
    /// The node's address of the block's family, next hop of [`DIRECT`]; [`Address::UNSPECIFIED`] on the other ways.
    pub gateway: Address,
    /// Index of the device on whose subnet `gateway` is; 0 on the other ways.
    pub ifindex: u32,
    /// [`TUNNEL`], [`DIRECT`] or [`STACK`].
    pub way: u32,
}
map_abi!(Tunnel: 40);

/// Into the tunnel.
pub const TUNNEL: u32 = 0;
/// To the node as the next hop on a subnet of this one, as they are.
pub const DIRECT: u32 = 1;
/// To the host stack, whose routing table somebody else fills.
pub const STACK: u32 = 2;

impl Tunnel {
    /// A node that is reached through the tunnel.
    #[must_use]
    pub const fn to(node: Address) -> Self {
        Self { node, gateway: Address::UNSPECIFIED, ifindex: 0, way: TUNNEL }
    }

    /// The same node, reached as a next hop behind the device with this index.
    #[must_use]
    pub const fn direct(self, gateway: Address, ifindex: u32) -> Self {
        Self { gateway, ifindex, way: DIRECT, ..self }
    }

    /// The same node, reached as the host stack's routing table says.
    #[must_use]
    pub const fn by_stack(self) -> Self {
        Self { gateway: Address::UNSPECIFIED, ifindex: 0, way: STACK, ..self }
    }
}

impl Block {
    /// The block that starts at `address` with a prefix of `length` bits **of its own family** (IPv4: 0 to 32).
    #[must_use]
    pub fn new(address: impl Into<Address>, length: u8) -> Self {
        let address = address.into();
        let before = if address.is_v4() { MAPPED_BITS } else { 0 };
        Self { prefix_len: before + u32::from(length), address }
    }

    /// The block of one address alone: the key of a look-up.
    #[must_use]
    #[inline(always)]
    pub const fn single(address: Address) -> Self {
        Self { prefix_len: 128, address }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = if self.address.is_v4() { MAPPED_BITS } else { 0 };
        write!(f, "{}/{}", self.address, self.prefix_len.saturating_sub(before))
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_ipv4_prefix_counts_the_mapped_bits() {
        let block = Block::new(Ipv4Addr::new(10, 244, 0, 64), 26);
        assert_eq!(block.prefix_len, 122);
    }
}
