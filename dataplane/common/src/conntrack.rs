//! `CT_TCP` and `CT_ANY`: the flows that were let through, TCP apart from the rest. LRU hashes from a
//! [`Flow`](crate::flow::Flow) to an [`Entry`]. The packets of both directions of a known flow pass; what becomes of an
//! entry is decided here. Time is the kernel's monotonic clock in ticks of 2^30 ns (1.07 s).

use crate::{
    Address,
    flow::{Flow, Side},
    pod::map_abi,
    transport::{ACK, FIN, Kind, RST, SYN, Transport},
};

/// Name of the map of TCP connections, without the layout version.
pub const TCP_NAME: &str = "CT_TCP";
/// Connections that are remembered; the least recently used one is forgotten first.
pub const TCP_MAX: u32 = 262_144;
/// Name of the map of all other flows, without the layout version.
pub const ANY_NAME: &str = "CT_ANY";
/// Other flows that are remembered; the least recently used one is forgotten first.
pub const ANY_MAX: u32 = 131_072;

/// A flow that was let through.
///
/// Elements of an LRU hash are reused at once, also while they are being read. Hence the copy of the key: an entry
/// that is read says itself whose it is. It comes first, so that it is written first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The key, as far as it tells flows apart.
    pub owner: Owner,
    /// When the last packet passed, in ticks; not more than a tick behind.
    pub seen: u32,
    /// The epoch in which the flow was judged.
    pub epoch: u32,
    /// What each end has said: the low four bits of the low end, the high four of the high one.
    pub said: u8,
    /// The end that began the flow, a [`Side`].
    pub origin: u8,
    /// Why it may pass: a set of [`NODE`] and [`INTO`].
    pub grounds: u8,
    /// Zero.
    pub reserved: u8,
}
map_abi!(Entry: 24);

/// What tells the flows of one map apart, folded into three words; exact for IPv4. Of IPv6 two flows may look the same,
/// which matters only to one that is read at the very moment in which its element becomes the other's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Of the address of the low end.
    pub low: u32,
    /// Of the address of the high end.
    pub high: u32,
    /// Both ports.
    pub ports: u32,
}
map_abi!(Owner: 12);

/// [`Entry::grounds`]: the node's own stack began the flow, which no policy forbids.
pub const NODE: u8 = 1;
/// [`Entry::grounds`]: the policy of the receiving pod was asked too. It was not when that pod was not known yet.
pub const INTO: u8 = 2;

/// An end has sent something other than the opening SYN.
const TALKED: u8 = 1;
/// An end has sent a FIN.
const ENDED: u8 = 2;
/// An end has sent a RST, and none has sent anything else since.
const RESET: u8 = 4;
/// The bit of both ends.
const fn both(bit: u8) -> u8 {
    bit | bit << 4
}

/// A connection that only one end has talked on: as long as a SYN is repeated.
const TCP_OPENING: u32 = ticks_of(60);
/// An established connection, also when one end has closed: longer than the two hours between keep-alives.
const TCP_ESTABLISHED: u32 = ticks_of(6 * 3600);
/// A closed one: for the last packets in flight.
const TCP_CLOSED: u32 = ticks_of(10);
/// Datagrams without an answer.
const UNANSWERED: u32 = ticks_of(30);
/// Datagrams in both directions.
const ANSWERED: u32 = ticks_of(180);
/// An echo.
const ECHO: u32 = ticks_of(30);

/// Ticks of a reading of the monotonic clock.
#[must_use]
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "146 years fit")]
pub const fn ticks(nanoseconds: u64) -> u32 {
    (nanoseconds >> 30) as u32
}

/// Ticks that last so many seconds at least.
const fn ticks_of(seconds: u64) -> u32 {
    ticks(seconds * 1_000_000_000) + 1
}

/// What becomes of a packet and of its flow's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// No flow is known that it belongs to: judge it as the first packet of one that its sender begins.
    New,
    /// It passes.
    Pass,
    /// It passes, and the entry becomes this.
    Refresh(Entry),
    /// The flow was judged in an earlier epoch, or not by its receiver: judge it again as it began. If it may go on,
    /// the entry becomes this; else it stays as it is, so that no packet of the other end begins the flow anew.
    Again(Entry),
}

/// What the programs read once for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Now, in ticks.
    pub now: u32,
    /// The present epoch.
    pub epoch: u32,
}

