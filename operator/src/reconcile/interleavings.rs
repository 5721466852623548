//! Two operators at once, stopped, resumed and killed between any two calls of the API, while nodes come and go:
//! no block is ever in two `NodeNetworks`, and in the end every node has its own.

use std::{
    collections::HashMap,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use jiff::Timestamp;
use kube::ResourceExt;
use netkeel_crds::ClusterNetworkSpec;
use netkeel_testkit::random::Random;

use super::pass;
use crate::{
    cluster::fake::{FakeCluster, State},
    settings::Settings,
    story::{Story, Traces},
};

type Running = Pin<Box<dyn Future<Output = ()>>>;

/// An operator that does passes for ever.
pub(super) struct Operator {
    cluster: FakeCluster,
    running: Running,
}

impl Operator {
    pub(super) fn new(cluster: &FakeCluster) -> Self {
        let running = Self::passes(cluster.clone());
        Self { cluster: cluster.clone(), running }
    }

    fn passes(cluster: FakeCluster) -> Running {
        Box::pin(async move {
            let story = Story::default();
            loop {
                let traces = Traces { story: &story, send_to: &|_| {} };
                pass(&cluster, &Settings::default(), Timestamp::UNIX_EPOCH, traces).await.unwrap();
            }
        })
    }

    /// Goes on to its next call of the API.
    pub(super) fn step(&mut self) {
        let polled = self.running.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Pending);
    }

    /// Dies and starts anew: it forgets everything.
    pub(super) fn crash(&mut self) {
        self.running = Self::passes(self.cluster.clone());
    }
}

/// A pool of `blocks` blocks, so that a released one is soon another's.
pub(super) fn spec(blocks: u32) -> ClusterNetworkSpec {
    let mut spec = ClusterNetworkSpec::default();
    let pool = &mut spec.pod_network.pools[0];
    pool.block_sizes.ipv4 = 30;
    pool.cidrs = vec![format!("10.0.0.0/{}", 30 - blocks.ilog2()).parse().unwrap()];
    spec
}

pub(super) fn no_block_is_in_two_nodes(state: &State) {
    let mut holders = HashMap::new();
    for (node, network) in &state.node_networks {
        for block in &network.spec.blocks {
            if let Some(other) = holders.insert(block, node) {
                panic!("{block} is in {other} and {node}: {state:#?}");
            }
        }
    }
}

/// One operator alone brings the cluster to rest: every node has its blocks, and none is left over. Two operators that
/// claim at the same time may give a node more than one.
fn comes_to_rest(cluster: &FakeCluster) {
    let mut operator = Operator::new(cluster);
    for _ in 0..70 {
        operator.step();
        cluster.change(|state| no_block_is_in_two_nodes(state));
    }
    cluster.change(|state| {
        assert_eq!(state.node_networks.len(), state.nodes.len(), "{state:#?}");
        let held: usize = state.node_networks.values().map(|network| network.spec.blocks.len()).sum();
        assert_eq!(state.blocks.len(), held, "{state:#?}");
        for node in &state.nodes {
            let network = &state.node_networks[&node.name];
            assert!(!network.spec.blocks.is_empty(), "{state:#?}");
            assert_eq!(network.owner_references()[0].uid, node.uid);
        }
    });
}

/// What happens to the nodes meanwhile.
const EVENTS: [fn(&mut State); 4] = [
    |state| state.leave("a"),
    State::collect_garbage,
    |state| {
        if !state.nodes.iter().any(|node| node.name == "a") {
            state.join("a");
        }
    },
    |state| {
        if !state.nodes.iter().any(|node| node.name == "b") {
            state.join("b");
        }
    },
];

