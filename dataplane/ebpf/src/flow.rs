// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Whether a packet may pass: it belongs to a known flow, or the policies of the pods at its ends allow it. Every packet
//! to or from a pod of this node is asked for here once. What most packets need is inlined; the rest is apart, which
//! keeps the stack small and the verifier's work short.

pub(crate) mod related;

use aya_ebpf::{bindings::BPF_ANY, maps::LruHashMap, programs::TcContext};
use netkeel_dataplane_common::{
    Address, Reason,
    conntrack::{self, Entry, INTO, Moment, NODE, Step},
    flow::{Flow, Side},
    fragments::Recorded,
    frame::{Ip, Part},
    policies,
    transport::{self, Kind, Transport},
};

use self::related::nk_is_related;
use crate::{
    maps::{self, CT_ANY, CT_TCP, FRAGMENTS},
    packet::{Family, header},
};

/// What a hook knows of a packet's ends.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    /// The sender is a pod of this node.
    pub(crate) from_pod: bool,
    /// The receiver is a pod of this node.
    pub(crate) to_pod: bool,
    /// The node's own stack made the packet: it may reach every pod of the node.
    pub(crate) from_node: bool,
}

impl Ends {
    /// Of a packet in the other direction.
    #[inline(always)]
    const fn turned(self) -> Self {
        Self { from_pod: self.to_pod, to_pod: self.from_pod, from_node: false }
    }
}

/// A packet as part of a flow.
struct Passage {
    flow: Flow,
    side: Side,
    transport: Transport,
    ends: Ends,
    moment: Moment,
}

impl Passage {
    #[inline(always)]
    fn new(packet: &Ip, transport: Transport, ends: Ends, moment: Moment) -> Self {
        let (flow, side) = Flow::of(packet.source, packet.destination, packet.protocol, &transport);
        Self { flow, side, transport, ends, moment }
    }

    #[inline(always)]
    fn is_tcp(&self) -> bool {
        matches!(self.transport.kind, Kind::Tcp(_))
    }

    /// What becomes of the packet, and where the flow's entry is.
    #[inline(always)]
    fn step(&self, map: &LruHashMap<Flow, Entry>) -> (Step, Option<*mut Entry>) {
        let flow = &self.flow;
        let found = map.get_ptr_mut(flow);
        let entry = found.map(|found| read(found));
        let sender = (&self.transport, self.side);
        (conntrack::step(entry, &self.flow, sender, self.ends.to_pod, self.moment), found)
    }
}

/// Reads an entry word by word, each into a register.
#[inline(always)]
fn read(found: *const Entry) -> Entry {
    let words = found.cast::<u32>();
    // SAFETY: elements stay mapped until the program ends. They have six words, and the owner comes last here: an
    // entry that was another flow's at any moment before is known by it.
    unsafe {
        let rest = words.add(5).read_volatile();
        let epoch = words.add(4).read_volatile();
        let seen = words.add(3).read_volatile();
        let ports = words.add(2).read_volatile();
        let high = words.add(1).read_volatile();
        let low = words.read_volatile();
        Entry::from_words([low, high, ports, seen, epoch, rest])
    }
}

/// That a packet may pass, or that more has to be known.
#[derive(PartialEq, Eq)]
pub(crate) enum Admitted {
    Passes,
    Asks,
}

/// Whether the packet may pass.
#[inline(always)]
pub(crate) fn admit<F: Family>(
    ctx: &TcContext,
    packet: &Ip,
    ends: Ends,
    related: u32,
) -> Result<Admitted, Reason> {
    // The epoch is read before the tables: what is judged by older ones is judged again.
    let moment = Moment { now: maps::now(), epoch: maps::epoch() };
    let passage = &mut match packet.part {
        Part::Whole | Part::First => Passage::new(packet, transport::<F>(ctx, packet)?, ends, moment),
        Part::Second if packet.protocol == transport::TCP => return Err(Reason::Malformed),
        Part::Second | Part::Later => Passage::new(packet, Transport::PORTLESS, ends, moment),
    };
    if matches!(packet.part, Part::Second | Part::Later) {
        recall(passage, packet.id)?;
    }
    if passage.transport.kind == Kind::Error {
        if F::V6 && related == related::UNKNOWN {
            return Ok(Admitted::Asks);
        }
        if related == related::YES || (!F::V6 && nk_is_related(ctx.skb.skb, packet.payload, passage)) {
            return Ok(Admitted::Passes);
        }
    }
    if F::V6 && passage.transport.kind == Kind::Discovery && !ends.from_node {
        return Err(Reason::NeighbourDiscovery);
    }
    track(passage)?;
    if packet.part == Part::First {
        remember(passage, packet.id);
    }
    Ok(Admitted::Passes)
}

