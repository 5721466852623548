//! Small random clusters: few labels, names and addresses, so that everything meets everything.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use netkeel_core::{
    address::Address,
    name::ObjectName,
    policy::{
        Compiled, Compiler, Labels, Namespace, Numbers, Peer, Pod, Policy, Ports, Requirement, Rule, Selector,
    },
    service::Protocol,
};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};

use super::super::{Attached, Known, PodRef, Wanted};

/// The node of the tests.
pub(crate) const NODE: &str = "a";
/// Ports that are looked at.
pub(crate) const PORTS: [(u8, u16); 4] = [(6, 80), (6, 81), (6, 8080), (17, 53)];
const CIDRS: [&str; 8] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/28",
    "10.0.1.0/24",
    "10.0.1.3/32",
    "192.168.0.0/16",
    "::/0",
    "fd00::/8",
];

/// What the API holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) pods: BTreeMap<ObjectName, Pod>,
    pub(crate) policies: BTreeMap<ObjectName, Policy>,
}

pub(crate) fn address(third: u8, last: u8) -> Address {
    Ipv4Addr::new(10, 0, third, last).into()
}

/// The others that are looked at: pods of this node and others, and addresses of nobody.
pub(crate) fn others() -> Vec<Address> {
    let outside = ["192.168.1.1", "8.8.8.8", "10.9.9.9", "fd00::9", "2001:db8::1"];
    let pods = (1..=3).flat_map(|last| [address(0, last), address(1, last)]);
    pods.chain(outside.map(|text| text.parse::<IpAddr>().unwrap().into())).collect()
}

pub(crate) fn labels(app: u8) -> Labels {
    Arc::new([("app".to_owned(), app.to_string())].into())
}

pub(crate) fn own(number: u8) -> ObjectName {
    ObjectName::new("shop", &format!("own-{number}"))
}

/// A pod of this node.
pub(crate) fn own_pod(number: u8, app: u8) -> Pod {
    Pod { node: Some(NODE.into()), ..pod(own(number), app, Some(address(0, number))) }
}

/// A pod of another node.
pub(crate) fn pod(name: ObjectName, app: u8, at: Option<Address>) -> Pod {
    Pod {
        name,
        labels: labels(app),
        node: Some("b".into()),
        addresses: at.into_iter().collect(),
        host_network: false,
        finished: false,
    }
}

/// Its link, as CNI made it.
pub(crate) fn attached(number: u8) -> Attached {
    Attached {
        pod: PodRef { name: own(number), uid: "".into() },
        address: address(0, number),
        other: None,
        ifindex: u32::from(number) + 10,
        mac: [number; 6],
        shaped: number.is_multiple_of(2),
    }
}

pub(crate) fn selector(app: Option<u8>) -> Selector {
    let one = |app: u8| Requirement::In("app".to_owned(), [app.to_string()].into());
    Selector(app.map(one).into_iter().collect())
}

pub(crate) fn cluster() -> impl Strategy<Value = Cluster> {
    let own = btree_map(1..=3_u8, 0..3_u8, 0..=3);
    let remote = btree_map(1..=4_u8, (0..3_u8, option::weighted(0.8, 1..=3_u8)), 0..=4);
    (own, remote, vec(policy(), 0..4)).prop_map(|(own, remote, policies)| {
        let own = own.into_iter().map(|(number, app)| own_pod(number, app));
        let remote = remote.into_iter().map(|(number, (app, last))| {
            let name =
                ObjectName::new(["shop", "bank"][usize::from(number % 2)], &format!("remote-{number}"));
            pod(name, app, last.map(|last| address(1, last)))
        });
        Cluster {
            pods: own.chain(remote).map(|pod| (pod.name.clone(), pod)).collect(),
            policies: policies.into_iter().map(|policy| (policy.name.clone(), policy)).collect(),
        }
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let rules = || option::weighted(0.7, vec(rule(), 0..3));
    (0..3_u8, option::of(0..3_u8), rules(), rules()).prop_map(|(number, app, ingress, egress)| Policy {
        name: ObjectName::new("shop", &format!("policy-{number}")),
        pods: selector(app),
        ingress,
        egress,
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let range = prop_oneof![Just(80..=80), Just(80..=81), Just(0..=u16::MAX), Just(8000..=8100)];
    let ports = (select(vec![Protocol::Tcp, Protocol::Udp]), range)
        .prop_map(|(protocol, range)| Ports { protocol, range });
    (option::weighted(0.8, vec(peer(), 0..3)), option::of(vec(ports, 0..3)))
        .prop_map(|(peers, ports)| Rule { peers, ports })
}

fn peer() -> impl Strategy<Value = Peer> {
    let cidr = || select(&CIDRS[..]).prop_map(|text| text.parse::<ipnet::IpNet>().unwrap());
    prop_oneof![
        (option::of(Just(Selector::default())), option::of(0..3_u8))
            .prop_map(|(namespaces, app)| Peer::Pods { namespaces, pods: selector(app) }),
        (cidr(), vec(cidr(), 0..2)).prop_map(|(cidr, mut except)| {
            except.retain(|except| cidr.contains(except) && *except != cidr);
            Peer::Block { cidr, except }
        }),
    ]
}

/// The real compiler, following one cluster after the other.
pub(crate) struct Following {
    compiler: Compiler,
    now: Cluster,
}

impl Following {
    pub(crate) fn new(numbers: Numbers) -> Self {
        let mut compiler = Compiler::new(NODE, numbers);
        for name in ["shop", "bank"] {
            compiler.put_namespace(Namespace { name: name.into(), labels: labels(9), terminating: false });
        }
        Self { compiler, now: Cluster::default() }
    }

    pub(crate) fn numbers(&self) -> Numbers {
        self.compiler.numbers().clone()
    }

    pub(crate) fn compile(&mut self, cluster: &Cluster) -> Compiled {
        for name in self.now.pods.keys().filter(|name| !cluster.pods.contains_key(name)) {
            self.compiler.remove_pod(name);
        }
        for name in self.now.policies.keys().filter(|name| !cluster.policies.contains_key(name)) {
            self.compiler.remove_policy(name);
        }
        for pod in cluster.pods.values() {
            self.compiler.put_pod(pod.clone());
        }
        for policy in cluster.policies.values() {
            self.compiler.put_policy(policy.clone());
        }
        self.now = cluster.clone();
        self.compiler.compile().clone()
    }
}

/// The node's pods as the programmer wants them; none has a UID.
pub(crate) fn known(compiled: &Compiled) -> HashMap<ObjectName, Known> {
    let known = |(name, isolation): (&ObjectName, &_)| {
        (name.clone(), Known { uid: "".into(), isolation: Clone::clone(isolation) })
    };
    compiled.pods.iter().map(known).collect()
}

pub(crate) fn wanted<'a>(
    compiled: &'a Compiled,
    pods: &'a HashMap<ObjectName, Known>,
    complete: bool,
) -> Wanted<'a> {
    Wanted { identities: &compiled.identities, cidrs: &compiled.cidrs, pods, complete }
}
