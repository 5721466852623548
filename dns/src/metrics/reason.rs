//! What is kept from clients, by reason.

use netkeel_telemetry::metrics::{Counter, Registry};

/// Why a client did not get what it wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Beyond `rateLimit`: told to come over TCP.
    Rate,
    /// Far beyond it: no answer.
    RateDropped,
    /// Beyond it over TCP: answered later.
    RateWaited,
    /// Beyond it over TCP by seconds: the connection was closed.
    RateClosed,
    /// Too many questions of this client were under way to resolvers: refused.
    UnderWay,
    /// More datagrams came than can be answered, and this client sent more than its part: no answer.
    Overload,
    /// The kernel had no room for a datagram.
    Queue,
    /// A connection was closed for a new one.
    Connections,
    /// A question was too long for any.
    Long,
    /// A question took too long to come.
    Slow,
    /// Clients took too long for too many long replies.
    Replies,
}

impl Reason {
    /// All of them, in their order.
    pub const ALL: [Self; 11] = [
        Self::Rate,
        Self::RateDropped,
        Self::RateWaited,
        Self::RateClosed,
        Self::UnderWay,
        Self::Overload,
        Self::Queue,
        Self::Connections,
        Self::Long,
        Self::Slow,
        Self::Replies,
    ];

    /// The `reason` label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::RateDropped => "rate-dropped",
            Self::RateWaited => "rate-waited",
            Self::RateClosed => "rate-closed",
            Self::UnderWay => "under-way",
            Self::Overload => "overload",
            Self::Queue => "queue",
            Self::Connections => "connections",
            Self::Long => "long",
            Self::Slow => "slow",
            Self::Replies => "replies",
        }
    }
}

/// All series are there from the start, with 0.
pub(super) fn limited(registry: &Registry) -> [Counter; Reason::ALL.len()] {
    let family = registry.counters(
        "netkeel_dns_limited",
        "What was kept from clients, by reason: see \"Limits and abuse\" in docs/dns.md",
        &["reason"],
    );
    Reason::ALL.map(|reason| family.get_or_create(&vec![("reason", reason.as_str().to_owned())]).clone())
}
