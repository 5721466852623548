// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! ICMP errors pass with the flow that they are about. Whether one does is a number, because functions of their own say so.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use netkeel_dataplane_common::{
    Address,
    conntrack::Moment,
    flow::Flow,
    frame::{self, ETHERNET_LEN, Head, Part, ipv6},
    transport::{SHORT_LEN, Transport},
};

use super::{Ends, Passage, again, read};
use crate::{
    maps::{self, CT_ANY, CT_TCP},
    packet::{Family, V6},
};

/// Nobody was asked yet: the program ends with [`ASKS`] where it matters.
pub(crate) const UNKNOWN: u32 = 0;
/// It is not, and is judged as a packet of its own.
pub(crate) const NO: u32 = 1;
/// It is.
pub(crate) const YES: u32 = 2;
/// No action of a program.
pub(crate) const ASKS: i32 = 0x100;

/// Whether this ICMP error is about a packet of a known flow that its receiver sent.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn nk_is_related(skb: *mut __sk_buff, payload: usize, error: *const Passage) -> bool {
    // SAFETY: the caller's, on its stack.
    let Some(error) = (unsafe { error.as_ref() }) else { return false };
    let (sender, receiver) = error.flow.ends(error.side);
    let error = &Telling { sender, receiver, ends: error.ends, moment: error.moment };
    let quoted = quoted4(&TcContext::new(skb), payload, error);
    quoted.and_then(|passage| is_known(&passage)).unwrap_or(false)
}

/// The same of IPv6, as a number. Called by the programs themselves: with what has judged the packet so far on the stack,
/// there is no room for it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn nk_is_related6(skb: *mut __sk_buff, from_pod: bool) -> u32 {
    let ctx = &TcContext::new(skb);
    let Ok(packet) = V6::read(ctx) else { return NO };
    let to_pod = !from_pod || maps::local_pod(packet.destination).is_some();
    let error = &Telling {
        sender: &packet.source,
        receiver: &packet.destination,
        ends: Ends { from_pod, to_pod, from_node: false },
        moment: Moment { now: maps::now(), epoch: maps::epoch() },
    };
    match quoted6(ctx, packet.payload, error).and_then(|passage| is_known(&passage)) {
        Some(true) => YES,
        _ => NO,
    }
}

/// An ICMP error.
struct Telling<'a> {
    sender: &'a Address,
    receiver: &'a Address,
    ends: Ends,
    moment: Moment,
}

/// The IPv4 packet that an error quotes; `None` when it cannot be read, or was not its receiver's.
#[inline(always)]
fn quoted4(ctx: &TcContext, payload: usize, error: &Telling<'_>) -> Option<Passage> {
    // The quoted header, read as if the eight bytes of ICMP and the end of the outer header were an Ethernet header.
    let at = payload + SHORT_LEN - ETHERNET_LEN;
    let head: Head = ctx.load(at).ok()?;
    let quoted = frame::ipv4(&head).ok()?;
    let header = ctx.load(at + quoted.payload).ok()?;
    let has_ports = matches!(quoted.part, Part::Whole | Part::First);
    if has_ports { error.about((quoted.source, quoted.destination), quoted.protocol, header) } else { None }
}

/// The same of IPv6, without extension headers.
#[inline(always)]
fn quoted6(ctx: &TcContext, payload: usize, error: &Telling<'_>) -> Option<Passage> {
    const VERSION: usize = 0;
    const NEXT_HEADER: usize = 6;
    const SOURCE: usize = 8;
    const DESTINATION: usize = 24;
    const LEN: usize = 40;
    let at = payload + SHORT_LEN;
    let first: u8 = ctx.load(at + VERSION).ok()?;
    let protocol: u8 = ctx.load(at + NEXT_HEADER).ok()?;
    if first >> 4 != 6 || ipv6::is_extension(protocol) {
        return None;
    }
    let source = Address::from_words(ctx.load(at + SOURCE).ok()?);
    let destination = Address::from_words(ctx.load(at + DESTINATION).ok()?);
    let header = ctx.load(at + LEN).ok()?;
    error.about((source, destination), protocol, header)
}

impl Telling<'_> {
    /// The packet that this error quotes, which went the other way. Its receiver must have sent it, and a pod speaks only of what was
    /// sent to itself.
    #[inline(always)]
    fn about(
        &self,
        (source, destination): (Address, Address),
        protocol: u8,
        header: [u8; SHORT_LEN],
    ) -> Option<Passage> {
        if !source.is(self.receiver) || (self.ends.from_pod && !destination.is(self.sender)) {
            return None;
        }
        let transport = Transport::quoted(protocol, &header);
        let (flow, side) = Flow::of(source, destination, protocol, &transport);
        Some(Passage { flow, side, transport, ends: self.ends.turned(), moment: self.moment })
    }
}

/// Whether a quoted packet belongs to a flow that may go on; `None` when it is of no flow.
#[inline(always)]
fn is_known(passage: &Passage) -> Option<bool> {
    let Passage { flow, transport, moment, .. } = passage;
    let found = if passage.is_tcp() { CT_TCP.get_ptr(flow) } else { CT_ANY.get_ptr(flow) };
    let entry = read(found?);
    if !entry.is_live(flow, transport.kind, moment.now) {
        return None;
    }
    Some(entry.epoch == moment.epoch || again(passage, &entry).grounds().is_ok())
}