impl Entry {
    /// The entry of a flow whose first packet is this one.
    #[must_use]
    #[inline(always)]
    pub const fn new(
        flow: &Flow,
        (transport, side): (&Transport, Side),
        grounds: u8,
        Moment { now, epoch }: Moment,
    ) -> Self {
        let said = said(0, transport, side);
        Self { owner: Owner::of(flow), seen: now, epoch, said, origin: side as u8, grounds, reserved: 0 }
    }

    /// The words of an entry, as they lie in memory.
    #[must_use]
    #[inline(always)]
    pub const fn from_words([low, high, ports, seen, epoch, rest]: [u32; 6]) -> Self {
        let [said, origin, grounds, reserved] = rest.to_ne_bytes();
        Self { owner: Owner { low, high, ports }, seen, epoch, said, origin, grounds, reserved }
    }

    /// Whether the flow is still known: not of another flow, and not too old.
    #[must_use]
    #[inline(always)]
    pub fn is_live(&self, flow: &Flow, kind: Kind, now: u32) -> bool {
        self.owner == Owner::of(flow) && now.saturating_sub(self.seen) <= self.patience(kind)
    }

    /// Whether this end began the flow.
    #[must_use]
    #[inline(always)]
    pub const fn is_from(&self, side: Side) -> bool {
        self.origin == side as u8
    }

    /// Whether the node's own stack began the flow.
    #[must_use]
    #[inline(always)]
    pub const fn is_nodes(&self) -> bool {
        self.grounds & NODE != 0
    }

    /// How long the flow may be silent, in ticks.
    #[inline(always)]
    const fn patience(&self, kind: Kind) -> u32 {
        let talked = self.said & both(TALKED) == both(TALKED);
        match kind {
            Kind::Tcp(_) if self.said & both(RESET) != 0 || self.said & both(ENDED) == both(ENDED) => {
                TCP_CLOSED
            }
            Kind::Tcp(_) if talked => TCP_ESTABLISHED,
            Kind::Tcp(_) => TCP_OPENING,
            Kind::EchoRequest | Kind::EchoReply => ECHO,
            _ if talked => ANSWERED,
            _ => UNANSWERED,
        }
    }
}

impl Owner {
    #[inline(always)]
    const fn of(flow: &Flow) -> Self {
        let ports = (flow.low_port as u32) << 16 | flow.high_port as u32;
        Self { low: fold(flow.low), high: fold(flow.high), ports }
    }
}

#[inline(always)]
const fn fold(address: Address) -> u32 {
    let [a, b, c, d] = address.words();
    a ^ b ^ c ^ d
}

/// What the ends have said after this packet.
#[inline(always)]
const fn said(before: u8, transport: &Transport, side: Side) -> u8 {
    let shift = match side {
        Side::Low => 0,
        Side::High => 4,
    };
    match transport.kind {
        Kind::Tcp(flags) if flags & RST != 0 => before | RESET << shift,
        Kind::Tcp(flags) if flags & (SYN | ACK) == SYN => 0,
        Kind::Tcp(flags) => {
            let ended = if flags & FIN == 0 { 0 } else { ENDED };
            (before & !both(RESET)) | (TALKED | ended) << shift
        }
        _ => before | TALKED << shift,
    }
}

/// What becomes of a packet from `side`, given what its flow's key leads to. `into` says that it goes to a pod of this node.
#[must_use]
#[inline(always)]
pub fn step(
    entry: Option<Entry>,
    flow: &Flow,
    (transport, side): (&Transport, Side),
    into: bool,
    Moment { now, epoch }: Moment,
) -> Step {
    let Some(entry) = entry.filter(|entry| entry.is_live(flow, transport.kind, now)) else {
        return Step::New;
    };
    if transport.opens() && !entry.is_from(side) {
        return Step::New; // the other end's own connection, between the same ports
    }
    let next = Entry { seen: now, said: said(entry.said, transport, side), ..entry };
    let judged = !into || !entry.is_from(side) || entry.grounds != 0;
    if entry.epoch != epoch || !judged {
        Step::Again(Entry { epoch, ..next })
    } else if (next.seen, next.said) == (entry.seen, entry.said) {
        Step::Pass
    } else {
        Step::Refresh(next)
    }
}

#[cfg(test)]
mod tests;
