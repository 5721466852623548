//! The policies that people write, with what they mean written beside them: the index, the compiled maps, the naive reader and the
//! explanation must all say that.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netkeel_core::{
    address::Address,
    name::ObjectName,
    policy::{Direction, Numbers, Party, explain, naive},
};
use netkeel_index::{Policies, convert::policy::PodReader};
use serde_json::{Value, json};

/// Traffic by its name in the recipes.
const TRAFFIC: [(&str, u8, u16); 5] =
    [("tcp/80", 6, 80), ("tcp/443", 6, 443), ("tcp/8085", 6, 8085), ("udp/53", 17, 53), ("icmp", 1, 0)];

/// Addresses by their names in the recipes.
const OTHERS: [(&str, [u8; 4]); 7] = [
    ("web", [10, 0, 0, 1]),
    ("till", [10, 0, 1, 1]),
    ("own-node", [172, 18, 0, 2]),
    ("other-node", [172, 18, 0, 3]),
    ("lan", [192, 168, 1, 7]),
    ("quiet", [192, 168, 2, 7]),
    ("internet", [8, 8, 8, 8]),
];

#[derive(serde::Deserialize)]
struct Recipe {
    name: String,
    policies: Vec<Value>,
    ingress: BTreeMap<String, String>,
    egress: BTreeMap<String, String>,
}

/// The address, or in IPv6 the one that stands for it.
fn at(address: [u8; 4], six: bool) -> IpAddr {
    let [a, b, c, d] = address.map(u16::from);
    if six {
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a << 8 | b, c << 8 | d).into()
    } else {
        Ipv4Addr::from(address).into()
    }
}

/// The CIDRs in a spec as those of IPv6 that stand for them.
fn in_ipv6(spec: &mut Value) {
    match spec {
        Value::String(text) => {
            if let Ok(net) = text.parse::<ipnet::Ipv4Net>() {
                *text = format!("{}/{}", at(net.addr().octets(), true), net.prefix_len() + 96);
            }
        }
        Value::Array(parts) => parts.iter_mut().for_each(in_ipv6),
        Value::Object(parts) => parts.values_mut().for_each(in_ipv6),
        _ => {}
    }
}

fn db() -> ObjectName {
    ObjectName::new("shop", "db")
}

fn cluster(specs: &[Value], six: bool) -> Policies {
    let mut policies = Policies::new("own-node", Numbers::default());
    for (name, team) in [("shop", "a"), ("bank", "b")] {
        let object = json!({"metadata": {"name": name, "labels": {"team": team}}});
        policies.apply_namespace(&serde_json::from_value(object).expect("a namespace"));
    }
    let pods = [
        ("shop", "db", "db", "own-node", [10, 0, 0, 2]),
        ("shop", "web", "web", "other-node", [10, 0, 0, 1]),
        ("bank", "till", "web", "own-node", [10, 0, 1, 1]),
    ];
    let mut reader = PodReader::default();
    for (namespace, name, app, node, address) in pods {
        let object = json!({"metadata": {"namespace": namespace, "name": name, "labels": {"app": app}},
            "spec": {"nodeName": node, "containers": []}, "status": {"podIP": at(address, six)}});
        policies.apply_pod(reader.read(&serde_json::from_value(object).expect("a pod")));
    }
    for (number, spec) in specs.iter().enumerate() {
        let object =
            json!({"metadata": {"namespace": "shop", "name": format!("policy-{number}")}, "spec": spec});
        policies.apply_policy(&serde_json::from_value(object).expect("a policy"));
    }
    let node = |name: &str, last| (Address::from(at([172, 18, 0, last], six)), name.into());
    policies.set_nodes([node("own-node", 2), node("other-node", 3)]);
    policies
}

/// Who may: names of addresses with names of traffic.
type Allowed = BTreeSet<(&'static str, &'static str)>;

fn all(six: bool, may: impl Fn(Address, u8, u16) -> bool) -> Allowed {
    let pairs = OTHERS.iter().flat_map(|other| TRAFFIC.iter().map(move |traffic| (other, traffic)));
    let allowed = pairs
        .filter(|((_, other), (_, protocol, port))| may(Address::from(at(*other, six)), *protocol, *port));
    allowed.map(|((other, _), (traffic, ..))| (*other, *traffic)).collect()
}

fn written(list: &BTreeMap<String, String>) -> Allowed {
    for (name, traffic) in list {
        assert!(OTHERS.iter().any(|(other, _)| other == name), "{name} is nobody");
        let known = |word| word == "all" || TRAFFIC.iter().any(|(name, ..)| *name == word);
        assert!(traffic.split(' ').all(known), "{traffic} is no traffic");
    }
    let lists = |other: &str, traffic: &str| {
        list.get(other).is_some_and(|words| words.split(' ').any(|word| word == "all" || word == traffic))
    };
    OTHERS
        .iter()
        .flat_map(|(other, _)| TRAFFIC.iter().map(move |(traffic, ..)| (*other, *traffic)))
        .filter(|(other, traffic)| lists(other, traffic))
        .collect()
}

