// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the packet programs share: reading a frame, tunnel keys, redirects, and the end of every path.

use core::mem;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_redir_neigh,
        bpf_tunnel_key,
    },
    helpers::{
        bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key,
    },
    programs::TcContext,
};
use netkeel_dataplane_common::{
    Address, Config, Reason, VNI,
    endpoints::HostSide,
    frame::{
        self, Ip, Packet,
        ipv6::{self, EXTENSIONS, IPV6_LEN, Walk},
    },
    tunnels::Tunnel,
};

use crate::{
    flow::{related, related::nk_is_related6},
    maps,
};

/// The next program on this hook, then the host stack. Zero would end the chain of programs.
pub(crate) const NEXT: i32 = TC_ACT_UNSPEC;

/// `PACKET_HOST`: the packet is for this host, whatever its MAC address says.
const PACKET_HOST: u32 = 0;
/// Time to live of the outer packet.
const OUTER_TTL: u8 = 64;

/// The end of every path: what to do with the packet, or why it is dropped.
#[inline(always)]
pub(crate) fn verdict(decision: Result<i32, Reason>) -> i32 {
    decision.unwrap_or_else(|reason| {
        maps::count(reason);
        TC_ACT_SHOT
    })
}

/// What kind of packet a frame carries.
#[inline(always)]
pub(crate) fn kind(ctx: &TcContext) -> Result<Packet, Reason> {
    frame::kind(header(ctx, 0).ok_or(Reason::Malformed)?)
}

/// The families. What is done with a packet of one is a function of its own, with a stack and a verification of its own.
pub(crate) trait Family {
    /// This is IPv6.
    const V6: bool;

    /// Reads the first header alone: of what follows only the number is known.
    fn first(ctx: &TcContext) -> Result<Ip, Reason>;

    /// Reads on from the first header to that of the transport.
    fn rest(ctx: &TcContext, first: Ip) -> Result<Ip, Reason>;

    /// Reads a packet's headers up to that of the transport.
    #[inline(always)]
    fn read(ctx: &TcContext) -> Result<Ip, Reason> {
        Self::rest(ctx, Self::first(ctx)?)
    }
}

pub(crate) struct V4;
pub(crate) struct V6;

/// The two functions of a hook that end with its verdict, by their names, IPv4 first, and by what decides for a [`Family`].
macro_rules! each_family {
    ($four:ident, $six:ident, $decide:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $four(skb: *mut ::aya_ebpf::bindings::__sk_buff) -> i32 {
            let ctx = ::aya_ebpf::programs::TcContext::new(skb);
            $crate::packet::verdict($decide::<$crate::packet::V4>(&ctx, $crate::flow::related::UNKNOWN))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $six(skb: *mut ::aya_ebpf::bindings::__sk_buff, related: u32) -> i32 {
            let ctx = ::aya_ebpf::programs::TcContext::new(skb);
            $crate::packet::verdict($decide::<$crate::packet::V6>(&ctx, related))
        }
    };
}
pub(crate) use each_family;

impl Family for V4 {
    const V6: bool = false;

    #[inline(always)]
    fn first(ctx: &TcContext) -> Result<Ip, Reason> {
        frame::ipv4(header(ctx, 0).ok_or(Reason::Malformed)?)
    }

    #[inline(always)]
    fn rest(_ctx: &TcContext, first: Ip) -> Result<Ip, Reason> {
        Ok(first)
    }
}

impl Family for V6 {
    const V6: bool = true;

    #[inline(always)]
    fn first(ctx: &TcContext) -> Result<Ip, Reason> {
        ipv6::parse(header(ctx, 0).ok_or(Reason::Malformed)?)
    }

    #[inline(always)]
    fn rest(ctx: &TcContext, first: Ip) -> Result<Ip, Reason> {
        if !ipv6::is_extension(first.protocol) {
            return Ok(first);
        }
        match nk_extensions(ctx.skb.skb, first.protocol) {
            0 => Err(Reason::ExtensionHeader),
            word => Ok(Walk::from_word(word).packet(&first)),
        }
    }
}

/// Runs a hook on an IPv6 packet: once more where it asks whether an ICMP error is about a known flow.
#[inline(always)]
pub(crate) fn ipv6(ctx: &TcContext, from_pod: bool, hook: impl Fn(*mut __sk_buff, u32) -> i32) -> i32 {
    let skb = ctx.skb.skb;
    match hook(skb, related::UNKNOWN) {
        related::ASKS => hook(skb, nk_is_related6(skb, from_pod)),
        action => action,
    }
}

/// Walks over the headers from the first one, which has this number. Zero when there is no way over them.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn nk_extensions(skb: *mut __sk_buff, next: u8) -> u64 {
    let ctx = TcContext::new(skb);
    let mut walk = Walk::new(next, IPV6_LEN);
    for _ in 0..EXTENSIONS {
        let Ok(header) = ctx.load(walk.at) else { return 0 };
        let Ok(next) = walk.step(&header) else { return 0 };
        walk = next;
        if walk.is_done() {
            return walk.to_word();
        }
    }
    0
}

