//! When a node gives a block back, and the steps of the way.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use netkeel_crds::node_network::BlockRelease;
use serde_json::json;

use super::*;

/// Node a with two blocks of the default pool, the second of them idle, and `used` addresses of the first in use.
fn with_two(used: u32) -> Observed {
    let mut seen = settled();
    seen.blocks.push(block("10.244.0.128/26", "a"));
    seen.blocks[2].metadata.resource_version = Some("3".to_owned());
    write_all(&mut seen);
    report(&mut seen, &[("10.244.0.0/26", used), ("10.244.0.128/26", 0)], &[]);
    seen
}

/// Node a's agent has applied its object and says this.
fn report(seen: &mut Observed, blocks: &[(&str, u32)], released: &[BlockRelease]) {
    let network = &mut seen.node_networks[0];
    let status = network.status.get_or_insert_default();
    status.applied_revision = Some(network.spec.revision.clone());
    let idle = |(cidr, used): &(&str, u32)| BlockUsage { idle: *used == 0, ..usage(cidr, *used) };
    status.blocks = blocks.iter().map(idle).collect();
    status.released = released.to_vec();
}

/// Blocks of node a, and those that it gives back, after what is planned was written.
fn next(seen: &Observed) -> (Vec<String>, Vec<String>) {
    let mut next = seen.clone();
    write_all(&mut next);
    let spec = &next.node_networks[0].spec;
    let texts = |nets: Vec<&IpNet>| nets.into_iter().map(ToString::to_string).collect();
    (texts(spec.blocks.iter().collect()), texts(spec.releasing.iter().map(|release| &release.cidr).collect()))
}

fn returned(seen: &Observed) -> Vec<String> {
    let name = |step: &Step| match step {
        Step::ReturnBlock { name, .. } => Some(name.clone()),
        _ => None,
    };
    planned(seen).steps.iter().filter_map(name).collect()
}

#[test]
fn an_idle_block_is_given_back_while_a_quarter_of_the_rest_is_left_and_never_the_first() {
    for (used, gives_back) in [(0, true), (47, true), (48, false), (60, false)] {
        let (blocks, releasing) = next(&with_two(used));
        assert_eq!(blocks.len(), 2);
        assert_eq!(releasing, ["10.244.0.128/26"][..usize::from(gives_back)], "{used} used");
    }
    let mut first = with_two(0);
    report(&mut first, &[("10.244.0.0/26", 0), ("10.244.0.128/26", 3)], &[]);
    assert!(next(&first).1.is_empty(), "the node's own address is in it");
    let mut fresh = with_two(3);
    fresh.node_networks[0].status.as_mut().unwrap().blocks[1].idle = false;
    assert!(next(&fresh).1.is_empty(), "not at once");
    let mut late = with_two(3);
    late.node_networks[0].status.as_mut().unwrap().applied_revision = None;
    assert!(next(&late).1.is_empty(), "what the agent says is of another time");
}

#[test]
fn of_several_idle_blocks_the_last_goes_back_first_and_one_at_a_time() {
    let mut seen = with_two(3);
    seen.blocks.push(block("10.244.0.192/26", "a"));
    seen.node_networks[0].spec.blocks.push("10.244.0.192/26".parse().unwrap());
    seen.node_networks[0].spec.revision = revision(&seen.node_networks[0].spec);
    report(&mut seen, &[("10.244.0.0/26", 3), ("10.244.0.128/26", 0), ("10.244.0.192/26", 0)], &[]);
    assert_eq!(next(&seen).1, ["10.244.0.192/26"]);
}

#[test]
fn nothing_begins_or_goes_on_while_a_claim_cannot_be_read() {
    let cannot_read = |seen: &Observed| {
        let undecodable = vec!["AddressBlock 10-244-9-0-26".to_owned()];
        let seen = Observed { undecodable, ..seen.clone() };
        assert!(steps(&planned(&seen)).is_empty(), "{:?}", planned(&seen).steps);
    };
    let mut seen = with_two(3);
    cannot_read(&seen);
    write_all(&mut seen);
    let mark = seen.node_networks[0].spec.releasing.clone();
    assert_eq!(mark.len(), 1);
    report(&mut seen, &[("10.244.0.0/26", 3), ("10.244.0.128/26", 0)], &mark);
    cannot_read(&seen);
    write_all(&mut seen);
    report(&mut seen, &[("10.244.0.0/26", 3)], &[]);
    assert_eq!(returned(&seen), ["10-244-0-128-26"]);
    cannot_read(&seen);
}

#[test]
fn a_block_goes_back_in_four_steps_and_each_waits_for_the_agent() {
    let mut seen = with_two(3);
    write_all(&mut seen);
    let mark = seen.node_networks[0].spec.releasing[0].clone();
    assert_eq!((mark.cidr.to_string().as_str(), mark.ticket.as_str()), ("10.244.0.128/26", "7"));
    assert!(steps(&planned(&seen)).is_empty(), "the agent has not seen the mark");
    report(&mut seen, &[("10.244.0.0/26", 3), ("10.244.0.128/26", 0)], &[]);
    assert!(steps(&planned(&seen)).is_empty(), "the agent has not said that it is empty");
    let other = BlockRelease { ticket: "6".to_owned(), ..mark.clone() };
    report(&mut seen, &[("10.244.0.0/26", 3), ("10.244.0.128/26", 0)], &[other]);
    assert!(steps(&planned(&seen)).is_empty(), "that was said of another time");
    let mut late = seen.clone();
    let status = late.node_networks[0].status.as_mut().unwrap();
    (status.released, status.applied_revision) = (vec![mark.clone()], Some("another".to_owned()));
    assert!(steps(&planned(&late)).is_empty(), "the agent has not applied it");
    report(&mut seen, &[("10.244.0.0/26", 3), ("10.244.0.128/26", 0)], std::slice::from_ref(&mark));
    write_all(&mut seen);
    let spec = &seen.node_networks[0].spec;
    assert_eq!((spec.blocks.len(), &spec.releasing), (1, &vec![mark]), "taken out, and still marked");
    assert!(steps(&planned(&seen)).is_empty(), "the agent has not applied it");
    report(&mut seen, &[("10.244.0.0/26", 3)], &[]);
    assert_eq!(returned(&seen), ["10-244-0-128-26"]);
    seen.blocks.pop();
    write_all(&mut seen);
    assert!(seen.node_networks[0].spec.releasing.is_empty());
    report(&mut seen, &[("10.244.0.0/26", 3)], &[]);
    assert!(steps(&planned(&seen)).is_empty(), "all is done");
}

