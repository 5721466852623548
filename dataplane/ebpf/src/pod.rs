// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `from_pod`: what a pod sends. Only as itself; then straight to the local pod, into the tunnel, or to the host stack.

use aya_ebpf::{helpers::bpf_redirect, macros::classifier, programs::TcContext};
use netkeel_dataplane_common::{
    Reason,
    frame::{self, ARP_LEN, Packet},
    links::Link,
};

use crate::{
    maps,
    packet::{NEXT, read, set_tunnel, to_local_pod, verdict},
};

#[classifier]
fn from_pod(ctx: TcContext) -> i32 {
    verdict(decide(&ctx))
}

#[inline(always)]
fn decide(ctx: &TcContext) -> Result<i32, Reason> {
    // SAFETY: the context is the kernel's.
    let (ifindex, tagged) = unsafe { ((*ctx.skb.skb).ifindex, (*ctx.skb.skb).vlan_present) };
    if tagged != 0 {
        return Err(Reason::UnknownProtocol);
    }
    let link = maps::link(ifindex).ok_or(Reason::UnknownLink)?;
    match read(ctx)? {
        Packet::Arp => arp(ctx, &link),
        Packet::Ipv4(packet) if frame::is_from(&packet, &link) => {
            to_local_pod(ctx, packet.destination).map_or_else(|| to_remote(ctx, &packet), Ok)
        }
        Packet::Ipv4(_) => Err(Reason::SpoofedSource),
    }
}

#[inline(always)]
fn arp(ctx: &TcContext, link: &Link) -> Result<i32, Reason> {
    let frame: [u8; ARP_LEN] = ctx.load(0).map_err(|_| Reason::Malformed)?;
    if frame::arp_is_from(&frame, link) { Ok(NEXT) } else { Err(Reason::SpoofedSource) }
}

/// Into the tunnel when another node owns the destination, else to the host stack.
#[inline(always)]
fn to_remote(ctx: &TcContext, packet: &frame::Ipv4) -> Result<i32, Reason> {
    let Some(node) = maps::owner(packet.destination) else { return Ok(NEXT) };
    let config = maps::CONFIG.get(0).filter(|config| config.vxlan_ifindex != 0).ok_or(Reason::NoTunnel)?;
    set_tunnel(ctx, config, node)?;
    // SAFETY: takes two numbers.
    let action = unsafe { bpf_redirect(config.vxlan_ifindex, 0) };
    i32::try_from(action).map_err(|_| Reason::NoTunnel)
}