/// The bytes of a header that begins at `offset`, where they lie; `None` when the packet is shorter. Not to be kept over a
/// call for another header.
#[inline(always)]
pub(crate) fn header<const N: usize>(ctx: &TcContext, offset: usize) -> Option<&[u8; N]> {
    // Nearly always the head of a packet is in one piece.
    linear(ctx, offset).or_else(|| {
        ctx.pull_data(u32::try_from(offset + N).ok()?).ok()?;
        linear(ctx, offset)
    })
}

#[inline(always)]
fn linear<const N: usize>(ctx: &TcContext, offset: usize) -> Option<&[u8; N]> {
    let start = ctx.data() + offset;
    if start + N > ctx.data_end() {
        return None;
    }
    // SAFETY: the bytes are in the packet, as just checked, and the kernel leaves them there until it is asked to move them.
    Some(unsafe { &*(start as *const [u8; N]) })
}

/// Into the local pod behind this host side of a link: straight, or through the queue that limits the rate.
#[inline(always)]
pub(crate) fn into_pod(ctx: &TcContext, side: HostSide) -> i32 {
    if side.is_shaped() { nk_by_queue(ctx.skb.skb, side.ifindex()) } else { past_queue(ctx, side.ifindex()) }
}

/// Out of the host side with this index, as the host stack would send it: through `to_pod`, which judges the packet once more,
/// and the device's queue.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn nk_by_queue(skb: *mut __sk_buff, ifindex: u32) -> i32 {
    let ctx = TcContext::new(skb);
    let Some(link) = maps::link(ifindex) else { return verdict(Err(Reason::UnknownLink)) };
    if ctx.store(0, &link.mac, 0).is_err() {
        return verdict(Err(Reason::Malformed));
    }
    // SAFETY: takes two numbers.
    let action = unsafe { bpf_redirect(ifindex, 0) };
    i32::try_from(action).unwrap_or(TC_ACT_SHOT)
}

/// Straight into the local pod behind the link with this index.
#[inline(always)]
pub(crate) fn past_queue(ctx: &TcContext, ifindex: u32) -> i32 {
    for_this_host(ctx);
    // SAFETY: takes two numbers. `ENDPOINTS` holds only host sides of veth pairs, and all callers run at ingress.
    let action = unsafe { bpf_redirect_peer(ifindex, 0) };
    i32::try_from(action).unwrap_or(TC_ACT_SHOT)
}

