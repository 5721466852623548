//! What the maps hold after every single write, for random clusters and for the cases that have a name.

mod cluster;
mod full;
mod kernel;

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

fn allow_from(name: &str, selected: Option<u8>, from: u8) -> Policy {
    let peer = Peer::Pods { namespaces: None, pods: selector(Some(from)) };
    Policy {
        name: netkeel_core::name::ObjectName::new("shop", name),
        pods: selector(selected),
        ingress: Some(vec![Rule { peers: Some(vec![peer]), ports: None }]),
        egress: None,
    }
}

/// Three own pods and `remote` others of the same application, which one policy lets in.
fn shop(remote: u8) -> Cluster {
    let own = (1..=3).map(|number| own_pod(number, 0));
    let others = (1..=remote).map(|number| {
        let name = netkeel_core::name::ObjectName::new("shop", &format!("remote-{number}"));
        pod(name, 1, Some(address(7, number)))
    });
    let policy = allow_from("web", Some(0), 1);
    Cluster {
        pods: own.chain(others).map(|pod| (pod.name.clone(), pod)).collect(),
        policies: [(policy.name.clone(), policy)].into(),
    }
}

/// Rules that let all pods in; the second names a label, so that pods that differ in it are of different classes.
fn each_kind_of_pod() -> Vec<Rule> {
    let rule = |app| {
        let pods = Peer::Pods { namespaces: None, pods: selector(app) };
        Rule { peers: Some(vec![pods]), ports: None }
    };
    vec![rule(None), rule(Some(200))]
}

#[test]
fn one_label_more_or_less_is_a_handful_of_writes_among_many_pods() {
    let mut bench = Bench::new(u32::MAX, u32::MAX, &[1, 2, 3]);
    let mut cluster = shop(200);
    bench.become_(&cluster);
    let name = netkeel_core::name::ObjectName::new("shop", "remote-7");
    let mut relabel = |app: u8, at_most: usize| {
        cluster.pods.insert(name.clone(), pod(name.clone(), app, Some(address(7, 7))));
        let before = bench.kernel.writes();
        bench.become_(&cluster);
        let writes = bench.kernel.writes() - before;
        assert!((1..=at_most).contains(&writes), "label {app}: {writes} writes");
    };
    relabel(2, 2);
    relabel(0, 3);
    relabel(1, 3);
}

#[test]
fn a_new_kind_of_pod_is_let_in_without_a_new_table() {
    let mut bench = Bench::new(u32::MAX, u32::MAX, &[1, 2, 3]);
    let mut cluster = shop(3);
    cluster.policies.values_mut().for_each(|policy| {
        policy.ingress = Some(each_kind_of_pod());
    });
    bench.become_(&cluster);
    let (tables, writes) = (bench.sides(1), bench.kernel.writes());
    let name = netkeel_core::name::ObjectName::new("shop", "remote-9");
    cluster.pods.insert(name.clone(), pod(name, 7, Some(address(7, 9))));
    bench.become_(&cluster);
    assert_eq!(bench.sides(1), tables);
    assert_eq!(bench.kernel.writes() - writes, 2, "an entry and an identity");
}

#[test]
fn pods_of_the_same_policies_share_their_tables() {
    let mut bench = Bench::new(u32::MAX, u32::MAX, &[1, 2, 3]);
    let outcome = bench.become_(&shop(1));
    assert_eq!(outcome.tables, 1);
    assert_eq!(bench.sides(1), bench.sides(3));
    assert_eq!(bench.sides(1).1, OPEN);
}

#[test]
fn a_restart_writes_nothing_but_the_epoch() {
    let mut bench = Bench::new(u32::MAX, u32::MAX, &[1, 2, 3]);
    bench.become_(&shop(5));
    let (sides, writes) = (bench.sides(2), bench.kernel.writes());
    bench.programmer = programmer(&bench.kernel);
    bench.programmer.take_over(&[1, 2, 3].map(attached)).unwrap();
    assert_eq!(bench.kernel.writes(), writes, "pods keep what they have");
    bench.following = Following::new(bench.following.numbers());
    bench.become_(&shop(5));
    assert_eq!(bench.kernel.writes(), writes + 1);
    assert_eq!(bench.sides(2), sides);
}

