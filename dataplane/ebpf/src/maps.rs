// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The maps. Since Linux 6.1 a hash that allocates on demand may reuse an entry at once, for another key and while
//! it is being read; an LRU hash always may. A socket keeps what it was told, and so does a flow: for them, [`settled`]
//! reads until two lookups agree. A packet that is sent astray by one read is lost or dropped, like any other that meets a pod's end.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
};
use netkeel_dataplane_common::{
    Address, Config, Reason,
    backends::{self, Backend, Slot},
    cidrs,
    conntrack::{self, Entry},
    counters,
    endpoints::{self, Endpoint, HostSide},
    flow::Flow,
    fragments::{self, Recorded},
    host_ports::{self, HostPort},
    identities,
    links::{self, Link},
    policies::{self, Traffic, Verdict},
    reverse::{self, Translated},
    services::{self, Frontend, Service},
    tunnels::{self, Tunnel},
};

#[map]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[map]
static ENDPOINTS: HashMap<Address, Endpoint> = HashMap::with_max_entries(endpoints::MAX, BPF_F_NO_PREALLOC);
#[map]
static LINKS: HashMap<u32, Link> = HashMap::with_max_entries(links::MAX, BPF_F_NO_PREALLOC);
#[map]
static TUNNELS: LpmTrie<Address, Tunnel> = LpmTrie::with_max_entries(tunnels::MAX, 0);
#[map]
static SERVICES: HashMap<Frontend, Service> = HashMap::with_max_entries(services::MAX, BPF_F_NO_PREALLOC);
#[map]
static BACKENDS: HashMap<Slot, Backend> = HashMap::with_max_entries(backends::MAX, BPF_F_NO_PREALLOC);
#[map]
static HOST_PORTS: HashMap<HostPort, Backend> = HashMap::with_max_entries(host_ports::MAX, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static REVERSE: LruHashMap<Translated, Backend> = LruHashMap::with_max_entries(reverse::MAX, 0);
#[map]
static IDENTITIES: HashMap<Address, u32> = HashMap::with_max_entries(identities::MAX, BPF_F_NO_PREALLOC);
#[map]
static CIDRS: LpmTrie<Address, u32> = LpmTrie::with_max_entries(cidrs::MAX, 0);
#[map]
static POLICIES: LpmTrie<Traffic, Verdict> = LpmTrie::with_max_entries(policies::MAX, 0);
#[map]
static EPOCH: Array<u32> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static CT_TCP: LruHashMap<Flow, Entry> = LruHashMap::with_max_entries(conntrack::TCP_MAX, 0);
#[map]
pub(crate) static CT_ANY: LruHashMap<Flow, Entry> = LruHashMap::with_max_entries(conntrack::ANY_MAX, 0);
#[map]
pub(crate) static FRAGMENTS: LruHashMap<Flow, Recorded> = LruHashMap::with_max_entries(fragments::MAX, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counters::MAX, 0);

/// Counts a packet or connection that is not let through.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: a valid element of this processor's own array; programs are not interrupted by themselves.
        unsafe { *counter += 1 };
    }
}

/// What two lookups in a row found: an entry that was reused under one of them is not found by the other. `None` also
/// when no two of them agree.
#[inline(always)]
fn settled<V: Copy + PartialEq>(find: impl Fn() -> Option<*const V>) -> Option<V> {
    const TRIES: u32 = 4;
    // SAFETY: elements stay mapped until the program ends; volatile, so that each lookup is followed by its own copy.
    let read = || find().map(|element| unsafe { element.read_volatile() });
    let mut before = read()?;
    for _ in 0..TRIES {
        let now = read()?;
        if now == before {
            return Some(now);
        }
        before = now;
    }
    None
}

/// What two lookups find, as [`settled`], without more tries. For decisions that take nothing for less.
#[inline(always)]
fn certain<V: Copy + PartialEq>(find: impl Fn() -> Option<*const V>) -> Option<V> {
    // SAFETY: as in `settled`.
    let read = || find().map(|element| unsafe { element.read_volatile() });
    let (before, now) = (read()?, read()?);
    (before == now).then_some(now)
}