#[test]
fn recipes_mean_what_is_written_beside_them() {
    let recipes: Vec<Recipe> = serde_yaml_ng::from_str(include_str!("recipes.yaml")).unwrap();
    assert!(recipes.len() > 20);
    for recipe in &recipes {
        check(recipe, &recipe.policies, false);
        let mut policies = recipe.policies.clone();
        policies.iter_mut().for_each(in_ipv6);
        check(recipe, &policies, true);
    }
}

fn check(Recipe { name, ingress, egress, .. }: &Recipe, policies: &[Value], six: bool) {
    let name = format!("{name}, IPv6 {six}");
    let mut index = cluster(policies, six);
    assert!(index.problems().is_empty(), "{name}: {:?}", index.problems());
    let compiled = index.compile().clone();
    let world = index.world();
    let pod = &world.pods[&db()];
    let (enters, leaves) = (written(ingress), written(egress));

    let own_node = Address::from(at([172, 18, 0, 2], six));
    let maps = |direction| {
        let compiled = &compiled;
        move |other, protocol, port| {
            (direction == Direction::Ingress && other == own_node)
                || compiled.allows(&db(), direction, other, protocol, port)
        }
    };
    assert_eq!(all(six, maps(Direction::Ingress)), enters, "{name}: ingress by the maps");
    assert_eq!(all(six, maps(Direction::Egress)), leaves, "{name}: egress by the maps");
    let read = all(six, |other, protocol, port| naive::ingress(world, other, pod, protocol, port));
    assert_eq!(read, enters, "{name}: ingress as read");
    let read = all(six, |other, protocol, port| naive::egress(world, pod, other, protocol, port));
    assert_eq!(read, leaves, "{name}: egress as read");
    let (here, there) = (Party::Pod(db()), Party::Address);
    let explained =
        all(six, |from, protocol, port| explain(world, &there(from), &here, protocol, port).ingress.allows());
    assert_eq!(explained, enters, "{name}: ingress as explained");
    let explained =
        all(six, |to, protocol, port| explain(world, &here, &there(to), protocol, port).egress.allows());
    assert_eq!(explained, leaves, "{name}: egress as explained");
}

#[test]
fn a_block_of_one_family_says_nothing_of_the_other() {
    let everybody = |cidrs: &[&str]| {
        let blocks: Vec<Value> = cidrs.iter().map(|cidr| json!({"ipBlock": {"cidr": cidr}})).collect();
        json!({"podSelector": {}, "ingress": [{"from": blocks}]})
    };
    for (cidrs, four, six) in [
        (&["::/0"][..], false, true),
        (&["0.0.0.0/0"], true, false),
        (&["0.0.0.0/0", "::/0"], true, true),
        (&["10.0.0.0/8", "::/0"], false, true),
        (&["0.0.0.0/0", "fd00::/8"], true, false),
    ] {
        let mut index = cluster(&[everybody(cidrs)], false);
        let compiled = index.compile();
        let passes = |text: &str| {
            let address = Address::from(text.parse::<IpAddr>().unwrap());
            compiled.allows(&db(), Direction::Ingress, address, 6, 80)
        };
        assert_eq!((passes("8.8.8.8"), passes("2001:db8::1")), (four, six), "{cidrs:?}");
    }
}

#[test]
fn an_explanation_names_policies_and_rules() {
    let web = json!({"podSelector": {"matchLabels": {"app": "db"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "till"}}}]},
            {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 80}]}]});
    let index = cluster(
        &[json!({"podSelector": {}}), web, json!({"podSelector": {}, "policyTypes": ["Egress"]})],
        false,
    );
    let text = |from: &Party, to: &Party, port| explain(index.world(), from, to, 6, port).to_string();
    let pod = |namespace, name| Party::Pod(ObjectName::new(namespace, name));
    let (web, db, till) = (pod("shop", "web"), pod("shop", "db"), pod("bank", "till"));
    let denied_out = "denied\n  egress of pod shop/web: denied, no rule of shop/policy-2 allows it\n  \
        ingress of pod shop/db: allowed by shop/policy-1, ingress rule 1 (isolated by shop/policy-0, shop/policy-1)";
    assert_eq!(text(&web, &db, 80), denied_out);
    let denied_in = "denied\n  egress of pod bank/till: allowed, no policy isolates it\n  \
        ingress of pod shop/db: denied, no rule of shop/policy-0, shop/policy-1 allows it";
    assert_eq!(text(&till, &Party::Address(Address::v4([10, 0, 0, 2])), 80), denied_in);
    let node = "allowed\n  egress of 172.18.0.2: not a pod of this cluster, no policy is asked\n  \
        ingress of pod shop/db: allowed, its own node always reaches it";
    assert_eq!(text(&Party::Address(Address::v4([172, 18, 0, 2])), &db, 81), node);
    let gone = "denied\n  egress of pod bank/gone: denied, the pod is not known or has finished\n  \
        ingress of pod bank/till: allowed, no policy isolates it";
    assert_eq!(text(&pod("bank", "gone"), &till, 80), gone);
}
