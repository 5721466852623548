// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The node's own interfaces. `from_underlay`: what another node's pods send without the tunnel goes straight into the local pod where
//! policy lets it, and nobody outside speaks in the name of a pod of this node. All else is the host stack's. Frames of a VLAN are of
//! another device, which has a program of its own where it carries nodes' packets.

use aya_ebpf::{macros::classifier, programs::TcContext};
use netkeel_dataplane_common::{Reason, frame::Packet, tunnels};

use crate::{
    flow::{Admitted, Ends, admit, related},
    maps,
    packet::{Family, NEXT, each_family, into_pod, ipv6, is_for_this_host, kind},
};

#[classifier]
fn from_underlay(ctx: TcContext) -> i32 {
    match kind(&ctx) {
        Ok(Packet::Ipv4) => nk_from_underlay4(ctx.skb.skb),
        Ok(Packet::Ipv6) => ipv6(&ctx, false, |skb, related| nk_from_underlay6(skb, related)),
        _ => NEXT,
    }
}

each_family!(nk_from_underlay4, nk_from_underlay6, arrive);

/// What is for another host, or cannot be read, is not for a pod as far as anybody knows, and the host stack drops it or not.
#[inline(always)]
fn arrive<F: Family>(ctx: &TcContext, related: u32) -> Result<i32, Reason> {
    // SAFETY: the context is the kernel's.
    if unsafe { (*ctx.skb.skb).vlan_present } != 0 {
        return Ok(NEXT);
    }
    let Ok(first) = F::first(ctx) else { return Ok(NEXT) };
    // Before the MAC address is asked: the host stack takes broadcast and multicast frames too.
    if maps::local_pod(first.source).is_some() {
        return Err(Reason::SpoofedSource);
    }
    if !is_for_this_host(ctx) {
        return Ok(NEXT);
    }
    let Some(side) = maps::local_pod(first.destination) else { return Ok(NEXT) };
    // Where the host stack sends, it has to see the answers too: somebody's firewall may count them.
    if maps::peer(first.source).is_none_or(|peer| peer.way == tunnels::STACK) {
        return Ok(NEXT);
    }
    let packet = F::rest(ctx, first)?;
    let ends = Ends { from_pod: false, to_pod: true, from_node: false };
    match admit::<F>(ctx, &packet, ends, related)? {
        Admitted::Passes => Ok(into_pod(ctx, side)),
        Admitted::Asks => Ok(related::ASKS),
    }
}
