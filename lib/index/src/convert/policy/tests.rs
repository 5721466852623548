//! Objects as users write them.

use netkeel_core::{address::Address, policy::Direction, service::Protocol};

use super::*;

/// Reads a policy whose `spec` is given in YAML.
fn read(spec: &str) -> Result<(Policy, Vec<Unsupported>), String> {
    let spec = spec.replace('\n', "\n  ");
    let text = format!("metadata: {{namespace: shop, name: web}}\nspec:\n  {spec}");
    policy(&serde_yaml_ng::from_str(&text).unwrap()).map_err(|invalid| invalid.to_string())
}

fn supported(spec: &str) -> Policy {
    let (policy, unsupported) = read(spec).unwrap();
    assert_eq!(unsupported, [], "{spec}");
    policy
}

/// The only ingress rule of a policy with this rule, which has to be free of the unsupported.
fn rule(rule: &str) -> Rule {
    let policy = supported(&format!("podSelector: {{}}\ningress:\n- {rule}"));
    let [rule] = policy.rules(Direction::Ingress).unwrap() else { panic!("{policy:?}") };
    rule.clone()
}

fn equal(key: &str, value: &str) -> Selector {
    Selector(vec![Requirement::In(key.into(), [value.into()].into())])
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn policy_types_default_by_what_the_policy_has() {
    let rules = |count| Some(vec![Rule { peers: None, ports: None }; count]);
    let table = [
        ("podSelector: {}", rules(0), None),
        ("podSelector: {}\ningress: [{}]", rules(1), None),
        ("podSelector: {}\negress: []", rules(0), None),
        ("podSelector: {}\negress: [{}]", rules(0), rules(1)),
        ("podSelector: {}\npolicyTypes: [Ingress]\negress: [{}]", rules(0), None),
        ("podSelector: {}\npolicyTypes: [Egress]\ningress: [{}]", None, rules(0)),
        ("podSelector: {}\npolicyTypes: [Egress]\negress: [{}, {}]", None, rules(2)),
        ("podSelector: {}\npolicyTypes: [Egress, Ingress]", rules(0), rules(0)),
        ("podSelector: {}\npolicyTypes: []\negress: [{}]", rules(0), rules(1)),
    ];
    for (spec, ingress, egress) in table {
        let policy = supported(spec);
        assert_eq!((policy.ingress, policy.egress), (ingress, egress), "{spec}");
    }
}

#[test]
fn missing_and_empty_lists_of_a_rule_restrict_nothing() {
    for text in ["{}", "{from: [], ports: []}", "{from: null, ports: null}"] {
        assert_eq!(rule(text), Rule { peers: None, ports: None }, "{text}");
    }
}

#[test]
fn a_missing_or_empty_selector_selects_everything() {
    for spec in ["ingress: []", "podSelector: {}", "podSelector: {matchLabels: {}, matchExpressions: []}"] {
        assert_eq!(supported(spec).pods, Selector::default(), "{spec}");
    }
}

#[test]
fn selectors_take_labels_and_all_four_operators() {
    let spec = "podSelector:
  matchLabels: {app: web}
  matchExpressions:
  - {key: tier, operator: In, values: [front, back]}
  - {key: env, operator: NotIn, values: [test]}
  - {key: owner, operator: Exists}
  - {key: canary, operator: DoesNotExist}";
    let expected = [
        Requirement::In("app".into(), ["web".into()].into()),
        Requirement::In("tier".into(), ["front".into(), "back".into()].into()),
        Requirement::NotIn("env".into(), ["test".into()].into()),
        Requirement::Exists("owner".into()),
        Requirement::DoesNotExist("canary".into()),
    ];
    assert_eq!(supported(spec).pods, Selector(expected.into()));
}

#[test]
fn peers_are_pods_here_or_in_other_namespaces_or_blocks() {
    let pods = |namespaces, pods| Peer::Pods { namespaces, pods };
    let app = || "{matchLabels: {app: web}}";
    let table = [
        (format!("podSelector: {}", app()), pods(None, equal("app", "web"))),
        ("podSelector: {}".into(), pods(None, Selector::default())),
        ("namespaceSelector: {}".into(), pods(Some(Selector::default()), Selector::default())),
        (
            format!("namespaceSelector: {{matchLabels: {{team: a}}}}, podSelector: {}", app()),
            pods(Some(equal("team", "a")), equal("app", "web")),
        ),
        ("ipBlock: {cidr: 10.0.0.0/8}".into(), Peer::Block { cidr: net("10.0.0.0/8"), except: vec![] }),
        (
            "ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.3.4/32]}".into(),
            Peer::Block { cidr: net("10.0.0.0/8"), except: vec![net("10.1.0.0/16"), net("10.2.3.4/32")] },
        ),
        ("ipBlock: {cidr: 010.1.2.3/8}".into(), Peer::Block { cidr: net("10.0.0.0/8"), except: vec![] }),
        (
            "ipBlock: {cidr: 'fd00::1/8', except: ['fd00:1::/32', 'FD00:2::00a/128']}".into(),
            Peer::Block { cidr: net("fd00::/8"), except: vec![net("fd00:1::/32"), net("fd00:2::a/128")] },
        ),
        ("ipBlock: {cidr: '::/0'}".into(), Peer::Block { cidr: net("::/0"), except: vec![] }),
        (
            "ipBlock: {cidr: '::ffff:10.1.2.3/104'}".into(),
            Peer::Block { cidr: net("10.0.0.0/8"), except: vec![] },
        ),
        ("ipBlock: {cidr: '::ffff:0:0/96'}".into(), Peer::Block { cidr: net("0.0.0.0/0"), except: vec![] }),
        (
            "ipBlock: {cidr: '::ffff:0:0/95'}".into(),
            Peer::Block { cidr: net("::fffe:0:0/95"), except: vec![] },
        ),
    ];
    for (text, expected) in table {
        assert_eq!(rule(&format!("from: [{{{text}}}]")).peers, Some(vec![expected]), "{text}");
    }
}

#[test]
fn ports_are_tcp_by_default_and_may_be_ranges() {
    let table = [
        ("{port: 80}", Protocol::Tcp, 80..=80),
        ("{protocol: UDP, port: 53}", Protocol::Udp, 53..=53),
        ("{protocol: UDP}", Protocol::Udp, ports::ALL),
        ("{}", Protocol::Tcp, ports::ALL),
        ("{protocol: TCP, port: 8000, endPort: 8999}", Protocol::Tcp, 8000..=8999),
        ("{port: 1, endPort: 65535}", Protocol::Tcp, 1..=65535),
    ];
    for (text, protocol, range) in table {
        let expected = Some(vec![Ports { protocol, range }]);
        assert_eq!(rule(&format!("ports: [{text}]")).ports, expected, "{text}");
    }
}

#[test]
fn what_is_not_implemented_is_left_out_and_named_and_leaves_an_empty_list() {
    let spec = "podSelector: {}
ingress:
- ports: [{port: web}, {protocol: SCTP, port: 7}]
- ports: [{port: 80}, {protocol: UDP, port: dns}]
egress:
- ports: [{protocol: SCTP}]";
    let (policy, unsupported) = read(spec).unwrap();
    let ports = |rule: usize| policy.ingress.as_ref().unwrap()[rule].ports.clone();
    assert_eq!(ports(0), Some(vec![]));
    assert_eq!(ports(1), Some(vec![Ports { protocol: Protocol::Tcp, range: 80..=80 }]));
    assert_eq!(policy.egress.as_ref().unwrap()[0].ports, Some(vec![]));
    let named: Vec<_> = unsupported.iter().map(|part| (&*part.field, &*part.what)).collect();
    let expected = [
        ("spec.ingress[0].ports[0].port", "the named port \"web\""),
        ("spec.ingress[0].ports[1].protocol", "SCTP"),
        ("spec.ingress[1].ports[1].port", "the named port \"dns\""),
        ("spec.egress[0].ports[0].protocol", "SCTP"),
    ];
    assert_eq!(named, expected);
    let sentence = "NetworkPolicy shop/web: spec.ingress[0].ports[1].protocol: SCTP is not implemented and allows nothing";
    assert_eq!(unsupported[1].to_string(), sentence);
}

#[test]
fn the_impossible_is_named_with_its_field() {
    let table = [
        ("policyTypes: [Both]", "spec.policyTypes \"Both\" is neither Ingress nor Egress"),
        ("ingress: [{from: [{}]}]", "spec.ingress[0].from[0] has no peer"),
        (
            "egress: [{}, {to: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]",
            "spec.egress[1].to[0] has an ipBlock and a selector",
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]",
            "spec.ingress[0].from[0].ipBlock.cidr \"10.0.0.0/33\" is not a CIDR",
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0]}}]}]",
            "spec.ingress[0].from[0].ipBlock.except[0] \"10.1.0.0\" is not a CIDR",
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/8']}}]}]",
            "spec.ingress[0].from[0].ipBlock.except[0] \"fd00::/8\" is not inside 10.0.0.0/8",
        ),
        ("ingress: [{ports: [{port: 0}]}]", "spec.ingress[0].ports[0]: port 0 is not between 1 and 65535"),
        (
            "ingress: [{ports: [{port: 65536}]}]",
            "spec.ingress[0].ports[0]: port 65536 is not between 1 and 65535",
        ),
        (
            "ingress: [{ports: [{port: 80, endPort: 79}]}]",
            "spec.ingress[0].ports[0]: endPort 79 is below port 80",
        ),
        ("ingress: [{ports: [{endPort: 79}]}]", "spec.ingress[0].ports[0]: endPort without a port number"),
        (
            "ingress: [{ports: [{port: web, endPort: 79}]}]",
            "spec.ingress[0].ports[0]: endPort without a port number",
        ),
        (
            "ingress: [{ports: [{protocol: ICMP}]}]",
            "spec.ingress[0].ports[0].protocol \"ICMP\" is none of TCP, UDP and SCTP",
        ),
        (
            "podSelector: {matchExpressions: [{key: a, operator: Like, values: [b]}]}",
            "spec.podSelector.matchExpressions[0] has the operator \"Like\", which is none of In, NotIn, Exists, DoesNotExist",
        ),
        (
            "podSelector: {matchExpressions: [{key: a, operator: In}]}",
            "spec.podSelector.matchExpressions[0] has no values for In",
        ),
        (
            "ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]}]",
            "spec.ingress[0].from[0].namespaceSelector.matchExpressions[0] has values for Exists",
        ),
    ];
    refused(&table);
}

