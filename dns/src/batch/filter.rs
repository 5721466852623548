//! A socket filter in classic BPF (Documentation/networking/filter.rst of the kernel), which needs no privilege: a datagram of a
//! client that is held back passes by chance, all others do.

use libc::sock_filter;

use crate::limit::Client;
use crate::wire::HEADER;

/// Offsets from here on are those of the IP header (`SKF_NET_OFF`), whatever the family of the socket.
const NETWORK: u32 = 0_u32.wrapping_sub(0x10_0000);
/// A random number (`SKF_AD_OFF` and `SKF_AD_RANDOM`).
const RANDOM: u32 = 0_u32.wrapping_sub(0x1000) + 56;
/// Where an IPv4 header and an IPv6 header have their source, in bytes.
const SOURCE_V4: u32 = 12;
const SOURCE_V6: u32 = 8;
/// So many bytes pass of a datagram: all.
const ALL: u32 = u32::MAX;

/// Length of a datagram that is a header alone, as a filter of a UDP socket sees it: behind the UDP header of 8 bytes.
const BARE: u32 = 20;
const _: () = assert!(BARE as usize == 8 + HEADER);

/// `BPF_LD | BPF_W | BPF_LEN`
const LOAD_LENGTH: u16 = 0x80;
/// `BPF_LD | BPF_W | BPF_ABS`
const LOAD: u16 = 0x20;
/// `BPF_LD | BPF_B | BPF_ABS`
const LOAD_BYTE: u16 = 0x30;
/// `BPF_ALU | BPF_RSH | BPF_K`
const SHIFT: u16 = 0x74;
/// `BPF_JMP | BPF_JEQ | BPF_K`
const EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGE | BPF_K`
const AT_LEAST: u16 = 0x35;
/// `BPF_RET | BPF_K`
const RETURN: u16 = 0x06;

const fn step(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Goes on with the next step where it is true, and else leaves out `steps`.
const fn unless(code: u16, k: u32, steps: u8) -> sock_filter {
    sock_filter { code, jt: 0, jf: steps, k }
}

/// Passes with this chance, 0 to 1.
fn lottery(share: f64) -> [sock_filter; 4] {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of 2^32, which saturates"
    )]
    let below = (share * 4_294_967_296.0) as u32;
    [step(LOAD, RANDOM), unless(AT_LEAST, below, 1), step(RETURN, 0), step(RETURN, ALL)]
}

/// The filter for these clients and their shares. What they send of headers alone counts apart, as its length tells.
pub(super) fn program(clients: &[(Client, f64)]) -> Vec<sock_filter> {
    let (bare, rest): (Vec<_>, Vec<_>) = clients.iter().copied().partition(|(client, _)| client.bare);
    let (bare, rest) = (senders(&bare), senders(&rest));
    let begin = [step(LOAD_LENGTH, 0), unless(EQUAL, BARE, u8::try_from(bare.len()).unwrap_or(u8::MAX))];
    begin.into_iter().chain(bare).chain(rest).collect()
}

/// The filter for these clients, whatever their datagrams hold.
fn senders(clients: &[(Client, f64)]) -> Vec<sock_filter> {
    let (mut v4, mut v6) = (vec![step(LOAD, NETWORK.wrapping_add(SOURCE_V4))], vec![]);
    for (Client { address, .. }, share) in clients {
        if let Some(address) = address.to_ipv4_mapped() {
            v4.push(unless(EQUAL, address.to_bits(), 4));
            v4.extend(lottery(*share));
        } else {
            // By four bytes each, from the end, where most differ; what is left out is the rest of the comparison and the lottery.
            let octets = address.octets();
            let words = octets.as_chunks().0.iter().rev().map(|word| u32::from_be_bytes(*word));
            for (word, (at, left)) in words.zip([(12, 10), (8, 8), (4, 6), (0, 4)]) {
                v6.push(step(LOAD, NETWORK.wrapping_add(SOURCE_V6 + at)));
                v6.push(unless(EQUAL, word, left));
            }
            v6.extend(lottery(*share));
        }
    }
    v4.push(step(RETURN, ALL));
    v6.push(step(RETURN, ALL));
    let to_v6 = u8::try_from(v4.len()).unwrap_or(u8::MAX);
    let begin = [step(LOAD_BYTE, NETWORK), step(SHIFT, 4), unless(EQUAL, 4, to_v6)];
    begin.into_iter().chain(v4).chain(v6).collect()
}
