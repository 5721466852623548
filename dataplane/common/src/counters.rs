//! `COUNTERS`: packets and connections that were not let through, by reason. A per-CPU array of `u64`.

/// Name of the map, without the layout version.
pub const NAME: &str = "COUNTERS";
/// Entries of the map: more than there are reasons, so that a new reason does not change the layout.
pub const MAX: u32 = 64;

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $number:literal => $name:literal,)+) => {
        /// Why a packet was dropped or a connection refused. The number is the index into the map.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])+ $variant = $number,)+ }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The label in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

reasons! {
    /// The frame is too short or not what its headers say.
    Malformed = 0 => "malformed",
    /// The packet came over a link that no pod is known behind.
    UnknownLink = 1 => "unknown_link",
    /// The source address or MAC address is not the pod's own.
    SpoofedSource = 2 => "spoofed_source",
    /// IPv6 with a header between the address and the payload that is not known, or with too many of them.
    ExtensionHeader = 3 => "extension_header",
    /// Neither IPv4, IPv6 nor ARP.
    UnknownProtocol = 4 => "unknown_protocol",
    /// To a destination behind the overlay that belongs to no known node.
    NoTunnel = 5 => "no_tunnel",
    /// The kernel did not take the tunnel key.
    TunnelKey = 6 => "tunnel_key",
    /// Out of the overlay, from a source that belongs to no known node.
    UnknownSource = 7 => "unknown_source",
    /// Out of the overlay, from a node that does not own the source address, or with a foreign network identifier.
    ForgedTunnel = 8 => "forged_tunnel",
    /// A client asked for a service without endpoints and was refused.
    NoEndpoints = 9 => "no_endpoints",
    /// The policy of the sending pod does not allow it, or is not known.
    PolicyEgress = 10 => "policy_egress",
    /// The policy of the receiving pod does not allow it, or is not known.
    PolicyIngress = 11 => "policy_ingress",
    /// A fragment whose first one was not let through, or not seen.
    Fragment = 12 => "fragment",
    /// IPv6 neighbour discovery that only routers or other owners may send: router advertisements and solicitations,
    /// redirects, what speaks of another's address.
    NeighbourDiscovery = 13 => "neighbour_discovery",
    /// IPv6 multicast from a pod, reports of group membership among it.
    Multicast = 14 => "multicast",
    /// Larger than the overlay carries. The pod is told, except of ICMP errors and later fragments.
    TooBig = 15 => "too_big",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_without_gaps_and_fit_the_map() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
        assert!(Reason::ALL.len() < MAX as usize);
    }

    #[test]
    fn names_are_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert!(Reason::ALL.iter().skip(index + 1).all(|other| other.name() != reason.name()));
        }
    }
}