/// Whether the packet is neighbour discovery of IPv6, as far as its type says.
#[inline(always)]
pub(crate) fn is_discovery(ctx: &TcContext, packet: &Ip) -> bool {
    packet.protocol == transport::ICMPV6
        && matches!(packet.part, Part::Whole | Part::First)
        && header(ctx, packet.payload).map(Transport::icmpv6).is_some_and(|it| it.kind == Kind::Discovery)
}

/// What follows the packet's IP headers.
#[inline(always)]
pub(crate) fn transport<F: Family>(ctx: &TcContext, packet: &Ip) -> Result<Transport, Reason> {
    let at = packet.payload;
    let transport = match packet.protocol {
        transport::TCP => header(ctx, at).map(Transport::tcp),
        transport::UDP => header(ctx, at).map(Transport::udp),
        transport::ICMP if !F::V6 => header(ctx, at).map(Transport::icmp),
        transport::ICMPV6 if F::V6 => header(ctx, at).map(Transport::icmpv6),
        _ => Some(Transport::PORTLESS),
    };
    transport.ok_or(Reason::Malformed)
}

/// A known flow passes; the rest is judged.
#[inline(always)]
fn track(passage: &Passage) -> Result<(), Reason> {
    let (step, found) = if passage.is_tcp() { passage.step(&CT_TCP) } else { passage.step(&CT_ANY) };
    match step {
        Step::Pass => Ok(()),
        Step::Refresh(next) => {
            refresh(found, &next);
            Ok(())
        }
        Step::Again(_) | Step::New => nk_judge(passage).grounds().map(drop),
    }
}

/// Writes what may have changed. Two processors that write at once leave the state of one of them, which is as good.
#[inline(always)]
fn refresh(found: Option<*mut Entry>, next: &Entry) {
    let Some(found) = found else { return };
    // SAFETY: elements stay mapped until the program ends. One that was reused a moment ago belongs to another flow,
    // which then lives a little longer or closes a little sooner.
    unsafe {
        (&raw mut (*found).seen).write_volatile(next.seen);
        (&raw mut (*found).epoch).write_volatile(next.epoch);
        (&raw mut (*found).said).write_volatile(next.said);
        (&raw mut (*found).grounds).write_volatile(next.grounds);
    }
}

/// Judges a packet that does not pass as it is, and keeps the result.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn nk_judge(passage: *const Passage) -> Judged {
    // SAFETY: the caller's, on its stack.
    let Some(passage) = (unsafe { passage.as_ref() }) else { return Judged::NoEgress };
    if passage.is_tcp() { judge_and_keep(&CT_TCP, passage) } else { judge_and_keep(&CT_ANY, passage) }
}

/// Looks the flow up a second time: there is no room to hand over what was found.
#[inline(always)]
fn judge_and_keep(map: &LruHashMap<Flow, Entry>, passage: &Passage) -> Judged {
    let Passage { flow, side, transport, ends, moment } = passage;
    if let (Step::Again(next) | Step::Refresh(next), found) = passage.step(map) {
        let judged = again(passage, &next);
        match judged.grounds() {
            Ok(grounds) => {
                refresh(found, &Entry { grounds: grounds | next.grounds & NODE, ..next });
                return judged;
            }
            Err(_) if ends.from_node => return Judged::Passes,
            Err(_) if passage.is_tcp() || next.is_from(*side) => return judged,
            // Nothing in a datagram says that it is an answer: it may be the other end's own.
            Err(_) => {}
        }
    }
    let judged = if ends.from_node { Judged::Passes } else { judge(passage, false) };
    if let Ok(grounds) = judged.grounds()
        && transport.begins_flow()
    {
        let grounds = if ends.from_node { NODE } else { grounds };
        let entry = Entry::new(flow, (transport, *side), grounds, *moment);
        // Fails only when memory is short: then the answers are judged as flows of their own.
        let _: Result<(), _> = map.insert(flow, entry, u64::from(BPF_ANY));
    }
    judged
}

