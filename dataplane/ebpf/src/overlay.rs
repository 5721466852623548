// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The VXLAN device. `to_overlay`: what the host sends gets its tunnel by destination. `from_overlay`: only
//! known nodes, each with its own pods as source; then straight into the local pod where policy lets it, or to the host stack.

use aya_ebpf::{macros::classifier, programs::TcContext};
use netkeel_dataplane_common::{
    Reason,
    frame::{self, Packet},
};

use crate::{
    flow::{Admitted, Ends, admit, is_discovery, related},
    maps,
    packet::{
        Family, NEXT, V4, V6, each_family, for_this_host, into_pod, ipv6, kind, set_tunnel, tunnel, verdict,
    },
};

#[classifier]
fn to_overlay(ctx: TcContext) -> i32 {
    verdict(send(&ctx))
}

#[inline(always)]
fn send(ctx: &TcContext) -> Result<i32, Reason> {
    if tunnel(ctx).is_some() {
        return Ok(NEXT); // set by `from_pod`
    }
    let packet = match kind(ctx)? {
        Packet::Ipv4 => V4::read(ctx)?,
        Packet::Ipv6 => V6::read(ctx)?,
        Packet::Arp => return Err(Reason::UnknownProtocol),
    };
    if packet.is_multicast6() {
        return Err(Reason::Multicast); // what the kernel tells every link
    }
    let node = maps::owner(packet.destination).ok_or(Reason::NoTunnel)?;
    let config = maps::CONFIG.get(0).ok_or(Reason::NoTunnel)?;
    set_tunnel(ctx, config, node)?;
    Ok(NEXT)
}

#[classifier]
fn from_overlay(ctx: TcContext) -> i32 {
    match kind(&ctx) {
        Ok(Packet::Ipv4) => nk_from_overlay4(ctx.skb.skb),
        Ok(Packet::Ipv6) => ipv6(&ctx, false, |skb, related| nk_from_overlay6(skb, related)),
        Ok(Packet::Arp) => verdict(Err(Reason::UnknownProtocol)),
        Err(reason) => verdict(Err(reason)),
    }
}

each_family!(nk_from_overlay4, nk_from_overlay6, receive);

#[inline(always)]
fn receive<F: Family>(ctx: &TcContext, related: u32) -> Result<i32, Reason> {
    let (outer, vni) = tunnel(ctx).ok_or(Reason::ForgedTunnel)?;
    let packet = F::read(ctx)?;
    frame::check_tunnel(maps::owner(packet.source), outer, vni)?;
    if F::V6 && is_discovery(ctx, &packet) {
        return Err(Reason::NeighbourDiscovery);
    }
    let Some(side) = maps::local_pod(packet.destination) else {
        for_this_host(ctx);
        return Ok(NEXT);
    };
    let ends = Ends { from_pod: false, to_pod: true, from_node: false };
    match admit::<F>(ctx, &packet, ends, related)? {
        Admitted::Passes => Ok(into_pod(ctx, side)),
        Admitted::Asks => Ok(related::ASKS),
    }
}
