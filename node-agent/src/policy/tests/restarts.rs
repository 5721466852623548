//! Agents that follow others: what they take over, and what they know without the API server.

use super::{cases::shop, *};
use crate::pods::SeenPodReader;

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
    let mut reader = SeenPodReader::new(cluster::NODE);
    knowledge.pod_event(Event::Reset {
        objects: [own, remote].map(|pod| reader.read(serde_json::from_value(pod).unwrap())).into(),
        undecodable: vec![],
    });
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

#[test]
fn a_limit_on_the_rate_is_entered_when_a_pod_is_taken_over_and_its_tables_stay() {
    let kernel = Shared::new(u32::MAX, u32::MAX, Probes::default());
    let free = attached(1);
    let limited = Attached { shaped: true, ..free.clone() };
    let held = || kernel.lock().endpoints.entries()[&free.address];
    programmer(&kernel).enter(&free).unwrap();
    let before = held();
    for (pod, other, wanted) in [(&limited, &free, before.shaped()), (&free, &limited, before)] {
        let next = programmer(&kernel);
        next.take_over(std::slice::from_ref(pod)).unwrap();
        assert_eq!(held(), wanted);
        assert!(next.holds(pod) && !next.holds(other));
    }
}
