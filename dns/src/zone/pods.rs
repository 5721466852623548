//! Whose an address is: the pods of the cluster, 64 bytes each and a little more. Names are kept as 64-bit hashes with a key of the process
//! (`SipHash`), since they are only ever compared.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;

use crate::pairs::Pairs;

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Halves of a hash: they need less room beside addresses than a number of 64 bits.
type Hash = [u32; 2];

fn hash<T: std::hash::Hash + ?Sized>(of: &T) -> Hash {
    let hash = HASHER.hash_one(of).to_ne_bytes();
    let ([first, second], _) = hash.as_chunks() else { return [0; 2] };
    [u32::from_ne_bytes(*first), u32::from_ne_bytes(*second)]
}

/// A pod, as far as its addresses go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    key: PodKey,
    rank: u32,
    /// None where the pod has ended, or is in its node's network.
    addresses: Few,
}

/// Addresses of a pod: one of each family at most.
type Few = [Option<IpAddr>; 2];

/// Which pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodKey {
    namespace: Hash,
    pod: Hash,
}

impl PodKey {
    /// That of the pod `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: hash(namespace), pod: hash(&(namespace, name)) }
    }
}

impl Pod {
    /// A pod that was made at `created`, seconds since 1970, and ends where `ending`. Of several with one address the newest counts; one that
    /// ends counts last, since its address may already be given to another.
    #[must_use]
    pub fn new(key: PodKey, created: u32, ending: bool, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut few = [None; 2];
        for (place, address) in few.iter_mut().zip(addresses) {
            *place = Some(address);
        }
        Self { key, rank: if ending { 0 } else { created }, addresses: few }
    }
}

/// Whose an address is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pods {
    /// Rank and namespace of the pods that have the address; the last counts.
    by_address: Pairs<IpAddr, (u32, Hash)>,
    /// Address and rank.
    by_pod: Pairs<Hash, (IpAddr, u32)>,
    /// Whether these are all there are.
    complete: bool,
}

impl Pods {
    /// Whether a pod in `namespace` has the address; `None` where not all pods are known, and none of those that are has it there.
    pub(crate) fn has(&self, address: IpAddr, namespace: &str) -> Option<bool> {
        let all = self.by_address.of(&address);
        let rank = all.last().map(|(_, (rank, _))| rank);
        let newest = all.iter().rev().take_while(|(_, (other, _))| Some(other) == rank);
        let namespace = hash(namespace);
        let found = newest.map(|(_, (_, other))| *other).any(|other| other == namespace);
        (found || self.complete).then_some(found)
    }

    /// Takes a new or changed pod. Returns whether anything changed.
    pub(super) fn put(&mut self, pod: &Pod) -> bool {
        let mut now: Vec<(IpAddr, u32)> =
            pod.addresses.iter().flatten().map(|address| (*address, pod.rank)).collect();
        now.sort_unstable();
        now.dedup();
        let before: Vec<(IpAddr, u32)> = self.by_pod.of(&pod.key.pod).iter().map(|(_, at)| *at).collect();
        if now == before {
            return false;
        }
        self.remove(pod.key);
        for (address, rank) in now {
            self.by_address.insert(address, (rank, pod.key.namespace));
            self.by_pod.insert(pod.key.pod, (address, rank));
        }
        true
    }

    /// Forgets a pod.
    pub(super) fn remove(&mut self, key: PodKey) -> bool {
        let held = self.by_pod.of(&key.pod).to_vec();
        for (pod, at) in &held {
            self.by_address.remove(&at.0, &(at.1, key.namespace));
            self.by_pod.remove(pod, at);
        }
        !held.is_empty()
    }

    /// These are all pods, and what is known of `unreadable` ones.
    pub(super) fn reset(&mut self, pods: impl IntoIterator<Item = Pod>, unreadable: &[PodKey]) {
        let mut all = Self { complete: true, ..Self::default() };
        for key in unreadable {
            for (pod, (address, rank)) in self.by_pod.of(&key.pod) {
                all.by_address.insert(*address, (*rank, key.namespace));
                all.by_pod.insert(*pod, (*address, *rank));
            }
        }
        for pod in pods {
            all.put(&pod);
        }
        *self = all;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 1, 0, last].into()
    }

    fn pod(name: &str, created: u32, ending: bool, addresses: &[IpAddr]) -> Pod {
        let (namespace, name) = name.split_once('/').unwrap();
        Pod::new(PodKey::new(namespace, name), created, ending, addresses.iter().copied())
    }

    fn key(name: &str) -> PodKey {
        pod(name, 0, false, &[]).key
    }

    #[test]
    fn nothing_is_denied_before_all_pods_are_known() {
        let mut pods = Pods::default();
        assert_eq!(pods.has(ip(1), "shop"), None);
        assert!(pods.put(&pod("shop/a", 1, false, &[ip(1)])));
        assert_eq!((pods.has(ip(1), "shop"), pods.has(ip(1), "bank")), (Some(true), None));
        pods.reset([], &[key("shop/a"), key("shop/unknown")]);
        assert_eq!(
            (pods.has(ip(1), "shop"), pods.has(ip(1), "bank")),
            (Some(true), Some(false)),
            "it cannot be read"
        );
        pods.reset([pod("bank/b", 1, false, &[ip(2)])], &[]);
        assert_eq!((pods.has(ip(1), "shop"), pods.has(ip(2), "bank")), (Some(false), Some(true)));
    }

    #[test]
    fn an_address_is_the_newest_pods_and_a_pod_that_ends_counts_last() {
        let mut pods = Pods::default();
        pods.reset([], &[]);
        let is =
            |pods: &Pods| ["shop", "bank", "farm"].map(|namespace| pods.has(ip(1), namespace) == Some(true));
        pods.put(&pod("shop/old", 5, false, &[ip(1), "fd00::1".parse().unwrap()]));
        pods.put(&pod("bank/new", 7, false, &[ip(1)]));
        assert_eq!(is(&pods), [false, true, false]);
        assert_eq!(pods.has("fd00::1".parse().unwrap(), "shop"), Some(true));
        assert!(!pods.put(&pod("bank/new", 7, false, &[ip(1)])), "nothing has changed");
        // It was made before the other one, and waited for its address.
        pods.put(&pod("farm/late", 3, false, &[ip(1)]));
        pods.put(&pod("bank/new", 7, true, &[ip(1)]));
        pods.put(&pod("shop/old", 5, true, &[ip(1)]));
        assert_eq!(is(&pods), [false, false, true]);
        assert!(pods.remove(key("farm/late")) && !pods.remove(key("farm/late")));
        assert_eq!(is(&pods), [true, true, false], "both end, and neither is known to be the newer");
        pods.put(&pod("bank/new", 7, true, &[]));
        assert_eq!(is(&pods), [true, false, false]);
        pods.put(&pod("shop/old", 5, false, &[ip(2)]));
        assert_eq!((is(&pods), pods.has(ip(2), "shop")), ([false; 3], Some(true)));
        assert_eq!((pods.by_address.iter().count(), pods.by_pod.iter().count()), (1, 1));
    }
}
