//! `POLICIES`: which traffic a policy table allows, and by which rule. A longest-prefix-match trie.
//!
//! A table is one direction of one compiled policy; endpoints of the same policy share it. New content gets a new number, the
//! endpoint is given that number in one write, and the old entries go afterwards; in place only entries for identities that
//! no address has come and go (docs/adr/0007).

use crate::{identities, pod::map_abi};

/// Name of the map, without the layout version.
pub const NAME: &str = "POLICIES";
/// Entries of all tables of a node.
pub const MAX: u32 = 262_144;

/// The table of an endpoint whose policy is not known: only its own node and established flows pass.
pub const CLOSED: u32 = 0;
/// The table of an endpoint that no policy isolates in this direction: everything passes.
pub const OPEN: u32 = 1;
/// The first number of a table with entries.
pub const FIRST_TABLE: u32 = 2;

/// Bits of [`Traffic`] that say table and identity: any protocol, any port.
pub const IDENTITY_BITS: u32 = 64;
/// Bits of [`Traffic`] in front of the port: one protocol, any port.
pub const PROTOCOL_BITS: u32 = 80;
/// All bits of [`Traffic`]: one port.
pub const PORT_BITS: u32 = 96;

/// What a packet is to a table. The order of the fields is the order in which a prefix takes them in.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Traffic {
    /// Number of the table.
    pub table: u32,
    /// Identity of the other side; [`identities::ANY`](crate::identities::ANY) in rules for everybody.
    pub identity: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
    /// Destination port, network byte order; zero where the protocol has none.
    pub port: u16,
}
map_abi!(Traffic: 12);

/// An entry of a table: traffic up to the `prefix_len`-th bit.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Match {
    /// [`IDENTITY_BITS`], or [`PROTOCOL_BITS`] to [`PORT_BITS`].
    pub prefix_len: u32,
    /// The bits behind the prefix are zero.
    pub traffic: Traffic,
}
map_abi!(Match: 16);

/// What a table says of traffic. Traffic that no entry matches is dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Verdict {
    /// Number of the rule, for explanations; chosen by the agent.
    pub rule: u32,
    /// [`ALLOW`], anything else drops.
    pub action: u32,
}
map_abi!(Verdict: 8);

/// [`Verdict::action`] of traffic that may pass.
pub const ALLOW: u32 = 1;

impl Traffic {
    /// Traffic with this protocol to this port, which is in network byte order.
    #[must_use]
    #[inline(always)]
    pub const fn from_wire(table: u32, identity: u32, protocol: u8, port: u16) -> Self {
        Self { table, identity, protocol, reserved: 0, port }
    }
}

impl Match {
    /// All traffic of an identity.
    #[must_use]
    pub const fn identity(table: u32, identity: u32) -> Self {
        Self { prefix_len: IDENTITY_BITS, traffic: Traffic::from_wire(table, identity, 0, 0) }
    }

    /// All traffic of an identity over one protocol.
    #[must_use]
    pub const fn protocol(table: u32, identity: u32, protocol: u8) -> Self {
        Self { prefix_len: PROTOCOL_BITS, traffic: Traffic::from_wire(table, identity, protocol, 0) }
    }

    /// Traffic of an identity over one protocol to the ports that share the first `bits` bits (0 to 16) with `port`, which is in
    /// host byte order.
    #[must_use]
    pub const fn ports(table: u32, identity: u32, protocol: u8, port: u16, bits: u8) -> Self {
        let kept = match bits {
            0 => 0,
            bits => port & (u16::MAX << (16 - bits as u32)),
        };
        Self {
            prefix_len: PROTOCOL_BITS + bits as u32,
            traffic: Traffic::from_wire(table, identity, protocol, kept.to_be()),
        }
    }
}

/// Whether a table lets traffic pass. `find` is the action of the longest match in this map; 0 when nothing matches.
#[must_use]
#[inline(always)]
pub fn allows(
    table: u32,
    identity: impl FnOnce() -> u32,
    protocol: u8,
    port: u16,
    find: impl Fn(Traffic) -> u32,
) -> bool {
    let allowed = |identity| find(Traffic::from_wire(table, identity, protocol, port)) == ALLOW;
    match table {
        CLOSED => false,
        OPEN => true,
        _ => allowed(identity()) || allowed(identities::ANY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The action of the longest match among these entries.
    fn find(entries: &[(Match, u32)], traffic: Traffic) -> u32 {
        let bits = |traffic: Traffic| {
            let [high, low] = [traffic.table, traffic.identity];
            let port = u128::from(u16::from_be(traffic.port));
            (u128::from(high) << 96)
                | (u128::from(low) << 64)
                | (u128::from(traffic.protocol) << 56)
                | (port << 32)
        };
        let matches = |entry: &Match| {
            entry.prefix_len == 0
                || bits(entry.traffic) >> (128 - entry.prefix_len)
                    == bits(traffic) >> (128 - entry.prefix_len)
        };
        let longest =
            entries.iter().filter(|(entry, _)| matches(entry)).max_by_key(|(entry, _)| entry.prefix_len);
        longest.map_or(0, |(_, action)| *action)
    }

    #[test]
    fn a_table_allows_what_one_of_its_entries_allows() {
        let entries = [
            (Match::identity(7, 300), ALLOW),
            (Match::protocol(7, 301, 17), ALLOW),
            (Match::ports(7, 302, 6, 8080, 12), ALLOW),
            (Match::ports(7, identities::ANY, 6, 443, 16), ALLOW),
            (Match::ports(7, 300, 6, 22, 16), 0),
            (Match::identity(8, 303), ALLOW),
        ];
        for (story, table, identity, protocol, port, allowed) in [
            ("an identity, whatever it does", 7, 300, 1, 0, true),
            ("its protocol", 7, 301, 17, 53, true),
            ("another protocol", 7, 301, 6, 53, false),
            ("a port of the prefix", 7, 302, 6, 8081, true),
            ("a port behind the prefix", 7, 302, 6, 8096, false),
            ("everybody's port", 7, 999, 6, 443, true),
            ("everybody's port over another protocol", 7, 999, 17, 443, false),
            ("what is not allowed says no", 7, 300, 6, 22, false),
            ("an entry of another table", 7, 303, 6, 80, false),
            ("open", OPEN, 999, 6, 80, true),
            ("closed", CLOSED, 300, 6, 80, false),
        ] {
            let answer =
                allows(table, || identity, protocol, u16::to_be(port), |traffic| find(&entries, traffic));
            assert_eq!(answer, allowed, "{story}");
        }
    }

    #[test]
    fn open_and_closed_tables_ask_nobody() {
        for (table, allowed) in [(OPEN, true), (CLOSED, false)] {
            let answer = allows(table, || panic!("who it is"), 6, 80, |_| panic!("what the table says"));
            assert_eq!(answer, allowed);
        }
    }

    #[test]
    fn a_prefix_of_ports_keeps_its_bits_in_network_byte_order() {
        let entry = Match::ports(7, 300, 6, 0x1f9f, 12);
        assert_eq!(entry.prefix_len, 92);
        assert_eq!(entry.traffic.port.to_ne_bytes(), [0x1f, 0x90]);
        assert_eq!(Match::ports(7, 300, 6, 8080, 16).traffic.port, 8080_u16.to_be());
        assert_eq!(Match::ports(7, 300, 6, 8080, 0), Match::protocol(7, 300, 6));
    }
}
