// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The VXLAN device. `to_overlay`: what the host sends gets its tunnel by destination. `from_overlay`: only
//! known nodes, each with its own pods as source; then straight into the local pod, or to the host stack.

use aya_ebpf::{macros::classifier, programs::TcContext};
use netkeel_dataplane_common::{
    Reason,
    frame::{self, Packet},
};

use crate::{
    maps,
    packet::{NEXT, for_this_host, read, set_tunnel, to_local_pod, tunnel, verdict},
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
    Ok(to_local_pod(ctx, packet.destination).unwrap_or_else(|| {
        for_this_host(ctx);
        NEXT
    }))
}