#[test]
fn half_of_the_knowledge_changes_nothing_for_pods_that_run_and_opens_those_that_are_new() {
    let mut bench = Bench::new(u32::MAX, u32::MAX, &[1, 2]);
    bench.become_(&shop(5));
    let (sides, identities) = (bench.sides(1), bench.kernel.lock().identities.entries().len());
    let writes = bench.kernel.writes();
    bench.programmer = programmer(&bench.kernel);
    bench.programmer.take_over(&[1, 2].map(attached)).unwrap();
    bench.following = Following::new(bench.following.numbers());
    bench.compiled = bench.following.compile(&shop(0));
    bench.again(false);
    assert_eq!((bench.sides(1), bench.kernel.writes()), (sides, writes));
    assert_eq!(bench.kernel.lock().identities.entries().len(), identities, "others stay who they were");
    assert_eq!(bench.programmer.enter(&attached(3)).unwrap(), Entered::InForce);
    assert!(bench.sides(3).0 >= FIRST_TABLE, "{:?}", bench.sides(3));
}

#[test]
fn a_pod_is_closed_until_it_is_known_and_programmed_as_soon_as_it_is() {
    let mut bench = Bench::new(u32::MAX, u32::MAX, &[]);
    let mut cluster = shop(1);
    cluster.pods.remove(&own(1));
    bench.become_(&cluster);
    let pod = attached(1);
    assert!(!bench.programmer.await_pod(&pod.pod, Duration::from_millis(20)));
    assert_eq!(bench.programmer.enter(&pod).unwrap(), Entered::Closed);
    assert_eq!(bench.sides(1), (CLOSED, CLOSED));
    let outcome = bench.again(true);
    assert_eq!(outcome.closed, std::slice::from_ref(&pod.pod));
    bench.become_(&shop(1));
    assert!(bench.sides(1).0 >= FIRST_TABLE && bench.sides(1).1 == OPEN);
}

#[test]
fn an_add_waits_for_its_pod() {
    let mut bench = Bench::new(u32::MAX, u32::MAX, &[]);
    bench.compiled = bench.following.compile(&shop(1));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| bench.programmer.await_pod(&attached(1).pod, Duration::from_secs(10)));
        std::thread::sleep(Duration::from_millis(50));
        bench.again(true);
        assert!(waiting.join().unwrap());
    });
}

#[test]
fn a_pod_of_the_same_name_and_another_uid_gets_nothing_of_the_others() {
    let mut bench = Bench::new(u32::MAX, u32::MAX, &[]);
    let mut cluster = shop(1);
    cluster.policies.clear();
    bench.compiled = bench.following.compile(&cluster);
    let mut pods = known(&bench.compiled);
    pods.get_mut(&own(1)).unwrap().uid = "old".into();
    bench.programmer.program(&wanted(&bench.compiled, &pods, true));
    let of = |uid: &str| Attached { pod: PodRef { name: own(1), uid: uid.into() }, ..attached(1) };
    assert_eq!(bench.programmer.enter(&of("new")).unwrap(), Entered::Closed);
    assert_eq!(bench.programmer.enter(&of("old")).unwrap(), Entered::InForce);
    assert_eq!(bench.programmer.enter(&of("")).unwrap(), Entered::InForce, "a runtime that does not say");
}

