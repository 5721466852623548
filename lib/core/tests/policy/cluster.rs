//! Random clusters: few names, labels and addresses, so that everything meets everything.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use netkeel_core::{
    address::Address,
    name::ObjectName,
    policy::{
        Compiler, Labels, Namespace, Peer, Pod, Policy, Ports, Requirement, Rule, Selector, World, ports,
    },
    service::Protocol,
};
use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
    sample::select,
};

/// The nodes that have pods.
pub(crate) const NODES: [&str; 2] = ["a", "b"];

/// The last two have no Namespace object in some clusters.
const NAMESPACES: [&str; 3] = ["blue", "green", "red"];
/// Some of IPv6 are around the v4-mapped addresses.
const CIDRS: [&str; 22] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/28",
    "10.0.0.0/29",
    "10.0.0.4/30",
    "10.0.0.5/32",
    "10.0.0.9/32",
    "172.18.0.0/16",
    "172.18.0.2/32",
    "192.168.0.0/16",
    "192.168.1.0/24",
    "128.0.0.0/1",
    "::/0",
    "::/1",
    "::fffe:0:0/95",
    "fc00::/7",
    "fd00:10::/124",
    "fd00:10::/125",
    "fd00:10::4/126",
    "fd00:10::5/128",
    "fd00:18::2/128",
    "2001:db8:1::/48",
];
const PORTS: [u16; 12] = [0, 1, 52, 53, 80, 81, 443, 8079, 8080, 8087, 8088, 65535];

const OTHERS: [&str; 13] = [
    "172.18.0.2",
    "172.18.0.3",
    "172.18.0.9",
    "192.168.1.7",
    "192.168.2.7",
    "8.8.8.8",
    "200.0.0.1",
    "fd00:18::2",
    "fd00:18::9",
    "2001:db8:1::7",
    "2001:db8:2::7",
    "::fffe:0:1",
    "8000::1",
];

/// Traffic between a pod and somebody.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) other: Address,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

/// One change of the API's objects.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    PutPod(Pod),
    RemovePod(ObjectName),
    PutNamespace(Namespace),
    RemoveNamespace(&'static str),
    PutPolicy(Policy),
    RemovePolicy(ObjectName),
    SetNodes(BTreeMap<Address, Arc<str>>),
}

impl Change {
    pub(crate) fn apply(self, compiler: &mut Compiler) -> bool {
        match self {
            Self::PutPod(pod) => compiler.put_pod(pod),
            Self::RemovePod(name) => compiler.remove_pod(&name),
            Self::PutNamespace(namespace) => compiler.put_namespace(namespace),
            Self::RemoveNamespace(name) => compiler.remove_namespace(name),
            Self::PutPolicy(policy) => compiler.put_policy(policy),
            Self::RemovePolicy(name) => compiler.remove_policy(&name),
            Self::SetNodes(nodes) => compiler.set_nodes(nodes),
        }
    }
}

/// Changes, and whether to compile after each.
pub(crate) fn history() -> impl Strategy<Value = Vec<(Change, bool)>> {
    let change = prop_oneof![
        6 => pod().prop_map(Change::PutPod),
        2 => pod().prop_map(|pod| Change::RemovePod(pod.name)),
        2 => namespace().prop_map(Change::PutNamespace),
        1 => select(&NAMESPACES[..]).prop_map(Change::RemoveNamespace),
        6 => policy().prop_map(Change::PutPolicy),
        3 => policy().prop_map(|policy| Change::RemovePolicy(policy.name)),
        1 => nodes().prop_map(Change::SetNodes),
    ];
    vec((change, any::<bool>()), 1..25)
}

