// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The socket hooks: a service's address becomes a backend's when a socket connects or sends, and the
//! backend's becomes the service's again when the socket asks who it talks to. A v4-mapped socket's
//! `sendto` runs `sendmsg4` and its answer `recvmsg6`, so both families share one record.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_ANY, bpf_sock_addr},
    helpers::{bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_set_retval, generated::bpf_get_netns_cookie},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use netkeel_dataplane_common::{
    Address, Protocol, Reason,
    backends::Backend,
    host_ports::{self, HostPort},
    reverse::Translated,
    services::{self, Frontend},
};

use crate::maps::{self, REVERSE};

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
const ECONNREFUSED: i32 = 111;
/// `TCP_ESTABLISHED`, which a connected UDP socket has too.
const CONNECTED: u32 = 1;

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    towards::<V4>(&ctx)
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    towards::<V6>(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    // A connected v4-mapped socket comes here at each send, with the backend that `connect6` chose. That
    // address must be left alone, even where it is a service's too.
    if is_peer(&ctx) { ALLOW } else { towards::<V4>(&ctx) }
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    towards::<V6>(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    back::<V4>(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    back::<V6>(&ctx)
}

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    back::<V4>(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    back::<V6>(&ctx)
}

/// Where a family keeps its address in the context. The verifier takes only whole words at fixed places,
/// hence the volatile accesses.
trait Family {
    fn read(addr: *const bpf_sock_addr) -> Address;
    /// Writes the address; false when this family cannot hold it.
    fn write(addr: *mut bpf_sock_addr, address: Address) -> bool;
}

struct V4;
struct V6;

impl Family for V4 {
    #[inline(always)]
    fn read(addr: *const bpf_sock_addr) -> Address {
        // SAFETY: the context is the kernel's, and the field belongs to this hook's family.
        Address::v4_word(unsafe { (&raw const (*addr).user_ip4).read_volatile() })
    }

    #[inline(always)]
    fn write(addr: *mut bpf_sock_addr, address: Address) -> bool {
        let Some(word) = address.as_v4_word() else { return false };
        // SAFETY: as in `read`.
        unsafe { (&raw mut (*addr).user_ip4).write_volatile(word) };
        true
    }
}

impl Family for V6 {
    #[inline(always)]
    fn read(addr: *const bpf_sock_addr) -> Address {
        // SAFETY: the context is the kernel's, and the field belongs to this hook's family.
        unsafe {
            Address::from_words([
                (&raw const (*addr).user_ip6[0]).read_volatile(),
                (&raw const (*addr).user_ip6[1]).read_volatile(),
                (&raw const (*addr).user_ip6[2]).read_volatile(),
                (&raw const (*addr).user_ip6[3]).read_volatile(),
            ])
        }
    }

    #[inline(always)]
    fn write(addr: *mut bpf_sock_addr, address: Address) -> bool {
        let [a, b, c, d] = address.words();
        // SAFETY: as in `read`.
        unsafe {
            (&raw mut (*addr).user_ip6[0]).write_volatile(a);
            (&raw mut (*addr).user_ip6[1]).write_volatile(b);
            (&raw mut (*addr).user_ip6[2]).write_volatile(c);
            (&raw mut (*addr).user_ip6[3]).write_volatile(d);
        }
        true
    }
}

/// The address and port in the context.
#[inline(always)]
fn peer<F: Family>(ctx: &SockAddrContext) -> Backend {
    // SAFETY: the context is the kernel's.
    let port = unsafe { (&raw const (*ctx.sock_addr).user_port).read_volatile() };
    Backend::from_wire(F::read(ctx.sock_addr), wire_port(port))
}

#[inline(always)]
fn set_peer<F: Family>(ctx: &SockAddrContext, to: Backend) -> bool {
    if !F::write(ctx.sock_addr, to.address) {
        return false;
    }
    // SAFETY: the context is the kernel's.
    unsafe { (&raw mut (*ctx.sock_addr).user_port).write_volatile(u32::from(to.port)) };
    true
}

/// The context keeps a port, in network byte order, in the low half of a word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the upper half is zero")]
const fn wire_port(port: u32) -> u16 {
    port as u16
}

#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the context is the kernel's.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// From a service to one of its backends; everything else is left alone.
#[inline(always)]
fn towards<F: Family>(ctx: &SockAddrContext) -> i32 {
    // SAFETY: the context is the kernel's.
    let number = unsafe { (*ctx.sock_addr).protocol };
    let Some(protocol) = Protocol::from_number(number) else { return ALLOW };
    let asked = peer::<F>(ctx);
    let frontend =
        Frontend { address: asked.address, port: asked.port, protocol: protocol as u8, reserved: 0 };
    let (cookie, backend) = if let Some(service) = maps::service(frontend) {
        let cookie = cookie(ctx);
        let Some(backend) = choose(&service, chance(protocol, cookie)) else { return refuse() };
        (cookie, backend)
    } else {
        let Some(backend) = host_port(ctx, frontend) else { return ALLOW };
        (cookie(ctx), backend)
    };
    remember(Translated::new(cookie, backend), asked);
    if set_peer::<F>(ctx, backend) { ALLOW } else { refuse() }
}

/// The pod behind a port of this node. A loopback address is the node's to processes of the node alone.
#[inline(always)]
fn host_port(ctx: &SockAddrContext, frontend: Frontend) -> Option<Backend> {
    let asked = if host_ports::is_loopback(&frontend.address) {
        // SAFETY: the context is the kernel's.
        HostPort::within(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }, frontend)
    } else {
        HostPort::anywhere(frontend)
    };
    maps::host_port(asked)
}

/// What decides on the backend. All datagrams of a socket go to the same one, connected or not: they may be one
/// exchange. A new connection is a new choice.
#[inline(always)]
fn chance(protocol: Protocol, cookie: u64) -> u32 {
    match protocol {
        // SAFETY: takes nothing.
        Protocol::Tcp => unsafe { bpf_get_prandom_u32() },
        Protocol::Udp => services::spread(cookie),
    }
}

/// The backend that a client with this number gets. The agent may be taking the last slot away: then the first is as good.
#[inline(always)]
fn choose(service: &services::Service, random: u32) -> Option<Backend> {
    let slot = services::slot(random, service.count)?;
    maps::backend(service.id, slot).or_else(|| maps::backend(service.id, 0))
}

/// Records what the socket asked for. Most sends of an unconnected socket find their record and write nothing.
#[inline(always)]
fn remember(key: Translated, asked: Backend) {
    // SAFETY: compared at once; an element reused meanwhile differs, and is then written anew.
    let known = unsafe { REVERSE.get(key) }.is_some_and(|known| *known == asked);
    if !known {
        // Fails only when memory is short: then the client hears the backend's own address.
        let _: Result<(), _> = REVERSE.insert(key, asked, u64::from(BPF_ANY));
    }
}

/// As a host without a listener would answer.
#[inline(always)]
fn refuse() -> i32 {
    maps::count(Reason::NoEndpoints);
    // SAFETY: takes a number.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    REFUSE
}

/// Whether the socket is connected to the address it now sends to.
#[inline(always)]
fn is_peer(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context is the kernel's, and so is the socket in it.
    unsafe {
        let addr = ctx.sock_addr;
        let sk = (*addr).__bindgen_anon_1.sk;
        (*sk).state == CONNECTED
            && (*sk).dst_ip4 == (&raw const (*addr).user_ip4).read_volatile()
            && (*sk).dst_port == wire_port((&raw const (*addr).user_port).read_volatile())
    }
}

/// From a backend to the service that the socket asked for; everything else is left alone.
#[inline(always)]
fn back<F: Family>(ctx: &SockAddrContext) -> i32 {
    let key = Translated::new(cookie(ctx), peer::<F>(ctx));
    if let Some(asked) = maps::asked(key) {
        set_peer::<F>(ctx, asked);
    }
    ALLOW
}