#[test]
fn a_pod_whose_object_is_gone_keeps_its_last_policy_until_its_sandbox_is_gone() {
    let mut bench = Bench::new(u32::MAX, u32::MAX, &[1]);
    bench.become_(&shop(1));
    let (sides, passes) = (bench.sides(1), bench.passes());
    let mut cluster = shop(1);
    cluster.pods.remove(&own(1));
    cluster.policies.clear();
    bench.become_(&cluster);
    assert_eq!((bench.sides(1), bench.passes()), (sides, passes));
    bench.programmer.forget(address(0, 1)).unwrap();
    bench.again(true);
    assert!(bench.kernel.lock().policies.entries().is_empty());
    assert!(bench.kernel.lock().links.entries().is_empty());
}

#[test]
fn a_pod_that_outlives_its_policy_is_not_opened_by_leaves_that_go() {
    let mut bench = Bench::new(u32::MAX, u32::MAX, &[1, 2]);
    let everybody = |except: &[&str]| {
        let except = except.iter().map(|cidr| cidr.parse().unwrap()).collect();
        let peer = Peer::Block { cidr: "0.0.0.0/0".parse().unwrap(), except };
        Some(vec![Rule { peers: Some(vec![peer]), ports: None }])
    };
    let mut cluster = shop(0);
    let policy = |name: &str, app: u8, except: &[&str]| Policy {
        ingress: everybody(except),
        ..allow_from(name, Some(app), 9)
    };
    let policies = [policy("careful", 0, &["192.168.0.0/16"]), policy("careless", 1, &[])];
    cluster.policies = policies.into_iter().map(|policy| (policy.name.clone(), policy)).collect();
    cluster.pods.insert(own(2), own_pod(2, 1));
    bench.become_(&cluster);
    cluster.pods.remove(&own(1));
    cluster.policies.remove(&allow_from("careful", None, 0).name);
    let history = bench.kernel.writes();
    bench.become_(&cluster);
    assert_eq!(bench.sides(1), (CLOSED, OPEN), "0.0.0.0/0 holds 192.168.0.0/16 again");
    assert!(bench.sides(2).0 >= FIRST_TABLE);
    let outside =
        bench.kernel.lock().probes.others.iter().position(|other| other.to_string() == "192.168.1.1");
    let probe = outside.unwrap() * PORTS.len();
    assert!(bench.kernel.lock().history[history..].iter().all(|passes| !passes[probe]));
}

#[test]
fn a_table_that_does_not_fit_closes_its_pod_by_name_and_fits_later() {
    let mut bench = Bench::new(2, u32::MAX, &[1, 2, 3]);
    let mut cluster = shop(1);
    bench.become_(&cluster);
    // Own pods are let in, too: one class each.
    for number in [2, 3] {
        cluster.pods.insert(own(number), own_pod(number, number + 1));
    }
    cluster.policies.values_mut().for_each(|policy| {
        policy.pods = selector(Some(0));
        policy.ingress = Some(each_kind_of_pod());
    });
    let outcome = bench.become_(&cluster);
    assert_eq!(bench.sides(1).0, CLOSED);
    assert_eq!(
        outcome.problems,
        [
            "pod shop/own-1 is closed, because its policy does not fit: table POLICIES is full: it has room for 2 entries"
        ]
    );
    assert_eq!(bench.sides(2), (OPEN, OPEN), "the others are served");
    let outcome = bench.become_(&shop(1));
    assert!(outcome.problems.is_empty() && bench.sides(1).0 >= FIRST_TABLE);
}

#[test]
fn drift_is_repaired_and_judged_again() {
    let mut bench = Bench::new(u32::MAX, u32::MAX, &[1, 2, 3]);
    bench.become_(&shop(3));
    let passes = bench.passes();
    {
        use netkeel_dataplane_loader::Table as _;
        let mut kernel = bench.kernel.lock();
        let entry = *kernel.policies.entries().keys().next().unwrap();
        kernel.policies.remove(&entry).unwrap();
        kernel.endpoints.remove(&address(0, 2)).unwrap();
        kernel.identities.put(&address(9, 9), &300).unwrap();
    }
    let epoch = |bench: &Bench| bench.kernel.lock().epoch.entries()[&0];
    let before = epoch(&bench);
    bench.programmer.repair().unwrap();
    bench.again(true);
    assert_eq!(bench.passes(), passes);
    assert!(bench.is_tidy() && epoch(&bench) > before);
    let writes = bench.kernel.writes();
    bench.programmer.repair().unwrap();
    bench.again(true);
    assert_eq!(bench.kernel.writes(), writes);
}