/// The paused leader: one operator stops before every possible call, another takes over while a node is replaced by
/// others, and then the first wakes up and goes on with what it believed.
#[test]
fn a_leader_that_was_paused_anywhere_gives_no_block_twice() {
    for paused in 0..20 {
        for events in orders() {
            for between in [0, 6, 12] {
                let cluster = FakeCluster::new(spec(1), &["a"]);
                let (mut first, mut second) = (Operator::new(&cluster), Operator::new(&cluster));
                (0..paused).for_each(|_| first.step());
                for event in &events {
                    cluster.change(EVENTS[*event]);
                    for _ in 0..between {
                        second.step();
                        cluster.change(|state| no_block_is_in_two_nodes(state));
                    }
                }
                for _ in 0..30 {
                    first.step();
                    cluster.change(|state| no_block_is_in_two_nodes(state));
                }
                cluster.change(|state| state.leave("b"));
                comes_to_rest(&cluster);
            }
        }
    }
}

/// Both are stopped in the middle of a look, one before and one after the node's NodeNetwork, lost by hand, is made anew.
#[test]
fn looks_that_overlap_a_departure_give_no_block_twice() {
    for (early, late) in (0..10).flat_map(|early| (0..24).map(move |late| (early, late))) {
        let cluster = FakeCluster::new(spec(1), &["a"]);
        comes_to_rest(&cluster);
        cluster.change(|state| state.node_networks.clear());
        let (mut first, mut second) = (Operator::new(&cluster), Operator::new(&cluster));
        (0..early).for_each(|_| second.step());
        (0..late).for_each(|_| first.step());
        cluster.change(EVENTS[0]);
        cluster.change(EVENTS[3]);
        for operator in [&mut second, &mut first] {
            for _ in 0..40 {
                operator.step();
                cluster.change(|state| no_block_is_in_two_nodes(state));
            }
        }
        comes_to_rest(&cluster);
    }
}

/// The node leaves, then the others in every order.
fn orders() -> Vec<Vec<usize>> {
    let mut orders = vec![vec![]];
    for event in 1..EVENTS.len() {
        orders = orders
            .iter()
            .flat_map(|order: &Vec<usize>| {
                (0..=order.len()).map(move |place| {
                    let mut longer = order.clone();
                    longer.insert(place, event);
                    longer
                })
            })
            .collect();
    }
    for order in &mut orders {
        order.insert(0, 0);
    }
    orders
}

#[test]
fn random_schedules_with_crashes_give_no_block_twice() {
    for seed in 1..=200_u64 {
        let mut random = Random::new(seed);
        let cluster = FakeCluster::new(spec(16), &["a"]);
        let mut operators = [Operator::new(&cluster), Operator::new(&cluster)];
        for _ in 0..150 {
            let who = random.below(2);
            match random.below(24) {
                0 => operators[who].crash(),
                1 | 2 => cluster.change(EVENTS[random.below(EVENTS.len())]),
                _ => operators[who].step(),
            }
            cluster.change(|state| no_block_is_in_two_nodes(state));
        }
        comes_to_rest(&cluster);
    }
}

#[test]
fn a_removal_leaves_nothing_whoever_does_it() {
    for paused in 0..60 {
        let cluster = FakeCluster::new(spec(2), &["a", "b"]);
        let (mut first, mut second) = (Operator::new(&cluster), Operator::new(&cluster));
        (0..paused).for_each(|_| first.step());
        cluster.change(State::delete_network);
        for _ in 0..120 {
            second.step();
            // the agents clean up as soon as they are asked
            cluster.change(|state| {
                for network in state
                    .node_networks
                    .values_mut()
                    .filter(|n| n.spec.state == netkeel_crds::node_network::State::Removing)
                {
                    let removed = netkeel_crds::condition::condition(
                        "Removed",
                        true,
                        "Removed",
                        "",
                        k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH),
                    );
                    network.status.get_or_insert_default().conditions = vec![removed];
                }
            });
        }
        cluster.change(|state| {
            assert!(state.network.is_none(), "paused at {paused}: {state:#?}");
            assert!(
                state.blocks.is_empty() && state.node_networks.is_empty() && state.parts.is_empty(),
                "{state:#?}"
            );
        });
    }
}
