// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The two ends of a pod's link on the host side. `from_pod`: what the pod sends, only as itself and where policy lets it;
//! then straight to the local pod, to another node, or to the host stack. `to_pod`: what the host stack sends to the pod.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_redirect, macros::classifier, programs::TcContext};
use netkeel_dataplane_common::{
    Reason,
    frame::{
        self, ARP_LEN, Ip, Packet,
        discovery::{self, LONG_LEN, Message, SHORT_LEN},
        ipv6::{IPV6_LEN, parse},
    },
    links::Link,
    transport::ICMPV6,
    tunnels,
};

use crate::{
    flow::{Admitted, Ends, admit, is_discovery, related},
    maps,
    packet::{Family, NEXT, each_family, header, into_pod, ipv6, kind, set_tunnel, to_neighbour, verdict},
    too_big::{TOO_BIG, fits, fits_into, nk_too_big4, nk_too_big6},
};

/// Where an IPv6 header says how many routers it may pass, in bytes from the start of the frame.
const HOP_LIMIT: usize = 21;

/// That a packet is neighbour discovery, which the program itself looks at. No action of a program.
const DISCOVERY: i32 = 0x101;

#[classifier]
fn from_pod(ctx: TcContext) -> i32 {
    match kind(&ctx) {
        Ok(Packet::Ipv4) => match nk_from_pod4(ctx.skb.skb) {
            TOO_BIG => nk_too_big4(ctx.skb.skb),
            action => action,
        },
        Ok(Packet::Ipv6) => match ipv6(&ctx, true, |skb, related| nk_from_pod6(skb, related)) {
            DISCOVERY => verdict(discovery(&ctx)),
            TOO_BIG => nk_too_big6(ctx.skb.skb),
            action => action,
        },
        Ok(Packet::Arp) => verdict(link(&ctx).and_then(|link| arp(&ctx, link))),
        Err(reason) => verdict(link(&ctx).and(Err(reason))),
    }
}

each_family!(nk_from_pod4, nk_from_pod6, decide);

/// The pod behind the link that the frame came over.
#[inline(always)]
fn link(ctx: &TcContext) -> Result<&'static Link, Reason> {
    // SAFETY: the context is the kernel's.
    let (ifindex, tagged) = unsafe { ((*ctx.skb.skb).ifindex, (*ctx.skb.skb).vlan_present) };
    if tagged != 0 {
        return Err(Reason::UnknownProtocol);
    }
    maps::link(ifindex).ok_or(Reason::UnknownLink)
}

#[inline(always)]
fn decide<F: Family>(ctx: &TcContext, related: u32) -> Result<i32, Reason> {
    let link = link(ctx)?;
    let packet = F::read(ctx)?;
    if F::V6 && is_discovery(ctx, &packet) {
        return Ok(DISCOVERY);
    }
    if F::V6 && packet.is_multicast6() {
        return Err(Reason::Multicast);
    }
    if !frame::is_from(&packet, link) {
        return Err(Reason::SpoofedSource);
    }
    let local = maps::local_pod(packet.destination);
    let ends = Ends { from_pod: true, to_pod: local.is_some(), from_node: false };
    if admit::<F>(ctx, &packet, ends, related)? == Admitted::Asks {
        return Ok(related::ASKS);
    }
    local.map_or_else(|| to_remote::<F>(ctx, &packet), |side| Ok(into_pod(ctx, side)))
}

#[inline(always)]
fn arp(ctx: &TcContext, link: &Link) -> Result<i32, Reason> {
    let frame = header::<ARP_LEN>(ctx, 0).ok_or(Reason::Malformed)?;
    if frame::arp_is_from(frame, link) { Ok(NEXT) } else { Err(Reason::SpoofedSource) }
}

/// Neighbour discovery does not leave the link, and is not tracked.
#[inline(always)]
fn discovery(ctx: &TcContext) -> Result<i32, Reason> {
    if nk_discovery(ctx.skb.skb) == 0 { Ok(NEXT) } else { Err(Reason::NeighbourDiscovery) }
}

