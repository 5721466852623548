//! Maps that are full, in cases that random clusters meet seldom.

use super::*;

fn block(cidr: &str, except: &[&str]) -> Peer {
    let net = |text: &str| text.parse().unwrap();
    Peer::Block { cidr: net(cidr), except: except.iter().map(|text| net(text)).collect() }
}

/// A policy of all pods whose one rule, of `egress` or else of ingress, has these peers.
fn of_blocks(name: &str, egress: bool, peers: Vec<Peer>) -> Policy {
    let rules = Some(vec![Rule { peers: Some(peers), ports: None }]);
    let (ingress, egress) = if egress { (None, rules) } else { (rules, None) };
    Policy { name: netkeel_core::name::ObjectName::new("shop", name), pods: selector(None), ingress, egress }
}

fn cluster_of(pods: &[u8], policies: Vec<Policy>) -> Cluster {
    Cluster {
        pods: pods.iter().map(|number| (own(*number), own_pod(*number, 0))).collect(),
        policies: policies.into_iter().map(|policy| (policy.name.clone(), policy)).collect(),
    }
}

/// While `10.0.0.0/8` is in the map, addresses of `10.0.0.0/28` are taken for it, which no new table knows. When it goes they would
/// be taken for `0.0.0.0/0`, which the new policy allows.
#[test]
fn a_leaf_that_does_not_fit_is_not_taken_for_one_further_out_when_the_one_around_it_goes() {
    let mut bench = Bench::new(3, 2, &[1, 2, 3]);
    let wide = vec![block("0.0.0.0/0", &[]), block("10.0.0.0/8", &[])];
    let old = cluster_of(&[], vec![of_blocks("policy-0", false, wide)]);
    bench.become_(&old);
    let (before, closed) = (bench.passes(), bench.closed());
    let policies = vec![
        of_blocks("policy-0", true, vec![block("0.0.0.0/0", &["10.0.0.0/28"])]),
        of_blocks("policy-1", true, vec![block("10.0.1.0/24", &["10.0.1.3/32"])]),
    ];
    let new = cluster_of(&[1], policies);
    bench.kernel.lock().history.clear();
    let outcome = bench.become_(&new);
    assert!(!outcome.problems.is_empty(), "the map is not full: the test says nothing");
    let should = bench.should();
    let history = std::mem::take(&mut bench.kernel.lock().history);
    never_more(&history, &Before { passes: &before, cluster: &old, closed }, (&should, &new)).unwrap();
}