/// To another node as the next hop on a subnet of this one. No route is asked: the agent has, and looks again when addresses change.
#[inline(always)]
pub(crate) fn to_neighbour(peer: &Tunnel) -> i32 {
    // SAFETY: integers and a union of integers: all zero is a value.
    let mut next: bpf_redir_neigh = unsafe { mem::zeroed() };
    if let Some(word) = peer.gateway.as_v4_word() {
        next.nh_family = AF_INET;
        next.__bindgen_anon_1.ipv4_nh = word;
    } else {
        next.nh_family = AF_INET6;
        next.__bindgen_anon_1.ipv6_nh = peer.gateway.words();
    }
    // SAFETY: a whole struct on the stack. The kernel drops, and counts at the device, what it cannot send.
    let action = unsafe { bpf_redirect_neigh(peer.ifindex, &raw mut next, NEXT_HOP_LEN, 0) };
    i32::try_from(action).unwrap_or(TC_ACT_SHOT)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a struct of 20 bytes")]
const NEXT_HOP_LEN: i32 = mem::size_of::<bpf_redir_neigh>() as i32;
/// Address families as Linux numbers them.
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// Lets the packet into the host stack, which drops what another MAC address was written on.
#[inline(always)]
pub(crate) fn for_this_host(ctx: &TcContext) {
    if !is_for_this_host(ctx) {
        // Fails only on a type that is not PACKET_*.
        let _: Result<(), _> = ctx.change_type(PACKET_HOST);
    }
}

/// Whether the frame was sent to this host's MAC address.
#[inline(always)]
pub(crate) fn is_for_this_host(ctx: &TcContext) -> bool {
    // SAFETY: the context is the kernel's.
    unsafe { (*ctx.skb.skb).pkt_type == PACKET_HOST }
}

/// Gives the packet the outer header that the VXLAN device will put on.
#[inline(always)]
pub(crate) fn set_tunnel(ctx: &TcContext, config: &Config, node: Address) -> Result<(), Reason> {
    let local = config.towards(&node).ok_or(Reason::TunnelKey)?;
    // SAFETY: integers and unions of integers: all zero is a value.
    let mut key: bpf_tunnel_key = unsafe { mem::zeroed() };
    key.tunnel_id = VNI;
    key.tunnel_ttl = OUTER_TTL;
    let family = if let (Some(remote), Some(local)) = (node.as_v4_word(), local.as_v4_word()) {
        // The kernel takes these two in host byte order.
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be(remote);
        key.__bindgen_anon_3.local_ipv4 = u32::from_be(local);
        0
    } else {
        key.__bindgen_anon_1.remote_ipv6 = node.words();
        key.__bindgen_anon_3.local_ipv6 = local.words();
        BPF_F_TUNINFO_IPV6
    };
    let flags = u64::from(BPF_F_ZERO_CSUM_TX | family);
    // SAFETY: the context is the kernel's, the key a whole one on the stack.
    let set = unsafe { bpf_skb_set_tunnel_key(ctx.skb.skb, &raw mut key, KEY_LEN, flags) };
    if set == 0 { Ok(()) } else { Err(Reason::TunnelKey) }
}

/// The outer header's sender and network identifier of a packet out of the tunnel, its receiver of one into it.
#[inline(always)]
pub(crate) fn tunnel(ctx: &TcContext) -> Option<(Address, u32)> {
    // SAFETY: integers and unions of integers: all zero is a value.
    let mut key: bpf_tunnel_key = unsafe { mem::zeroed() };
    // The kernel gives a key of the family that it is asked for, or none. There is room for one on the stack.
    // SAFETY: the context is the kernel's, the key a whole one on the stack.
    let mut get = |flags| unsafe { bpf_skb_get_tunnel_key(ctx.skb.skb, &raw mut key, KEY_LEN, flags) };
    if get(0) == 0 {
        // SAFETY: without BPF_F_TUNINFO_IPV6 the kernel fills the IPv4 address.
        let remote = unsafe { key.__bindgen_anon_1.remote_ipv4 };
        return Some((Address::v4_word(remote.to_be()), key.tunnel_id));
    }
    if get(u64::from(BPF_F_TUNINFO_IPV6)) != 0 {
        return None;
    }
    // SAFETY: with it the IPv6 address.
    let remote = unsafe { key.__bindgen_anon_1.remote_ipv6 };
    Some((Address::from_words(remote), key.tunnel_id))
}

#[expect(clippy::cast_possible_truncation, reason = "a struct of 44 bytes")]
const KEY_LEN: u32 = mem::size_of::<bpf_tunnel_key>() as u32;
