//! What the maps hold after every single write, for random clusters and for the cases that have a name.

mod cases;
mod cluster;
mod full;
mod kernel;
mod restarts;

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use netkeel_client::Event;
use netkeel_core::policy::{Compiled, Numbers, Peer, Policy, Rule};
use netkeel_dataplane_common::policies::{CLOSED, FIRST_TABLE, OPEN};
use proptest::prelude::*;
use tokio::sync::Notify;

use super::{Attached, Entered, Outcome, PodRef, Programmer, knowledge::Knowledge};
use cluster::{
    Cluster, Following, PORTS, address, attached, known, others, own, own_pod, pod, selector, wanted,
};
use kernel::{Passes, Probes, Shared};

/// The maps, an agent over them, and what it goes by.
struct Bench {
    kernel: Shared,
    programmer: Programmer,
    following: Following,
    compiled: Compiled,
}

fn programmer(kernel: &Shared) -> Programmer {
    Programmer::restore(kernel.maps(), Arc::new(Notify::new())).unwrap()
}

impl Bench {
    /// A node with these pods, that knows nothing yet.
    fn new(entries: u32, leaves: u32, pods: &[u8]) -> Self {
        let probes = Probes {
            pods: (1..=3).map(|number| address(0, number)).collect(),
            others: others(),
            ports: PORTS.to_vec(),
        };
        let kernel = Shared::new(entries, leaves, probes);
        let programmer = programmer(&kernel);
        let pods: Vec<Attached> = pods.iter().map(|number| attached(*number)).collect();
        programmer.take_over(&pods).unwrap();
        Self {
            kernel,
            programmer,
            following: Following::new(Numbers::default()),
            compiled: Compiled::default(),
        }
    }

    /// The cluster is this now.
    fn become_(&mut self, cluster: &Cluster) -> Outcome {
        self.compiled = self.following.compile(cluster);
        self.again(true)
    }

    fn again(&self, complete: bool) -> Outcome {
        self.programmer.program(&wanted(&self.compiled, &known(&self.compiled), complete))
    }

    fn passes(&self) -> Passes {
        self.kernel.lock().passes()
    }

    fn closed(&self) -> [bool; 3] {
        [1, 2, 3].map(|number| self.sides(number) == (CLOSED, CLOSED))
    }

    fn sides(&self, number: u8) -> (u32, u32) {
        let kernel = self.kernel.lock();
        (kernel.ingress(address(0, number)), kernel.egress(address(0, number)))
    }

    /// What passes when every write works, for the pods with a link that are in the cluster; the others' tables are not looked at.
    fn should(&self) -> Passes {
        let mut fresh = Self::new(u32::MAX, u32::MAX, &[1, 2, 3]);
        fresh.following = Following::new(self.following.numbers());
        fresh.compiled = self.compiled.clone();
        fresh.again(true);
        fresh.passes()
    }

    /// Whether all entries and leaves are needed.
    fn is_tidy(&self) -> bool {
        let kernel = self.kernel.lock();
        let named: BTreeSet<u32> = [1, 2, 3]
            .iter()
            .flat_map(|number| [kernel.ingress(address(0, *number)), kernel.egress(address(0, *number))])
            .collect();
        kernel.policies.entries().keys().all(|entry| named.contains(&entry.traffic.table))
            && *kernel.cidrs.entries() == self.compiled.cidrs
            && *kernel.identities.entries() == self.compiled.identities
    }
}

/// How a batch begins: what passes, of which cluster, and whose link is closed in both directions.
struct Before<'a> {
    passes: &'a Passes,
    cluster: &'a Cluster,
    closed: [bool; 3],
}

