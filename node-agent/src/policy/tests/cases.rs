//! Single clusters, each with a name: what is written, who is closed, and what is tried again.

use super::*;

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
pub(super) fn shop(remote: u8) -> Cluster {
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
