//! Blocks on their way back, with agents that are late, crash, and start from what they wrote down last, and two operators that
//! are stopped and killed between any two calls of the API: a pod's block is always its node's, and nobody else's.

use ipnet::IpNet;
use kube::ResourceExt;
use netkeel_crds::{
    NodeNetwork, NodeNetworkSpec, NodeNetworkStatus, block_name,
    node_network::{BlockRelease, BlockUsage},
};
use netkeel_testkit::random::Random;

use super::interleavings::{Operator, no_block_is_in_two_nodes, spec};
use crate::cluster::fake::{FakeCluster, State};

/// Addresses of a /30 that pods can have.
const CAPACITY: usize = 3;

/// An agent as far as blocks are concerned: what it has applied, what its disk says, and which blocks its pods are of.
struct Agent {
    node: String,
    uid: String,
    applied: Option<NodeNetworkSpec>,
    kept: Option<NodeNetworkSpec>,
    /// What it says that it has applied: after a restart at first what it said before.
    revision: Option<String>,
    /// Blocks that it had when it last heard of the API.
    blocks: Vec<IpNet>,
    pods: Vec<IpNet>,
    /// Nothing can be written to the disk.
    full: bool,
}

impl Agent {
    fn new(state: &State, node: &str) -> Option<Self> {
        let uid = state.nodes.iter().find(|each| each.name == node)?.uid.clone();
        Some(Self {
            node: node.to_owned(),
            uid,
            applied: None,
            kept: None,
            revision: None,
            blocks: Vec::new(),
            pods: Vec::new(),
            full: false,
        })
    }

    /// One of the things that an agent does, by chance. Pods come and go in waves.
    fn act(&mut self, state: &mut State, random: &mut Random, busy: bool) {
        match random.below(24) {
            0..6 => self.watch(state),
            6 if random.below(8) == 0 => self.full = !self.full,
            6..10 if !self.full => self.kept.clone_from(&self.applied),
            6..10 => {}
            10..15 if busy => self.add(state, random),
            10..15 => self.del(random),
            15 => self.add(state, random),
            16..23 => self.report(state),
            _ => self.restart(random.below(2) == 0),
        }
    }

    /// An object without blocks is waited with; one of an earlier node of this name is none.
    fn watch(&mut self, state: &State) {
        let own =
            |network: &&NodeNetwork| network.owner_references().iter().any(|owner| owner.uid == self.uid);
        let seen = state.node_networks.get(&self.node).filter(own).map(|network| network.spec.clone());
        let Some(seen) = seen.filter(|seen| !seen.blocks.is_empty()) else { return };
        self.blocks.clone_from(&seen.blocks);
        self.revision = Some(seen.revision.clone());
        self.applied = Some(seen);
    }

    /// Starts from its disk, and reports before or after it has applied that.
    fn restart(&mut self, applied: bool) {
        self.applied.clone_from(&self.kept);
        if applied {
            self.revision = self.applied.as_ref().map(|spec| spec.revision.clone()).or(self.revision.take());
        }
    }

    /// Whether it gives no address of the block as long as this mark stands, restarted or not.
    fn has_emptied(&self, release: &BlockRelease) -> bool {
        let kept = self.kept.as_ref().is_some_and(|kept| kept.releasing.contains(release));
        kept && self.used(&release.cidr) == 0
    }

    fn used(&self, block: &IpNet) -> usize {
        self.pods.iter().filter(|pod| *pod == block).count()
    }

    /// A pod gets an address of the first block that has one, or of any.
    fn add(&mut self, state: &State, random: &mut Random) {
        let Some(applied) = &self.applied else { return };
        let marked = |block: &IpNet| applied.releasing.iter().any(|release| release.cidr == *block);
        let free = |block: &&IpNet| !marked(block) && self.used(block) < CAPACITY;
        let mut blocks: Vec<IpNet> = applied.blocks.iter().filter(free).copied().collect();
        if random.below(3) == 0 {
            blocks.reverse();
        }
        let Some(block) = blocks.first() else { return };
        self.pods.push(*block);
        self.owns_its_blocks(state);
    }

    fn del(&mut self, random: &mut Random) {
        if !self.pods.is_empty() {
            self.pods.remove(random.below(self.pods.len()));
        }
    }

