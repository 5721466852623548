// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The VXLAN device. `to_overlay`: what the host sends gets its tunnel by destination. `from_overlay`: only
//! known nodes, each with its own pods as source; then straight into the local pod where policy lets it, or to the host stack.

use aya_ebpf::{macros::classifier, programs::TcContext};
use netkeel_dataplane_common::{
    Reason,
    frame::{self, Packet},
};

use crate::{
    flow::{Ends, admit},
    maps,
    packet::{NEXT, for_this_host, into_pod, read, set_tunnel, tunnel, verdict},
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
    let Packet::Ipv4(packet) = read(ctx)? else { return Err(Reason::UnknownProtocol) };
    let node = maps::owner(packet.destination).ok_or(Reason::NoTunnel)?;
    let config = maps::CONFIG.get(0).ok_or(Reason::NoTunnel)?;
    set_tunnel(ctx, config, node)?;
    Ok(NEXT)
}

#[classifier]
fn from_overlay(ctx: TcContext) -> i32 {
    verdict(receive(&ctx))
}

#[inline(always)]
fn receive(ctx: &TcContext) -> Result<i32, Reason> {
    let (outer, vni) = tunnel(ctx).ok_or(Reason::ForgedTunnel)?;
    let Packet::Ipv4(packet) = read(ctx)? else { return Err(Reason::UnknownProtocol) };
    frame::check_tunnel(maps::owner(packet.source), outer, vni)?;
    let Some(ifindex) = maps::local_pod(packet.destination) else {
        for_this_host(ctx);
        return Ok(NEXT);
    };
    admit(ctx, &packet, Ends { from_pod: false, to_pod: true, from_node: false })?;
    Ok(into_pod(ctx, ifindex))
}