/// The host side of a local pod's link.
#[inline(always)]
pub(crate) fn local_pod(address: Address) -> Option<HostSide> {
    // SAFETY: a plain copy of an element that stays mapped until the program ends.
    unsafe { ENDPOINTS.get(address) }.map(|endpoint| endpoint.side)
}

/// The pod behind a link.
#[inline(always)]
pub(crate) fn link(ifindex: u32) -> Option<&'static Link> {
    // SAFETY: an element that stays mapped until the program ends. It is another's only when this link is gone.
    unsafe { LINKS.get(ifindex) }
}

/// The other node that owns this pod address, and the way there.
#[inline(always)]
pub(crate) fn peer(address: Address) -> Option<&'static Tunnel> {
    TUNNELS.get(Key::new(128, address))
}

/// The underlay address of the other node that owns this pod address.
#[inline(always)]
pub(crate) fn owner(address: Address) -> Option<Address> {
    peer(address).map(|tunnel| tunnel.node)
}

/// What a socket asked for when it was sent to this backend.
#[inline(always)]
pub(crate) fn asked(key: Translated) -> Option<Backend> {
    settled(|| REVERSE.get_ptr(key))
}

/// The service at this address, port and protocol.
#[inline(always)]
pub(crate) fn service(frontend: Frontend) -> Option<Service> {
    settled(|| SERVICES.get_ptr(frontend))
}

/// Where a port of this node leads.
#[inline(always)]
pub(crate) fn host_port(asked: HostPort) -> Option<Backend> {
    settled(|| HOST_PORTS.get_ptr(asked))
}

/// The backend of this service in this slot.
#[inline(always)]
pub(crate) fn backend(service: u32, slot: u32) -> Option<Backend> {
    settled(|| BACKENDS.get_ptr(Slot { service, slot }))
}

/// The monotonic clock, in ticks of [`conntrack`].
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: takes nothing.
    conntrack::ticks(unsafe { bpf_ktime_get_coarse_ns() })
}

/// The epoch of policy and identity.
#[inline(always)]
pub(crate) fn epoch() -> u32 {
    // SAFETY: an aligned word of an array; volatile, because user space writes it.
    EPOCH.get_ptr(0).map_or(0, |epoch| unsafe { epoch.read_volatile() })
}

/// What the first fragment of this packet said.
#[inline(always)]
pub(crate) fn recorded(packet: &Flow) -> Option<Recorded> {
    certain(|| FRAGMENTS.get_ptr(packet))
}

/// The policy table of what comes to a pod of this node.
#[inline(always)]
pub(crate) fn ingress(address: &Address) -> Option<u32> {
    // SAFETY: a place in an element that stays mapped until the program ends.
    certain(|| ENDPOINTS.get_ptr(address).map(|endpoint| unsafe { &raw const (*endpoint).ingress }))
}

/// The policy table of what a pod of this node sends.
#[inline(always)]
pub(crate) fn egress(address: &Address) -> Option<u32> {
    // SAFETY: as in `ingress`.
    let side = certain(|| ENDPOINTS.get_ptr(address).map(|endpoint| unsafe { &raw const (*endpoint).side }))?;
    let table = certain(|| {
        let link = LINKS.get_ptr(side.ifindex())?;
        // SAFETY: as in `ingress`; an aligned address, read as words.
        let owner = unsafe {
            let owner = if address.is_v4() { &raw const (*link).ipv4 } else { &raw const (*link).ipv6 };
            owner.cast::<[u32; 4]>().read_volatile()
        };
        // SAFETY: as in `ingress`.
        Address::from_words(owner).is(address).then_some(unsafe { &raw const (*link).egress })
    });
    // A pod without a link of its own is on its way in or out.
    Some(table.unwrap_or(policies::CLOSED))
}

/// Who an address is in policies.
#[inline(always)]
pub(crate) fn identity(address: &Address) -> u32 {
    let exact = certain(|| IDENTITIES.get_ptr(address));
    identities::identity(exact, || CIDRS.get(Key::new(128, *address)).copied())
}

/// What a policy table says of this traffic; 0 when it says nothing.
#[inline(always)]
pub(crate) fn policy(traffic: Traffic) -> u32 {
    POLICIES.get(Key::new(policies::PORT_BITS, traffic)).map_or(0, |verdict| verdict.action)
}