    fn report(&self, state: &mut State) {
        let Some(applied) = &self.applied else { return };
        let use_of = |block: &IpNet| {
            let used = u32::try_from(self.used(block)).unwrap();
            BlockUsage { cidr: *block, used, capacity: 3, idle: used == 0 }
        };
        let emptied =
            |release: &&BlockRelease| applied.blocks.contains(&release.cidr) && self.has_emptied(release);
        let status = NodeNetworkStatus {
            applied_revision: self.revision.clone(),
            blocks: applied.blocks.iter().map(use_of).collect(),
            released: applied.releasing.iter().filter(emptied).cloned().collect(),
            ..NodeNetworkStatus::default()
        };
        if state.node_networks.get(&self.node).is_some_and(|network| network.status.as_ref() != Some(&status))
        {
            state.report(&self.node, status);
        }
    }

    /// No block that the agent knows as its own, and none that a pod has an address of, is another node's, or nobody's.
    fn owns_its_blocks(&self, state: &State) {
        for block in self.pods.iter().chain(&self.blocks) {
            let claim = state.blocks.get(&block_name(block));
            let owner = claim.map(|claim| &claim.spec.node_uid);
            assert_eq!(owner, Some(&self.uid), "{block} is in use by {}: {state:#?}", self.node);
            let other = state
                .node_networks
                .iter()
                .find(|(node, network)| **node != self.node && network.spec.blocks.contains(block));
            assert!(other.is_none(), "{block} is in use by {} and is in {other:?}", self.node);
        }
    }
}

/// All that there is.
struct Scene {
    cluster: FakeCluster,
    operators: [Operator; 2],
    /// Which operator runs; the other one is stopped wherever it is.
    runs: usize,
    agents: Vec<Agent>,
    /// Steps of blocks that were seen: marked, taken out, marks taken back.
    seen: [usize; 3],
    before: Vec<(String, NodeNetworkSpec)>,
}

impl Scene {
    fn new(blocks: u32) -> Self {
        let cluster = FakeCluster::new(spec(blocks), &["a", "b"]);
        let operators = [Operator::new(&cluster), Operator::new(&cluster)];
        let agents =
            cluster.change(|state| ["a", "b"].iter().filter_map(|node| Agent::new(state, node)).collect());
        Self { cluster, operators, runs: 0, agents, seen: [0; 3], before: Vec::new() }
    }

    fn step(&mut self, random: &mut Random, busy: bool) {
        match random.below(100) {
            0 => self.operators[random.below(2)].crash(),
            1 if random.below(4) == 0 => self.cluster.change(|state| drop(state.node_networks.remove("a"))),
            2 if random.below(4) == 0 => {
                self.agents.retain(|agent| agent.node != "b");
                self.cluster.change(|state| state.leave("b"));
            }
            3 => self.cluster.change(State::collect_garbage),
            4 if self.agents.len() < 2 => {
                self.cluster.change(|state| state.join("b"));
                self.agents.extend(self.cluster.change(|state| Agent::new(state, "b")));
            }
            5 => self.runs = 1 - self.runs,
            6..55 => self.operators[self.runs].step(),
            _ if !self.agents.is_empty() => {
                let agent = random.below(self.agents.len());
                self.cluster.change(|state| self.agents[agent].act(state, random, busy));
            }
            _ => {}
        }
        self.check();
    }

    fn check(&mut self) {
        let specs: Vec<(String, NodeNetworkSpec)> = self.cluster.change(|state| {
            no_block_is_in_two_nodes(state);
            for agent in &self.agents {
                agent.owns_its_blocks(state);
            }
            state.node_networks.iter().map(|(node, network)| (node.clone(), network.spec.clone())).collect()
        });
        for (node, spec) in &specs {
            let Some((_, before)) = self.before.iter().find(|(other, _)| other == node) else { continue };
            let gone = |block: &IpNet| before.blocks.contains(block) && !spec.blocks.contains(block);
            self.seen[0] += usize::from(spec.releasing.len() > before.releasing.len());
            for release in spec.releasing.iter().filter(|release| gone(&release.cidr)) {
                let agent = self.agents.iter().find(|agent| agent.node == *node);
                assert!(
                    agent.is_none_or(|agent| agent.has_emptied(release)),
                    "{release:?} of {node} is taken out"
                );
                self.seen[1] += 1;
            }
            let stays = |release: &&BlockRelease| {
                !spec.releasing.contains(release) && spec.blocks.contains(&release.cidr)
            };
            self.seen[2] += before.releasing.iter().filter(stays).count();
        }
        self.before = specs;
    }