pub(crate) fn load(compiler: &mut Compiler, world: World) {
    let World { namespaces, pods, policies, nodes } = world;
    let all = pods.into_values().map(Change::PutPod);
    let all = all.chain(namespaces.into_values().map(Change::PutNamespace));
    let all = all.chain(policies.into_values().map(Change::PutPolicy));
    for change in all.chain([Change::SetNodes(nodes)]) {
        change.apply(compiler);
    }
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    let (namespaces, pods, policies) = (vec(namespace(), 0..4), vec(pod(), 0..12), vec(policy(), 0..6));
    (namespaces, pods, policies, nodes()).prop_map(|(namespaces, pods, policies, nodes)| World {
        namespaces: namespaces
            .into_iter()
            .map(|namespace| (Arc::clone(&namespace.name), namespace))
            .collect(),
        pods: pods.into_iter().map(|pod| (pod.name.clone(), pod)).collect(),
        policies: policies.into_iter().map(|policy| (policy.name.clone(), policy)).collect(),
        nodes,
    })
}

/// To and from pods, nodes, addresses inside and outside of every CIDR; ports at the edges of all ranges.
pub(crate) fn flows() -> impl Strategy<Value = Vec<Flow>> {
    let other = prop_oneof![
        2 => pod_address(),
        1 => select(&OTHERS[..]).prop_map(|text| Address::from(text.parse::<IpAddr>().expect("an address"))),
    ];
    let flow = (other, select(&[1_u8, 6, 6, 17, 132][..]), select(&PORTS[..]));
    vec(flow.prop_map(|(other, protocol, port)| Flow { other, protocol, port }), 60)
}

/// The same world with one peer, port entry or rule less, in every way there is.
pub(crate) fn smaller(world: &World) -> Vec<World> {
    let mut all = Vec::new();
    for (name, policy) in &world.policies {
        let mut push = |policy: Policy| {
            let mut world = world.clone();
            world.policies.insert(name.clone(), policy);
            all.push(world);
        };
        for egress in [false, true] {
            let rules = if egress { &policy.egress } else { &policy.ingress };
            for smaller in rules.iter().flat_map(|rules| smaller_rules(rules)) {
                let mut policy = policy.clone();
                *(if egress { &mut policy.egress } else { &mut policy.ingress }) = Some(smaller);
                push(policy);
            }
        }
    }
    all
}

fn smaller_rules(rules: &[Rule]) -> Vec<Vec<Rule>> {
    let mut all = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let mut with = |rule: Rule| {
            let mut rules = rules.to_vec();
            rules[index] = rule;
            all.push(rules);
        };
        for peers in rule.peers.iter().flat_map(|peers| one_less(peers)) {
            with(Rule { peers: Some(peers), ..rule.clone() });
        }
        for ports in rule.ports.iter().flat_map(|ports| one_less(ports)) {
            with(Rule { ports: Some(ports), ..rule.clone() });
        }
    }
    all.extend(one_less(rules));
    all
}

fn one_less<T: Clone>(list: &[T]) -> impl Iterator<Item = Vec<T>> {
    (0..list.len()).map(|index| [&list[..index], &list[index + 1..]].concat())
}