#[test]
fn a_block_that_is_none_is_named_with_its_field() {
    refused(&[
        (
            "ingress: [{from: [{ipBlock: {cidr: '::/0', except: [10.0.0.0/8]}}]}]",
            "spec.ingress[0].from[0].ipBlock.except[0] \"10.0.0.0/8\" is not inside ::/0",
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 'fd00::/129'}}]}]",
            "spec.ingress[0].from[0].ipBlock.cidr \"fd00::/129\" is not a CIDR",
        ),
    ]);
}

fn refused(table: &[(&str, &str)]) {
    for (spec, reason) in table {
        assert_eq!(read(spec).unwrap_err(), format!("NetworkPolicy shop/web is ignored: {reason}"), "{spec}");
    }
}

fn pod_of(yaml: &str) -> Result<Pod, String> {
    let text = format!("metadata: {{namespace: shop, name: web-0, labels: {{app: web}}}}\n{yaml}");
    PodReader::default().read(&serde_yaml_ng::from_str(&text).unwrap()).map_err(|invalid| invalid.to_string())
}

#[test]
fn a_pod_is_read_with_its_addresses() {
    let pod = pod_of(
        "spec: {nodeName: a, containers: []}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}",
    );
    let six = "fd00::1".parse::<std::net::IpAddr>().unwrap().into();
    let expected = Pod {
        name: ObjectName::new("shop", "web-0"),
        labels: Arc::new([("app", "web")].into()),
        node: Some("a".into()),
        addresses: [Address::v4([10, 0, 0, 1]), six].into(),
        host_network: false,
        finished: false,
    };
    assert_eq!(pod, Ok(expected));
}

