// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Packets of pods that do not fit into the tunnel: the pod hears so at once, as from a router with a smaller link behind
//! it. The answer is one packet of at most 176 bytes for one that was larger, and goes to nobody but its sender, whose
//! address was checked: nothing is amplified, and no limit on the rate is needed.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_csum_diff, generated::bpf_skb_change_tail},
    programs::TcContext,
};
use netkeel_dataplane_common::{
    Address, Reason,
    frame::{ETHERNET_LEN, Ip},
    too_big::{
        self, HEADERS4, HEADERS6, ICMP4, PSEUDO6, QUOTED4, QUOTED6, SUM, SUMMED6, TCP_WORDS, headers4,
        headers6,
    },
    transport::TCP,
};

use crate::{
    flow::transport,
    maps,
    packet::{Family, V4, V6, header, past_queue, verdict},
};

/// That a packet is too big. No action of a program.
pub(crate) const TOO_BIG: i32 = 0x102;

/// `BPF_ADJ_ROOM_MAC`: behind the Ethernet header.
const BEHIND_MAC: u32 = 1;

/// Whether a packet fits into the tunnel to this node. One of IPv4 that may be fragmented does all the same where the outer
/// packet is fragmented in its stead: over IPv4.
#[inline(always)]
pub(crate) fn fits_into<F: Family>(ctx: &TcContext, packet: &Ip, mtu: u32, node: &Address) -> bool {
    fits(ctx, packet, mtu) || (!F::V6 && node.is_v4() && may_be_fragmented(ctx))
}

/// Whether a packet, or each segment of what the kernel cuts later, is no larger than this.
#[inline(always)]
pub(crate) fn fits(ctx: &TcContext, packet: &Ip, mtu: u32) -> bool {
    // SAFETY: the context is the kernel's.
    let (frame, segment) = unsafe { ((*ctx.skb.skb).len, (*ctx.skb.skb).gso_size) };
    if mtu == 0 || frame as usize <= mtu as usize + ETHERNET_LEN {
        return true;
    }
    let words = if segment != 0 && packet.protocol == TCP {
        ctx.load(packet.payload + TCP_WORDS).unwrap_or_default()
    } else {
        0
    };
    too_big::size(frame, segment, packet, words) <= mtu
}

/// Whether an IPv4 packet does not say "don't fragment".
#[inline(always)]
fn may_be_fragmented(ctx: &TcContext) -> bool {
    const FLAGS: usize = 20;
    const DONT_FRAGMENT: u8 = 0x40;
    ctx.load::<u8>(FLAGS).is_ok_and(|flags| flags & DONT_FRAGMENT == 0)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn nk_too_big4(skb: *mut __sk_buff) -> i32 {
    verdict(answer4(&TcContext::new(skb)))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn nk_too_big6(skb: *mut __sk_buff) -> i32 {
    verdict(answer6(&TcContext::new(skb)))
}

#[inline(always)]
fn answer4(ctx: &TcContext) -> Result<i32, Reason> {
    let packet = V4::read(ctx)?;
    let mut headers = headers4(&packet.source, tell::<V4>(ctx, &packet, QUOTED4)?);
    let sum = sum(&headers[ICMP4..], 0);
    let checksum = too_big::fold(quoted::<QUOTED4>(ctx, sum)?);
    headers[ICMP4 + SUM..ICMP4 + SUM + 2].copy_from_slice(&checksum.to_ne_bytes());
    send_back::<HEADERS4>(ctx, &headers)
}

#[inline(always)]
fn answer6(ctx: &TcContext) -> Result<i32, Reason> {
    const ICMP6: usize = 40;
    let packet = V6::read(ctx)?;
    let mut headers = headers6(&packet.source, tell::<V6>(ctx, &packet, QUOTED6)?);
    let sum = sum(&headers[SUMMED6..], PSEUDO6);
    let checksum = too_big::fold(quoted::<QUOTED6>(ctx, sum)?);
    headers[ICMP6 + SUM..ICMP6 + SUM + 2].copy_from_slice(&checksum.to_ne_bytes());
    send_back::<HEADERS6>(ctx, &headers)
}

/// Cuts the packet to what is quoted of it, and gives the size that would have passed.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "less than a frame")]
fn tell<F: Family>(ctx: &TcContext, packet: &Ip, quoted: usize) -> Result<u32, Reason> {
    if !too_big::is_told(packet, quoted, transport::<F>(ctx, packet)?.kind) {
        return Err(Reason::TooBig);
    }
    let mtu = maps::CONFIG.get(0).ok_or(Reason::TooBig)?.mtu;
    // SAFETY: the context is the kernel's.
    let cut = unsafe { bpf_skb_change_tail(ctx.skb.skb, (ETHERNET_LEN + quoted) as u32, 0) };
    if cut == 0 { Ok(mtu) } else { Err(Reason::TooBig) }
}

/// Adds what is quoted to a sum.
#[inline(always)]
fn quoted<const N: usize>(ctx: &TcContext, seed: u32) -> Result<u32, Reason> {
    let bytes: &[u8; N] = header(ctx, ETHERNET_LEN).ok_or(Reason::TooBig)?;
    Ok(sum(bytes, seed))
}

/// Adds bytes, a multiple of four, to a sum.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "32 bits that are no error")]
fn sum(bytes: &[u8], seed: u32) -> u32 {
    // SAFETY: the bytes are where they are said to be, and the kernel only reads them.
    let sum = unsafe {
        bpf_csum_diff(core::ptr::null_mut(), 0, bytes.as_ptr().cast_mut().cast(), bytes.len() as u32, seed)
    };
    sum as u32
}

/// Puts the headers in front of what is quoted, and gives all to the pod that it came from.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "two headers")]
fn send_back<const N: usize>(ctx: &TcContext, headers: &[u8; N]) -> Result<i32, Reason> {
    let refused = |_| Reason::TooBig;
    ctx.skb.adjust_room(N as i32, BEHIND_MAC, 0).map_err(refused)?;
    ctx.store(ETHERNET_LEN, headers, 0).map_err(refused)?;
    maps::count(Reason::TooBig);
    // SAFETY: the context is the kernel's.
    Ok(past_queue(ctx, unsafe { (*ctx.skb.skb).ifindex }))
}
