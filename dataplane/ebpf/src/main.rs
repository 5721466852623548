// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The kernel programs of a node, in one object: socket hooks, pod links, overlay, underlay. Each reads what it
//! needs, asks a decision of `netkeel-dataplane-common`, and acts. Built by `cargo xtask ebpf`.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![expect(clippy::inline_always, reason = "no structs between functions: five registers, 512 bytes of stack")]
#![expect(clippy::needless_pass_by_value, reason = "the program macros hand the context over by value")]

mod flow;
mod maps;
mod overlay;
mod packet;
mod pod;
mod socket;
mod too_big;
mod underlay;

/// The kernel reads the licence from this section.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