fn labels() -> impl Strategy<Value = Labels> {
    let label = (select(&["app", "tier"][..]), select(&["x", "y"][..]));
    vec(label, 0..3).prop_map(|labels| {
        Arc::new(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    })
}

fn namespace() -> impl Strategy<Value = Namespace> {
    (select(&NAMESPACES[..]), labels(), any::<bool>()).prop_map(|(name, labels, terminating)| Namespace {
        name: name.into(),
        labels,
        terminating,
    })
}

fn ipv6(second: u16, last: u8) -> Address {
    Ipv6Addr::new(0xfd00, second, 0, 0, 0, 0, 0, last.into()).into()
}

fn pod_address() -> impl Strategy<Value = Address> {
    (any::<bool>(), 1_u8..14)
        .prop_map(|(six, last)| if six { ipv6(0x10, last) } else { Address::v4([10, 0, 0, last]) })
}

/// Two pods may say that they have one address, and a pod may have a node's.
fn pod() -> impl Strategy<Value = Pod> {
    let address = prop_oneof![20 => pod_address(), 1 => Just(Address::v4([172, 18, 0, 2]))];
    let addresses = prop_oneof![
        6 => address.prop_map(|address| [address].into()),
        3 => (1_u8..14).prop_map(|last| [Address::v4([10, 0, 0, last]), ipv6(0x10, last)].into()),
        1 => btree_set(pod_address(), 0..3).prop_map(|all| all.into_iter().collect()),
    ];
    let name = (select(&NAMESPACES[..]), 0_u8..6);
    let node = option::weighted(0.9, select(&NODES[..]));
    let unusual = (prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    (name, labels(), node, addresses, unusual).prop_map(
        |((namespace, number), labels, node, addresses, (host_network, finished))| Pod {
            name: ObjectName::new(namespace, &format!("pod-{number}")),
            labels,
            node: node.map(Into::into),
            addresses,
            host_network,
            finished,
        },
    )
}

fn nodes() -> impl Strategy<Value = BTreeMap<Address, Arc<str>>> {
    let address = prop_oneof![
        3 => (2_u8..5).prop_map(|last| Address::v4([172, 18, 0, last])),
        2 => (2_u8..5).prop_map(|last| ipv6(0x18, last)),
        1 => (0_u8..3).prop_map(|last| Address::v4([10, 0, 0, last])),
    ];
    btree_map(address, select(&NODES[..]).prop_map(Into::into), 0..4)
}

fn policy() -> impl Strategy<Value = Policy> {
    let name = (select(&NAMESPACES[..]), 0_u8..4);
    let rules = || option::weighted(0.7, vec(rule(), 0..4));
    (name, selector(), rules(), rules()).prop_map(|((namespace, number), pods, ingress, egress)| Policy {
        name: ObjectName::new(namespace, &format!("policy-{number}")),
        pods,
        ingress,
        egress,
    })
}

/// An empty list is what is left of peers or ports that are not implemented.
fn rule() -> impl Strategy<Value = Rule> {
    let (peers, ports) =
        (option::weighted(0.8, vec(peer(), 0..3)), option::weighted(0.7, vec(ports(), 0..4)));
    (peers, ports).prop_map(|(peers, ports)| Rule { peers, ports })
}

fn peer() -> impl Strategy<Value = Peer> {
    let pods =
        (option::of(selector()), selector()).prop_map(|(namespaces, pods)| Peer::Pods { namespaces, pods });
    let block = (cidr(), vec(cidr(), 0..3)).prop_map(|(cidr, except)| Peer::Block { cidr, except });
    prop_oneof![pods, block]
}

fn cidr() -> impl Strategy<Value = IpNet> {
    select(&CIDRS[..]).prop_map(|text| text.parse().expect("a CIDR"))
}

fn ports() -> impl Strategy<Value = Ports> {
    let range = prop_oneof![
        1 => Just(ports::ALL),
        3 => select(&PORTS[1..]).prop_map(|port| port..=port),
        2 => (select(&PORTS[1..]), select(&PORTS[1..])).prop_map(|(a, b)| a.min(b)..=a.max(b)),
    ];
    let protocol = select(&[Protocol::Tcp, Protocol::Udp][..]);
    (protocol, range).prop_map(|(protocol, range)| Ports { protocol, range })
}

fn selector() -> impl Strategy<Value = Selector> {
    let values = || btree_set(select(&["x", "y"][..]).prop_map(str::to_owned), 1..3);
    let key = || select(&["app", "tier"][..]).prop_map(str::to_owned);
    let requirement = prop_oneof![
        3 => (key(), values()).prop_map(|(key, values)| Requirement::In(key, values)),
        1 => (key(), values()).prop_map(|(key, values)| Requirement::NotIn(key, values)),
        1 => key().prop_map(Requirement::Exists),
        1 => key().prop_map(Requirement::DoesNotExist),
    ];
    vec(requirement, 0..3).prop_map(Selector)
}