#[test]
fn entries_of_nobody_are_swept_and_a_repeated_add_over_another_link_leaves_one() {
    let bench = Bench::new(u32::MAX, u32::MAX, &[1]);
    bench.programmer.enter(&Attached { ifindex: 99, ..attached(1) }).unwrap();
    let indices: Vec<u32> = bench.kernel.lock().links.entries().keys().copied().collect();
    assert_eq!(indices, [99]);
    assert!(bench.programmer.holds(&Attached { ifindex: 99, ..attached(1) }));
    assert!(!bench.programmer.holds(&attached(1)));
}

/// What the API says of a shop with one pod on this node, one elsewhere, and a policy between them.
fn objects() -> [serde_json::Value; 4] {
    let pod = |name: &str, node: &str, app: &str, ip: &str| {
        serde_json::json!({"metadata": {"namespace": "shop", "name": name, "uid": name, "labels": {"app": app}},
            "spec": {"nodeName": node}, "status": {"podIP": ip, "podIPs": [{"ip": ip}]}})
    };
    [
        pod("own-1", cluster::NODE, "web", "10.0.0.1"),
        pod("remote-1", "b", "client", "10.0.1.1"),
        serde_json::json!({"metadata": {"name": "shop"}}),
        serde_json::json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]}}),
    ]
}

fn reset<K: serde::de::DeserializeOwned>(objects: &[serde_json::Value]) -> Event<K> {
    let objects = objects.iter().map(|object| serde_json::from_value(object.clone()).unwrap()).collect();
    Event::Reset { objects, undecodable: vec![] }
}

#[test]
fn a_restart_without_the_api_server_gives_a_new_sandbox_its_policy_and_forgets_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let restore = || Knowledge::restore(cluster::NODE, folder.path(), folder.path());
    let kernel = Shared::new(u32::MAX, u32::MAX, Probes::default());
    let sandbox = Attached { pod: PodRef { name: own(1), uid: "own-1".into() }, ..attached(1) };
    let passes = || {
        let kernel = kernel.lock();
        ["10.0.1.1", "10.0.1.2"]
            .map(|from| kernel.lets_in(address(0, 1), from.parse::<Ipv4Addr>().unwrap().into()))
    };

    let mut knowledge = restore();
    assert!(!knowledge.is_something());
    let [own, remote, namespace, policy] = objects();
    knowledge.pod_event(reset(&[own, remote]));
    knowledge.namespace_event(reset(&[namespace]));
    knowledge.policy_event(reset(&[policy]));
    let first = programmer(&kernel);
    first.take_over(&[]).unwrap();
    knowledge.program(&first, true).unwrap();
    first.enter(&sandbox).unwrap();
    assert_eq!(passes(), [true, false]);
    knowledge.snapshot().write(folder.path()).unwrap();

    let mut knowledge = restore();
    assert!(knowledge.is_something() && !knowledge.is_complete());
    let second = programmer(&kernel);
    second.take_over(std::slice::from_ref(&sandbox)).unwrap();
    let writes = kernel.writes();
    knowledge.program(&second, false).unwrap();
    assert_eq!(kernel.writes(), writes, "nothing changes for a pod that runs");
    second.forget(sandbox.address).unwrap();
    assert!(second.await_pod(&sandbox.pod, Duration::ZERO));
    let again = Attached { ifindex: 77, ..sandbox };
    assert_eq!(second.enter(&again).unwrap(), Entered::InForce);
    assert_eq!(passes(), [true, false], "the other node's pod is still known by its labels");
}
