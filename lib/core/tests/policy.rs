//! Random clusters: what the compiled maps say, looked up as the kernel does, is what the API's text says.

#[path = "policy/cluster.rs"]
mod cluster;

use std::collections::HashMap;

use netkeel_core::policy::{
    Class, Compiled, Compiler, Direction, Numbers, Party, Pod, World, compile, explain, naive,
};
use proptest::prelude::*;

use self::cluster::{Change, Flow};

/// The kernel's side: the tables, and what it decides without them.
struct Kernel<'a> {
    world: &'a World,
    compiled: &'a Compiled,
}

impl Kernel<'_> {
    /// Traffic of a pod to its own address never leaves the pod.
    fn egress(&self, pod: &Pod, flow: &Flow) -> bool {
        pod.addresses.contains(&flow.other) || self.table(pod, Direction::Egress, flow)
    }

    /// What the own host stack sent is not asked.
    fn ingress(&self, pod: &Pod, flow: &Flow) -> bool {
        let own_node = self.world.nodes.get(&flow.other).is_some_and(|node| Some(node) == pod.node.as_ref());
        own_node || pod.addresses.contains(&flow.other) || self.table(pod, Direction::Ingress, flow)
    }

    fn table(&self, pod: &Pod, direction: Direction, flow: &Flow) -> bool {
        self.compiled.allows(&pod.name, direction, flow.other, flow.protocol, flow.port)
    }
}

/// Egress and ingress of all pods of all nodes.
fn verdicts(world: &World, flows: &[Flow]) -> Vec<(bool, bool)> {
    let mut verdicts = Vec::new();
    for node in cluster::NODES {
        let compiled = compile(world, node, Numbers::default());
        let kernel = Kernel { world, compiled: &compiled };
        for name in compiled.pods.keys() {
            let pod = &world.pods[name];
            verdicts.extend(flows.iter().map(|flow| (kernel.egress(pod, flow), kernel.ingress(pod, flow))));
        }
    }
    verdicts
}

proptest! {
    #[test]
    fn the_kernel_decides_as_the_text_says(world in cluster::world(), flows in cluster::flows()) {
        for node in cluster::NODES {
            let compiled = compile(&world, node, Numbers::default());
            let kernel = Kernel { world: &world, compiled: &compiled };
            let own = world.pods.values().filter(|pod| pod.node.as_deref() == Some(node) && pod.is_subject());
            prop_assert!(own.clone().map(|pod| &pod.name).eq(compiled.pods.keys()));
            for (pod, flow) in own.flat_map(|pod| flows.iter().map(move |flow| (pod, flow))) {
                let &Flow { other, protocol, port } = flow;
                let egress = naive::egress(&world, pod, other, protocol, port);
                prop_assert_eq!(kernel.egress(pod, flow), egress, "{} to {:?}", pod.name, flow);
                let ingress = naive::ingress(&world, other, pod, protocol, port);
                prop_assert_eq!(kernel.ingress(pod, flow), ingress, "{:?} to {}", flow, pod.name);
            }
        }
    }

    #[test]
    fn the_explanation_says_what_the_text_says(world in cluster::world(), from in cluster::flows(), to in cluster::flows()) {
        for (from, flow) in from.iter().zip(&to).take(40) {
            let (protocol, port) = (flow.protocol, flow.port);
            let parties = [from.other, flow.other].map(Party::Address);
            let explanation = explain(&world, &parties[0], &parties[1], protocol, port);
            let allowed = naive::allows(&world, from.other, flow.other, protocol, port);
            prop_assert_eq!(explanation.allowed, allowed, "{} to {:?}: {}", from.other, flow, explanation);
        }
    }

    #[test]
    fn fewer_peers_or_ports_or_rules_never_allow_more(world in cluster::world(), flows in cluster::flows(), place: prop::sample::Index) {
        let smaller = cluster::smaller(&world);
        prop_assume!(!smaller.is_empty());
        let smaller = place.get(&smaller);
        for (before, after) in verdicts(&world, &flows).into_iter().zip(verdicts(smaller, &flows)) {
            prop_assert!(before.0 >= after.0 && before.1 >= after.1);
        }
    }

    #[test]
    fn any_history_ends_where_a_fresh_start_does(world in cluster::world(), history in cluster::history()) {
        let mut compiler = Compiler::new(cluster::NODES[0], Numbers::default());
        let mut seen = HashMap::new();
        let start = world.pods.into_values().map(Change::PutPod)
            .chain(world.namespaces.into_values().map(Change::PutNamespace))
            .chain(world.policies.into_values().map(Change::PutPolicy));
        for (change, look) in start.map(|change| (change, false)).chain(history) {
            change.apply(&mut compiler);
            if look {
                check(&mut compiler, &mut seen)?;
            }
        }
        check(&mut compiler, &mut seen)?;
    }

    #[test]
    fn a_change_that_is_called_nothing_new_is_nothing_new(world in cluster::world(), history in cluster::history()) {
        let mut compiler = Compiler::new(cluster::NODES[0], Numbers::default());
        cluster::load(&mut compiler, world);
        for (change, _) in history {
            let before = compiler.compile().clone();
            let text = format!("{change:?}");
            if !change.apply(&mut compiler) {
                prop_assert_eq!(compiler.compile(), &before, "{}", text);
            }
        }
    }
}

/// The compiler's result is that of a fresh one, and a number that meant a class once never means another.
fn check(compiler: &mut Compiler, seen: &mut HashMap<u32, Class>) -> Result<(), TestCaseError> {
    let before: HashMap<Class, u32> =
        compiler.numbers().classes().map(|(class, number)| (class.clone(), number)).collect();
    let incremental = compiler.compile().clone();
    let fresh = compile(compiler.world(), cluster::NODES[0], compiler.numbers().clone());
    prop_assert_eq!(&incremental, &fresh);
    for (class, number) in compiler.numbers().classes() {
        prop_assert_eq!(
            before.get(class).copied().unwrap_or(number),
            number,
            "{:?} got another number",
            class
        );
        let meant = seen.entry(number).or_insert_with(|| class.clone());
        prop_assert_eq!(&*meant, class, "number {} was given twice", number);
    }
    Ok(())
}