/// Judges a known flow as it began.
#[inline(always)]
fn again(passage: &Passage, entry: &Entry) -> Judged {
    if entry.is_nodes() { Judged::Passes } else { judge(passage, !entry.is_from(passage.side)) }
}

/// What the policies say of a flow.
#[repr(u32)]
#[derive(Clone, Copy)]
enum Judged {
    Passes,
    PassesInto,
    NoEgress,
    NoIngress,
}

impl Judged {
    /// The grounds on which the flow may pass.
    #[inline(always)]
    const fn grounds(self) -> Result<u8, Reason> {
        match self {
            Self::Passes => Ok(0),
            Self::PassesInto => Ok(INTO),
            Self::NoEgress => Err(Reason::PolicyEgress),
            Self::NoIngress => Err(Reason::PolicyIngress),
        }
    }
}

/// Judges the flow that the packet's sender begins, or its receiver when `turned`.
#[inline(always)]
fn judge(passage: &Passage, turned: bool) -> Judged {
    let Passage { flow, side, transport, .. } = passage;
    let (ends, side, port) = if turned {
        (passage.ends.turned(), side.other(), transport.answers_port())
    } else {
        (passage.ends, *side, transport.policy_port())
    };
    let (from, to) = flow.ends(side);
    nk_policy(from, to, u32::from(flow.protocol) << 16 | u32::from(port), ends.from_pod, ends.to_pod)
}

/// Asks the egress table of the end that begins a flow and the ingress table of the other, where they are pods of this node. A
/// pod that should be one and is not known is closed. `traffic` is the port in network byte order, above it the protocol.
#[unsafe(no_mangle)]
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "put together by the caller")]
extern "C" fn nk_policy(
    from: *const Address,
    to: *const Address,
    traffic: u32,
    from_pod: bool,
    to_pod: bool,
) -> Judged {
    // SAFETY: the caller's, on its stack.
    let (Some(from), Some(to)) = (unsafe { (from.as_ref(), to.as_ref()) }) else { return Judged::NoEgress };
    let (protocol, port) = ((traffic >> 16) as u8, traffic as u16);
    let egress = maps::egress(from).or(from_pod.then_some(policies::CLOSED));
    if egress.is_some_and(|table| !allows(table, to, protocol, port)) {
        return Judged::NoEgress;
    }
    match maps::ingress(to).or(to_pod.then_some(policies::CLOSED)) {
        None => Judged::Passes,
        Some(table) if allows(table, from, protocol, port) => Judged::PassesInto,
        Some(_) => Judged::NoIngress,
    }
}

#[inline(never)]
fn allows(table: u32, peer: &Address, protocol: u8, port: u16) -> bool {
    policies::allows(table, || maps::identity(peer), protocol, port, maps::policy)
}

/// Makes a later fragment what its first one was.
#[inline(never)]
fn recall(passage: &mut Passage, id: u32) -> Result<(), Reason> {
    let protocol = passage.flow.protocol;
    if !matches!(protocol, transport::TCP | transport::UDP | transport::ICMP | transport::ICMPV6) {
        return Ok(()); // no ports anyway
    }
    let recorded = maps::recorded(&passage.flow.fragmented(passage.side, id)).ok_or(Reason::Fragment)?;
    let transport = recorded.recall(protocol, passage.moment.now).ok_or(Reason::Fragment)?;
    passage.flow = passage.flow.with(&transport, passage.side);
    passage.transport = transport;
    Ok(())
}

/// Keeps the ports for the fragments that follow.
#[inline(never)]
fn remember(passage: &Passage, id: u32) {
    let packet = passage.flow.fragmented(passage.side, id);
    let recorded = Recorded::new(&passage.transport, passage.moment.now);
    // Fails only when memory is short: then the rest of the packet is lost.
    let _: Result<(), _> = FRAGMENTS.insert(packet, recorded, u64::from(BPF_ANY));
}