#[test]
fn pods_that_are_no_subjects_are_told_apart() {
    let table = [
        ("spec: {containers: []}", true),
        ("spec: {containers: []}\nstatus: {phase: Pending}", true),
        ("spec: {containers: []}\nstatus: {phase: Unknown}", true),
        ("spec: {containers: [], hostNetwork: true}\nstatus: {phase: Running}", false),
        ("spec: {containers: []}\nstatus: {phase: Succeeded}", false),
        ("spec: {containers: []}\nstatus: {phase: Failed}", false),
    ];
    for (yaml, subject) in table {
        let pod = pod_of(yaml).unwrap();
        assert_eq!(pod.is_subject(), subject, "{yaml}");
        assert_eq!((pod.node, pod.addresses.len()), (None, 0), "{yaml}");
    }
    let wrong = pod_of("status: {podIP: 10.0.0.256}").unwrap_err();
    assert_eq!(wrong, "Pod shop/web-0 is ignored: status.podIPs \"10.0.0.256\" is not an IP address");
}

#[test]
fn a_namespace_on_its_way_out_is_told_apart() {
    let read =
        |metadata: &str| namespace(&serde_yaml_ng::from_str(&format!("metadata: {metadata}")).unwrap());
    let stays = read("{name: shop, labels: {team: a}}");
    assert_eq!((&*stays.name, stays.labels.get("team")), ("shop", Some("a")));
    assert!(!stays.terminating);
    assert!(read("{name: shop, deletionTimestamp: '2026-11-25T00:00:00Z'}").terminating);
}