#[test]
fn a_block_on_its_way_back_stays_when_it_is_needed_and_no_other_is_claimed() {
    for (first, second, wanted) in
        [(56, 0, ""), (3, 1, ""), (3, 0, "10.244.0.0/16"), (3, 0, "10.244.0.130/32")]
    {
        let mut seen = with_two(3);
        write_all(&mut seen);
        let mark = seen.node_networks[0].spec.releasing[0].clone();
        report(&mut seen, &[("10.244.0.0/26", first), ("10.244.0.128/26", second)], &[mark]);
        let status = seen.node_networks[0].status.as_mut().unwrap();
        status.wanted = wanted.parse().into_iter().collect();
        assert_eq!(next(&seen).1, Vec::<String>::new(), "{first} {second} {wanted}");
        assert_eq!(claims(&planned(&seen)), Vec::<String>::new(), "{first} {second} {wanted}");
    }
}

#[test]
fn a_claim_that_comes_into_a_node_is_renewed_and_one_that_went_out_does_not_come_back() {
    let mut seen = settled();
    seen.blocks.push(block("10.244.0.128/26", "a"));
    let entering = |seen: &Observed| -> Vec<String> {
        let names = planned(seen).steps.into_iter().filter_map(|step| match step {
            Step::WriteNodeNetwork { entering, .. } => Some(entering),
            _ => None,
        });
        names.flatten().map(|(name, uid)| format!("{name} {uid}")).collect()
    };
    assert_eq!(entering(&seen), ["10-244-0-128-26 uid-10.244.0.128/26"]);
    let release = BlockRelease { cidr: "10.244.0.128/26".parse().unwrap(), ticket: "1".to_owned() };
    seen.node_networks[0].spec.releasing = vec![release];
    assert_eq!(next(&seen).0, ["10.244.0.0/26"]);
    assert_eq!(entering(&seen), Vec::<String>::new());
    seen.undecodable = vec!["AddressBlock 10-244-9-0-26".to_owned()];
    assert_eq!(next(&seen), (vec!["10.244.0.0/26".to_owned()], vec!["10.244.0.128/26".to_owned()]));
}

#[test]
fn a_block_of_another_pool_goes_back_when_the_best_pool_has_enough() {
    for (priority, used, goes_back) in [(-1, 3, true), (-1, 50, false), (1, 3, false)] {
        let fast = pool("fast", &["10.1.0.0/16"], priority);
        let given = gives_back(&[fast], used, &[("10.1.0.0/26", 0)]);
        assert_eq!(given, ["10.1.0.0/26"][..usize::from(goes_back)], "{priority} {used}");
    }
}

/// What node a gives back of the default pool's first block, with `used` addresses in use, and of these others.
fn gives_back(pools: &[AddressPool], used: u32, others: &[(&str, u32)]) -> Vec<String> {
    let mut seen = settled();
    seen.network.as_mut().unwrap().spec.pod_network.pools.extend_from_slice(pools);
    seen.blocks.extend(others.iter().map(|(cidr, _)| block(cidr, "a")));
    write_all(&mut seen);
    let blocks: Vec<_> = [("10.244.0.0/26", used)].into_iter().chain(others.iter().copied()).collect();
    report(&mut seen, &blocks, &[]);
    next(&seen).1
}

#[test]
fn a_pool_for_some_namespaces_is_left_whole_when_it_is_idle_and_else_stands_alone() {
    let special = AddressPool {
        namespace_selector: Some(LabelSelector::default()),
        ..pool("pay", &["10.1.0.0/16"], -1)
    };
    let special = std::slice::from_ref(&special);
    assert_eq!(
        gives_back(special, 3, &[("10.1.0.0/26", 0)]),
        ["10.1.0.0/26"],
        "it asks again when it needs one"
    );
    let (full, half) =
        ([("10.1.0.0/26", 60), ("10.1.0.64/26", 0)], [("10.1.0.0/26", 30), ("10.1.0.64/26", 0)]);
    assert!(
        gives_back(special, 3, &full).is_empty(),
        "another pool has enough, and is not open to its pods' namespaces"
    );
    assert_eq!(gives_back(special, 3, &half), ["10.1.0.64/26"]);
}

#[test]
fn a_pool_that_does_not_select_the_node_needs_no_block_there_and_helps_no_other() {
    let elsewhere: LabelSelector = serde_json::from_value(json!({"matchLabels": {"nic": "fast"}})).unwrap();
    let fast = |priority| AddressPool {
        node_selector: Some(elsewhere.clone()),
        ..pool("fast", &["10.1.0.0/16"], priority)
    };
    assert_eq!(gives_back(&[fast(1)], 60, &[("10.1.0.0/26", 0)]), ["10.1.0.0/26"]);
    let full = [("10.244.0.128/26", 0), ("10.1.0.0/26", 1)];
    assert!(gives_back(&[fast(1)], 60, &full).is_empty(), "pods get no address of the better pool");
}
