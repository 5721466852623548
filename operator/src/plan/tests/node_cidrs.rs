//! Blocks from the Node objects.

use netkeel_crds::cluster_network::Ipam;

use super::*;

/// Nodes a and b with these `spec.podCIDRs`.
fn given(a: &[&str], b: &[&str]) -> Observed {
    let mut seen = seen();
    seen.network.as_mut().unwrap().spec.pod_network.ipam = Ipam::NodePodCIDRs;
    for (node, cidrs) in seen.nodes.iter_mut().zip([a, b]) {
        node.pod_cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
    }
    seen
}

#[test]
fn nodes_have_what_their_objects_say_and_nothing_else() {
    let mut seen = given(&["10.244.7.0/24"], &["10.244.1.0/24"]);
    assert_eq!(claims(&planned(&seen)), ["a 10.244.7.0/24", "b 10.244.1.0/24"]);
    seen.blocks = vec![block("10.244.7.0/24", "a"), block("10.244.1.0/24", "b")];
    seen.node_networks = vec![node_network("a"), node_network("b")];
    let written = planned(&seen);
    assert!(claims(&written).is_empty() && written.problems.is_empty());
    write_all(&mut seen);
    assert_eq!(seen.node_networks[0].spec.blocks, ["10.244.7.0/24".parse().unwrap()]);
    // A full node gets no other block, and an idle one keeps its own.
    let network = &mut seen.node_networks[0];
    let status = network.status.get_or_insert_default();
    status.applied_revision = Some(network.spec.revision.clone());
    status.wanted = vec!["10.244.0.0/16".parse().unwrap()];
    status.blocks = vec![BlockUsage { capacity: 255, ..usage("10.244.7.0/24", 255) }];
    assert!(steps(&planned(&seen)).is_empty());
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH);
    let status = crate::status::status(seen.network.as_ref().unwrap(), &seen, &planned(&seen), None, &time);
    assert_eq!((status.pools[0].blocks.used, status.pools[0].blocks.capacity), (2, 256));
}

#[test]
fn a_node_without_what_it_needs_is_named_and_the_others_go_on() {
    for (a, reason) in
        [(&[][..], "NoPodCIDR"), (&["10.9.0.0/24"], "PodCIDROutside"), (&["10.244.1.0/25"], "PodCIDRTaken")]
    {
        let mut seen = given(a, &["10.244.1.0/24"]);
        if reason == "PodCIDRTaken" {
            seen.blocks = vec![block("10.244.1.0/24", "b")];
        }
        let planned = planned(&seen);
        assert_eq!(reasons(&planned), [(kind::DEGRADED, reason)]);
        assert!(planned.problems[0].message.contains("node a"), "{:?}", planned.problems);
        assert_eq!(claims(&planned).len(), usize::from(reason != "PodCIDRTaken"), "{reason}");
    }
}

#[test]
fn two_new_nodes_never_get_addresses_in_common() {
    for b in ["10.244.1.0/24", "10.244.0.0/23"] {
        let planned = planned(&given(&["10.244.1.0/24"], &[b]));
        assert_eq!(claims(&planned), ["a 10.244.1.0/24"], "{b}");
        assert_eq!(reasons(&planned), [(kind::DEGRADED, "PodCIDRTaken")]);
        let said = &planned.problems[0].message;
        assert!(said.starts_with(&format!("{b} of node b overlaps 10.244.1.0/24 of node a")), "{said}");
    }
}

#[test]
fn a_block_whose_first_address_is_reserved_is_not_given_but_stays_with_the_node_that_has_it() {
    let mut seen = given(&["10.244.7.0/24"], &["10.244.1.0/24"]);
    let pool = &mut seen.network.as_mut().unwrap().spec.pod_network.pools[0];
    pool.reserved = vec!["10.244.7.0/32".parse().unwrap(), "10.244.1.7/32".parse().unwrap()];
    let first = planned(&seen);
    assert_eq!(claims(&first), ["b 10.244.1.0/24"]);
    assert_eq!(reasons(&first), [(kind::DEGRADED, "PodCIDRReserved")]);
    let said = &first.problems[0].message;
    assert!(said.starts_with("10.244.7.0 would be the own address of node a"), "{said}");
    seen.blocks = vec![block("10.244.7.0/24", "a"), block("10.244.1.0/24", "b")];
    assert!(planned(&seen).problems.is_empty());
}

#[test]
fn a_new_node_gets_a_block_that_an_earlier_one_had_when_that_is_given_back() {
    let mut seen = given(&["10.244.7.0/24"], &["10.244.1.0/24"]);
    seen.blocks = vec![block("10.244.7.0/24", "gone"), block("10.244.1.0/24", "b")];
    let first = planned(&seen);
    assert!(claims(&first).is_empty() && reasons(&first) == [(kind::DEGRADED, "PodCIDRTaken")]);
    assert!(first.steps.iter().any(|step| matches!(step, Step::ReleaseBlock { node, .. } if node == "gone")));
    seen.blocks.remove(0);
    assert_eq!(claims(&planned(&seen)), ["a 10.244.7.0/24"]);
}