/// Zero when the pod may send this message of neighbour discovery.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn nk_discovery(skb: *mut __sk_buff) -> u32 {
    let ctx = &TcContext::new(skb);
    // SAFETY: the context is the kernel's.
    let (ifindex, frame) = unsafe { ((*skb).ifindex, (*skb).len as usize) };
    let message = || {
        let packet = parse(header(ctx, 0)?).ok()?;
        let mut bytes = [0; LONG_LEN];
        match frame.checked_sub(IPV6_LEN)? {
            SHORT_LEN => bytes[..SHORT_LEN].copy_from_slice(header::<SHORT_LEN>(ctx, IPV6_LEN)?),
            LONG_LEN => bytes = *header(ctx, IPV6_LEN)?,
            _ => return None,
        }
        let Ip { source_mac, source, protocol, .. } = packet;
        let hop_limit = ctx.load(HOP_LIMIT).ok()?;
        let message = Message { source_mac, source, hop_limit, bytes, length: frame - IPV6_LEN };
        // Behind an extension header it is none.
        (protocol == ICMPV6).then_some(message)
    };
    match (maps::link(ifindex), message()) {
        (Some(link), Some(message)) => u32::from(discovery::check(&message, link).is_err()),
        _ => 1,
    }
}

/// When another node owns the destination: into the tunnel, or to that node as the next hop. Else to the host stack.
#[inline(always)]
fn to_remote<F: Family>(ctx: &TcContext, packet: &Ip) -> Result<i32, Reason> {
    let Some(peer) = maps::peer(packet.destination) else { return Ok(NEXT) };
    let config = maps::CONFIG.get(0).ok_or(Reason::NoTunnel)?;
    match peer.way {
        tunnels::TUNNEL => {}
        // The host stack cuts, or says that it must not.
        tunnels::DIRECT if fits(ctx, packet, config.direct_mtu) => return Ok(to_neighbour(peer)),
        _ => return Ok(NEXT),
    }
    if config.vxlan_ifindex == 0 {
        return Err(Reason::NoTunnel);
    }
    if !fits_into::<F>(ctx, packet, config.mtu, &peer.node) {
        return Ok(TOO_BIG);
    }
    set_tunnel(ctx, config, peer.node)?;
    // SAFETY: takes two numbers.
    let action = unsafe { bpf_redirect(config.vxlan_ifindex, 0) };
    i32::try_from(action).map_err(|_| Reason::NoTunnel)
}

#[classifier]
fn to_pod(ctx: TcContext) -> i32 {
    match kind(&ctx) {
        Ok(Packet::Ipv4) => nk_to_pod4(ctx.skb.skb),
        Ok(Packet::Ipv6) => ipv6(&ctx, false, |skb, related| nk_to_pod6(skb, related)),
        Ok(Packet::Arp) => NEXT,
        Err(reason) => verdict(Err(reason)),
    }
}

each_family!(nk_to_pod4, nk_to_pod6, deliver);

#[inline(always)]
fn deliver<F: Family>(ctx: &TcContext, related: u32) -> Result<i32, Reason> {
    let packet = F::read(ctx)?;
    // SAFETY: the context is the kernel's.
    let came_over = unsafe { (*ctx.skb.skb).ingress_ifindex };
    // Pods of this node are sent to each other by `from_pod`: over another device this is somebody in a pod's name.
    if came_over != 0 && maps::local_pod(packet.source).is_some_and(|own| own.ifindex() != came_over) {
        return Err(Reason::SpoofedSource);
    }
    let ends = Ends { from_pod: false, to_pod: true, from_node: came_over == 0 };
    match admit::<F>(ctx, &packet, ends, related)? {
        Admitted::Passes => Ok(NEXT),
        Admitted::Asks => Ok(related::ASKS),
    }
}

/// Does nothing: what the kernel takes to run a program at all, for measurements.
#[classifier]
fn empty(_ctx: TcContext) -> i32 {
    NEXT
}