    /// The first operator and all agents do what there is to do.
    fn work(&mut self, rounds: usize) {
        for _ in 0..rounds {
            for agent in &mut self.agents {
                self.cluster.change(|state| {
                    agent.watch(state);
                    agent.kept.clone_from(&agent.applied);
                    agent.report(state);
                });
            }
            for _ in 0..12 {
                self.operators[0].step();
                self.check();
            }
        }
    }

    /// With all pods gone and everybody at work every node is left with one block, and the rest is free.
    fn comes_to_rest(&mut self) {
        self.agents.iter_mut().for_each(|agent| agent.pods.clear());
        self.work(24);
        self.cluster.change(|state| {
            assert_eq!(state.blocks.len(), state.nodes.len(), "{state:#?}");
            for node in &state.nodes {
                let spec = &state.node_networks[&node.name].spec;
                assert!(spec.blocks.len() == 1 && spec.releasing.is_empty(), "{state:#?}");
            }
        });
    }
}

/// One operator has seen the claim of a block that its node gives back and another gets meanwhile.
#[test]
fn an_operator_that_was_paused_anywhere_brings_no_block_back() {
    for paused in 0..16 {
        let mut scene = Scene::new(4);
        let blocks =
            |scene: &Scene, node| scene.cluster.change(|state| state.node_networks[node].spec.blocks.clone());
        scene.work(3);
        let first = blocks(&scene, "a")[0];
        scene.agents[0].pods = vec![first; CAPACITY];
        scene.work(3);
        let second = blocks(&scene, "a")[1];
        (0..paused).for_each(|_| scene.operators[1].step());
        scene.agents[0].pods.pop();
        scene.work(8);
        assert_eq!(blocks(&scene, "a"), [first], "given back");
        scene.agents[1].pods = vec![blocks(&scene, "b")[0]; CAPACITY];
        scene.work(3);
        assert_eq!(blocks(&scene, "b")[1], second, "another's now");
        scene.agents[1].pods.push(second);
        for _ in 0..40 {
            scene.operators[1].step();
            scene.check();
        }
    }
}

/// It starts from a disk that was full since then, and the status still has the revision that it applied before.
#[test]
fn what_an_agent_says_of_an_earlier_mark_does_not_count() {
    let mut scene = Scene::new(4);
    scene.work(3);
    let first = scene.agents[0].applied.as_ref().unwrap().blocks[0];
    scene.agents[0].pods = vec![first; CAPACITY];
    scene.work(3);
    let marks = |scene: &mut Scene| {
        scene.cluster.change(|state| scene.agents[0].report(state));
        for _ in 0..24 {
            scene.operators[0].step();
            scene.check();
        }
        scene.cluster.change(|state| scene.agents[0].watch(state));
        let applied = scene.agents[0].applied.as_ref().unwrap();
        assert_eq!(applied.blocks.len(), 2, "nothing is taken out");
        applied.releasing.clone()
    };
    scene.agents[0].pods.pop();
    let earlier = marks(&mut scene);
    scene.agents[0].kept = scene.agents[0].applied.clone();
    scene.agents[0].pods.push(first);
    assert_eq!(marks(&mut scene), [], "needed again");
    scene.agents[0].pods.pop();
    let later = marks(&mut scene);
    assert_eq!((earlier.len(), later.len()), (1, 1));
    scene.agents[0].restart(false);
    assert_eq!(scene.agents[0].applied.as_ref().unwrap().releasing, earlier);
    assert_eq!(marks(&mut scene), later);
}

#[test]
fn no_schedule_gives_away_a_block_that_its_node_still_uses() {
    let mut seen = [0; 3];
    for seed in 1..=100_u64 {
        let mut random = Random::new(seed);
        let mut scene = Scene::new(4);
        for step in 0..1000 {
            scene.step(&mut random, step % 250 < 100);
        }
        scene.comes_to_rest();
        for (sum, one) in seen.iter_mut().zip(scene.seen) {
            *sum += one;
        }
    }
    assert!(seen.iter().all(|times| *times > 50), "marked, taken out, kept after all: {seen:?}");
}
