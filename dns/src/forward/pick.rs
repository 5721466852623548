//! Whom of a group to ask, and in which order. Pure.

use netkeel_crds::cluster_network::dns::Policy;
use rand::Rng;
use rand::seq::SliceRandom;

/// The order in which resolvers are asked: by `policy`, those that `rests` last. With `turn` another one is first each time.
pub(super) fn order(policy: Policy, rests: &[bool], turn: usize, random: &mut impl Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rests.len()).collect();
    match policy {
        Policy::Random => order.shuffle(random),
        Policy::RoundRobin => order.rotate_left(turn % rests.len().max(1)),
        Policy::Sequential => {}
    }
    order.sort_by_key(|index| rests[*index]);
    order
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn of(policy: Policy, rests: &[bool], turn: usize) -> Vec<usize> {
        order(policy, rests, turn, &mut StdRng::seed_from_u64(turn as u64))
    }

    #[test]
    fn the_policy_says_who_is_first() {
        assert_eq!(of(Policy::Sequential, &[false; 3], 5), [0, 1, 2]);
        assert_eq!(of(Policy::Sequential, &[true, false, false], 5), [1, 2, 0]);
        assert_eq!(of(Policy::Sequential, &[true; 2], 5), [0, 1], "all rest: they are asked anyhow");
        assert_eq!(of(Policy::RoundRobin, &[false; 3], 4), [1, 2, 0]);
        assert_eq!(of(Policy::RoundRobin, &[false, true, false], 4), [2, 0, 1]);
        let firsts: BTreeSet<usize> = (0..50).map(|turn| of(Policy::Random, &[false; 3], turn)[0]).collect();
        assert_eq!(firsts.len(), 3);
        assert_eq!(of(Policy::RoundRobin, &[], 1), [0; 0]);
    }

    proptest! {
        #[test]
        fn everyone_is_asked_once_and_those_that_rest_last(rests in proptest::collection::vec(any::<bool>(), 0..16), turn: usize) {
            for policy in [Policy::Random, Policy::RoundRobin, Policy::Sequential] {
                let order = of(policy, &rests, turn);
                let mut sorted = order.clone();
                sorted.sort_unstable();
                prop_assert_eq!(sorted, (0..rests.len()).collect::<Vec<_>>());
                prop_assert!(order.is_sorted_by_key(|index| rests[*index]));
            }
        }
    }
}