/// For pods that were and are in the cluster, or closed before: another has an old table, which may not know whom its policy would let in,
/// and lets in whom its last policy did.
fn never_more(
    history: &[Passes],
    Before { passes: before, cluster: old, closed }: &Before<'_>,
    (after, new): (&Passes, &Cluster),
) -> Result<(), TestCaseError> {
    let part = after.len() / 3;
    let of = |probe: usize| own(u8::try_from(probe / part + 1).unwrap());
    let known = |probe: usize| {
        new.pods.contains_key(&of(probe)) && (old.pods.contains_key(&of(probe)) || closed[probe / part])
    };
    let known: Vec<bool> = (0..after.len()).map(known).collect();
    for (write, passes) in history.iter().enumerate() {
        let more = (0..after.len())
            .position(|probe| known[probe] && passes[probe] && !before[probe] && !after[probe]);
        prop_assert!(more.is_none(), "probe {more:?} after write {write} of {}", history.len());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_write_opens_a_pod_to_more_than_the_old_or_the_new_policy(clusters in proptest::collection::vec(cluster::cluster(), 1..6)) {
        let mut bench = Bench::new(u32::MAX, u32::MAX, &[1, 2, 3]);
        let mut old = Cluster::default();
        for cluster in clusters {
            let (before, closed) = (bench.passes(), bench.closed());
            bench.kernel.lock().history.clear();
            let outcome = bench.become_(&cluster);
            prop_assert_eq!(outcome.problems, Vec::<String>::new());
            let (after, should) = (bench.passes(), bench.should());
            let history = std::mem::take(&mut bench.kernel.lock().history);
            never_more(&history, &Before { passes: &before, cluster: &old, closed }, (&after, &cluster))?;
            for number in 1..=3_u8 {
                let part = after.len() / 3;
                let range = part * usize::from(number - 1)..part * usize::from(number);
                if cluster.pods.contains_key(&own(number)) {
                    prop_assert_eq!(&after[range.clone()], &should[range], "pod {}", number);
                }
            }
            prop_assert!(bench.is_tidy());
            let writes = bench.kernel.writes();
            bench.again(true);
            prop_assert_eq!(bench.kernel.writes(), writes, "the same again is nothing to write");
            old = cluster;
        }
    }

    #[test]
    fn a_full_map_closes_and_never_leaves_an_allow_that_is_gone(
        clusters in proptest::collection::vec(cluster::cluster(), 1..6), entries in 0..40_u32, leaves in 0..5_u32,
    ) {
        let mut bench = Bench::new(entries, leaves, &[1, 2, 3]);
        let mut old = Cluster::default();
        for cluster in clusters {
            // What did not fit may pass when it fits at last, until the new tables are there: what the old policy allowed, or the
            // tables of a pod that outlived its object.
            let outlives = |number| !old.pods.contains_key(&own(number)) && bench.sides(number) != (CLOSED, CLOSED);
            let outlives = [1, 2, 3].map(outlives);
            let (passes, should) = (bench.passes(), bench.should());
            let may = |probe: usize| passes[probe] || should[probe] || outlives[probe / (passes.len() / 3)];
            let before: Passes = (0..passes.len()).map(may).collect();
            let closed = bench.closed();
            bench.kernel.lock().history.clear();
            let outcome = bench.become_(&cluster);
            let (after, should) = (bench.passes(), bench.should());
            let history = std::mem::take(&mut bench.kernel.lock().history);
            let part = after.len() / 3;
            never_more(&history, &Before { passes: &before, cluster: &old, closed }, (&should, &cluster))?;
            for number in 1..=3_u8 {
                if !cluster.pods.contains_key(&own(number)) {
                    continue;
                }
                let range = part * usize::from(number - 1)..part * usize::from(number);
                let more = range.clone().find(|probe| after[*probe] && !should[*probe]);
                prop_assert_eq!(more, None, "pod {}", number);
                let (ingress, egress) = bench.sides(number);
                if outcome.problems.is_empty() {
                    prop_assert_eq!(&after[range.clone()], &should[range], "pod {}", number);
                } else if ingress == CLOSED || egress == CLOSED {
                    prop_assert!(outcome.closed.iter().any(|closed| closed.name == own(number)));
                }
            }
            old = cluster;
        }
    }

    #[test]
    fn an_agent_that_died_between_two_writes_is_followed_by_one_that_ends_its_work(
        (before, after) in (cluster::cluster(), cluster::cluster()), death in 0..60_usize,
    ) {
        let mut bench = Bench::new(u32::MAX, u32::MAX, &[1, 2, 3]);
        bench.become_(&before);
        let (old, closed) = (bench.passes(), bench.closed());
        bench.kernel.lock().history.clear();
        bench.kernel.lock().dies_after(death);
        bench.become_(&after);
        bench.kernel.lock().dies_after(usize::MAX);
        bench.programmer = programmer(&bench.kernel);
        bench.programmer.take_over(&[1, 2, 3].map(attached)).unwrap();
        let epoch = bench.kernel.lock().epoch.entries().get(&0).copied();
        let outcome = bench.again(true);
        prop_assert_eq!(outcome.problems, Vec::<String>::new());
        prop_assert_ne!(bench.kernel.lock().epoch.entries().get(&0).copied(), epoch, "flows are judged again");
        let (new, history) = (bench.passes(), bench.kernel.lock().history.clone());
        never_more(&history, &Before { passes: &old, cluster: &before, closed }, (&new, &after))?;
        prop_assert!(bench.is_tidy());
    }
}
