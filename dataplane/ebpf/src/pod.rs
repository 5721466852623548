// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The two ends of a pod's link on the host side. `from_pod`: what the pod sends, only as itself and where policy lets it;
//! then straight to the local pod, into the tunnel, or to the host stack. `to_pod`: what the host stack sends to the pod.

use aya_ebpf::{helpers::bpf_redirect, macros::classifier, programs::TcContext};
use netkeel_dataplane_common::{
    Reason,
    frame::{self, ARP_LEN, Packet},
    links::Link,
};

use crate::{
    flow::{Ends, admit},
    maps,
    packet::{NEXT, into_pod, read, set_tunnel, verdict},
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
            let local = maps::local_pod(packet.destination);
            admit(ctx, &packet, Ends { from_pod: true, to_pod: local.is_some(), from_node: false })?;
            local.map_or_else(|| to_remote(ctx, &packet), |ifindex| Ok(into_pod(ctx, ifindex)))
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

#[classifier]
fn to_pod(ctx: TcContext) -> i32 {
    verdict(deliver(&ctx))
}

#[inline(always)]
fn deliver(ctx: &TcContext) -> Result<i32, Reason> {
    match read(ctx)? {
        Packet::Arp => {}
        Packet::Ipv4(packet) => {
            // SAFETY: the context is the kernel's.
            let came_over = unsafe { (*ctx.skb.skb).ingress_ifindex };
            admit(ctx, &packet, Ends { from_pod: false, to_pod: true, from_node: came_over == 0 })?;
        }
    }
    Ok(NEXT)
}

/// Does nothing: what the kernel takes to run a program at all, for measurements.
#[classifier]
fn empty(_ctx: TcContext) -> i32 {
    NEXT
}
