//! Whatever is answered quickly is answered as the general way does.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::Name;
use netkeel_crds::cluster_network::{Dns, EmptyServices, PodRecords};
use netkeel_telemetry::metrics::Registry;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::handler::{Handler, Outcome};
use crate::live::{Base, Live};
use crate::message::Transport;
use crate::metrics::Metrics;
use crate::querylog::Line;
use crate::zone::{ObjectKey, Settings, Slice};

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn zone() -> Zone {
    zone_of((PodRecords::Insecure, EmptyServices::Answer, 5))
}

fn zone_of((pod_records, empty_services, ttl): (PodRecords, EmptyServices, u32)) -> Zone {
    let settings = Settings {
        ttl,
        pod_records,
        empty_services,
        ..Settings::new(Name::from_ascii("cluster.local.").unwrap())
    };
    let mut zone = Zone::new(settings, 7);
    let cluster = |addresses: &[&str]| Service::ClusterIp { addresses: ips(addresses), ports: vec![] };
    for (name, service) in [
        ("web", cluster(&["10.96.0.7"])),
        ("dual", cluster(&["10.96.0.8", "fd00:96::8"])),
        ("db", Service::Headless),
        ("many", Service::Headless),
        ("idle", Service::Headless),
        ("twice", Service::Headless),
        ("empty", cluster(&["10.96.0.9"])),
        ("out", Service::ExternalName(Some(Name::from_ascii("web.shop.svc.cluster.local.").unwrap()))),
        ("literal", Service::ExternalName(None)),
        ("broken", Service::Unreadable),
    ] {
        zone.put_service(&ObjectKey::new("shop", name), service);
    }
    let of = |endpoints| Slice { endpoints, ports: vec![] };
    let db = vec![(Some("db-0".to_owned()), ips(&["10.1.0.5", "fd00:1::5"])), (None, ips(&["10.1.0.6"]))];
    let many = (0..200).map(|last| (None, vec![IpAddr::from([10, 1, 1, last])])).collect();
    let twice = vec![(Some("one".to_owned()), ips(&["10.1.0.3"])), (None, ips(&["10.1.0.3"]))];
    let [web, dual] = [vec![(None, ips(&["10.1.0.9"]))], vec![(None, ips(&["10.1.0.7"]))]];
    zone.put_namespace("quiet");
    for (name, slice) in
        [("db", of(db)), ("many", of(many)), ("web", of(web)), ("dual", of(dual)), ("twice", of(twice))]
    {
        zone.put_slice(&ObjectKey::new("shop", &format!("{name}-1")), name, slice);
    }
    zone
}

fn handler(zone: &Zone) -> Handler {
    handler_of(zone, Dns::default())
}

fn handler_of(zone: &Zone, dns: Dns) -> Handler {
    let metrics = Metrics::new(&Registry::new("dns", "0"), ([127, 0, 0, 1], 53).into(), "cluster.local.");
    let base = Base { settings: zone.settings().clone(), listen: vec![], of_node: vec![] };
    let live = ArcSwap::from_pointee(Live::new(dns, &base, &metrics).unwrap());
    Handler::new(Arc::new(ArcSwap::from_pointee(zone.clone())), Arc::new(live), metrics)
}

fn packet(name: &str, rtype: RecordType, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
    if let Some(size) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

/// A question with an OPT record as one that asks for signatures (DO, RFC 3225).
fn signed(mut packet: Vec<u8>) -> Vec<u8> {
    let flags = packet.len() - 4;
    packet[flags] |= 0x80;
    packet
}

#[test]
fn a_question_for_the_servers_status_is_answered_by_the_general_way() {
    let (zone, asked) = (zone(), [0x12, 0x34, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(answer_packet(&zone, &asked, 0, &mut vec![]).is_none());
    let client: SocketAddr = ([10, 1, 2, 3], 4711).into();
    let outcome = handler(&zone).start(&asked, Transport::Udp, client);
    let Outcome::Reply(reply) = outcome else { unreachable!("{outcome:?}") };
    assert_eq!(reply, [0x12, 0x34, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0], "no error");
}

/// The quick answer, which the general way gives too; the order of addresses is anybody's.
fn same(zone: &Zone, handler: &Handler, packet: &[u8], turn: usize) -> Option<Message> {
    let mut reply = Vec::new();
    let answered = answer_packet(zone, packet, turn, &mut reply);
    same_as_start((answered, reply), handler, packet, SocketAddr::from(([10, 0, 0, 1], 4000)))
}

fn same_as_start(
    (answered, reply): (Option<Answered>, Vec<u8>),
    handler: &Handler,
    packet: &[u8],
    client: SocketAddr,
) -> Option<Message> {
    let Some(answered) = answered else {
        assert!(reply.is_empty());
        return None;
    };
    let Outcome::Reply(general) = handler.start(packet, Transport::Udp, client) else {
        panic!("the general way does not answer {packet:?}")
    };
    let (length, general_length) = (reply.len(), general.len());
    let [mut quick, mut general] = [&reply, &general].map(|bytes| Message::from_vec(bytes).unwrap());
    assert_eq!(answered.code, quick.metadata.response_code);
    assert_eq!(answered.rtype, quick.queries[0].query_type());
    // The general encoder also shortens the names within a SOA record where the question happens to hold a part of them.
    assert!(length == general_length || quick.answers.is_empty() && length < general_length + 16);
    let cut = quick.metadata.truncation;
    for message in [&mut quick, &mut general] {
        message.answers.sort_by_key(|record| record.data.to_string());
        if cut {
            message.answers.drain(..);
        }
    }
    assert_eq!(quick, general);
    // Also to the letter: comparisons of names above do not see their case.
    assert_eq!(quick.to_string(), general.to_string());
    Some(quick)
}

#[test]
fn the_commonest_questions_are_answered_quickly() {
    use RecordType::{A, AAAA};
    let (zone, negative) = (zone(), "SOA");
    let handler = handler(&zone);
    for (name, rtype, expected) in [
        ("web.shop.svc.cluster.local.", A, "10.96.0.7"),
        ("WeB.shop.SVC.Cluster.LOCAL.", A, "10.96.0.7"),
        ("web.shop.svc.cluster.local.", AAAA, negative),
        ("empty.shop.svc.cluster.local.", A, "10.96.0.9"),
        ("twice.shop.svc.cluster.local.", A, "10.1.0.3"),
        ("quiet.svc.cluster.local.", A, negative),
        ("dual.shop.svc.cluster.local.", AAAA, "fd00:96::8"),
        ("db.shop.svc.cluster.local.", AAAA, "fd00:1::5"),
        ("db-0.db.shop.svc.cluster.local.", A, "10.1.0.5"),
        ("DB-0.db.shop.svc.cluster.local.", AAAA, "fd00:1::5"),
        ("10-1-0-6.db.shop.svc.cluster.local.", A, "10.1.0.6"),
        ("10-1-0-6.db.shop.svc.cluster.local.", AAAA, negative),
        ("10-1-0-9.web.shop.svc.cluster.local.", A, "10.1.0.9"),
        ("ghost.db.shop.svc.cluster.local.", A, negative),
        ("idle.shop.svc.cluster.local.", A, negative),
        ("ghost.shop.svc.cluster.local.", A, negative),
        ("shop.svc.cluster.local.", A, negative),
        ("nowhere.svc.cluster.local.", A, negative),
        ("www.example.com.shop.svc.cluster.local.", A, negative),
        ("www.example.com.svc.cluster.local.", AAAA, negative),
        ("www.example.com.cluster.local.", AAAA, negative),
        ("example.com.cluster.local.", A, negative),
        ("com.cluster.local.", A, negative),
    ] {
        for edns in [None, Some(0), Some(1232), Some(65_535)] {
            let packet = packet(name, rtype, edns);
            if edns.is_some() {
                let reply = same(&zone, &handler, &signed(packet.clone()), 1).expect(name);
                assert!(reply.edns.unwrap().flags().dnssec_ok, "{name}");
            }
            let reply = same(&zone, &handler, &packet, 1).expect(name);
            let found = reply.answers.first().or(reply.authorities.first()).expect(name);
            let told = found.data.to_string();
            assert!(told == expected || expected == negative && told.starts_with("ns.dns."), "{name} {told}");
        }
    }
}

#[test]
fn what_is_odd_is_left_to_the_general_way() {
    let zone = zone();
    let plain = packet("web.shop.svc.cluster.local.", RecordType::A, None);
    let with_edns = packet("web.shop.svc.cluster.local.", RecordType::A, Some(1232));
    let changed = |packet: &[u8], at: usize, to: u8| {
        let mut packet = packet.to_vec();
        packet[at] = to;
        packet
    };
    let end = with_edns.len();
    for odd in [
        packet("web.shop.svc.cluster.local.", RecordType::SRV, None),
        packet("cluster.local.", RecordType::A, None),
        packet("svc.cluster.local.", RecordType::A, None),
        packet("ns.dns.cluster.local.", RecordType::A, None),
        packet("shop.pod.cluster.local.", RecordType::A, None),
        packet("10-1-0-5.shop.pod.cluster.local.", RecordType::A, None),
        packet("out.shop.svc.cluster.local.", RecordType::A, None),
        packet("literal.shop.svc.cluster.local.", RecordType::A, None),
        packet("broken.shop.svc.cluster.local.", RecordType::A, None),
        packet("_tcp.web.shop.svc.cluster.local.", RecordType::A, None),
        packet("a\\.b.shop.svc.cluster.local.", RecordType::A, None),
        packet("example.com.", RecordType::A, None),
        packet("xcluster.local.", RecordType::A, None),
        packet(".", RecordType::A, None),
        changed(&plain, 2, 0x81),            // a reply
        changed(&plain, 2, 0x29),            // another operation
        changed(&plain, 2, 0x03),            // cut
        changed(&plain, 5, 2),               // two questions
        changed(&plain, 7, 1),               // an answer
        changed(&plain, plain.len() - 1, 3), // class CH
        changed(&with_edns, end - 5, 1),     // extended code
        changed(&with_edns, end - 4, 1),     // version 1
        changed(&with_edns, end - 4 + 1, 1), // a flag
        changed(&with_edns, end - 1, 1),     // an option that is not there
        [&plain[..], &[0]].concat(),
        [&with_edns[..], &[0]].concat(),
        plain[..plain.len() - 1].to_vec(),
        vec![],
    ] {
        assert!(answer_packet(&zone, &odd, 0, &mut vec![1]).is_none(), "{odd:?}");
    }
}

#[test]
fn each_address_has_its_turn_also_where_not_all_fit() {
    let zone = zone();
    let handler = handler(&zone);
    for (name, edns, fitting) in [("db", None, 2), ("many", None, 29), ("many", Some(1232), 73)] {
        let packet = packet(&format!("{name}.shop.svc.cluster.local."), RecordType::A, edns);
        let mut firsts = std::collections::BTreeSet::new();
        for turn in 0..200 {
            let mut reply = Vec::new();
            answer_packet(&zone, &packet, turn, &mut reply).unwrap();
            let message = Message::from_vec(&reply).unwrap();
            let all: std::collections::BTreeSet<_> =
                message.answers.iter().map(|record| record.data.to_string()).collect();
            assert_eq!((message.answers.len(), all.len()), (fitting, fitting), "{name}");
            assert_eq!(message.metadata.truncation, name == "many");
            firsts.insert(message.answers[0].data.to_string());
            same(&zone, &handler, &packet, turn);
        }
        assert_eq!(firsts.len(), if name == "db" { 2 } else { 200 });
    }
}

/// Labels that mean something somewhere.
const KNOWN: &[&str] = &[
    "web", "dual", "db", "many", "idle", "out", "literal", "broken", "ghost", "shop", "svc", "pod", "dns",
    "ns", "db-0", "10-1-0-6", "empty", "twice", "one", "quiet", "_tcp", "_http", "com", "cluster", "local",
];

fn label() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => proptest::sample::select(KNOWN).prop_map(str::to_owned),
        1 => "[a-zA-Z0-9_-]{1,12}",
        1 => "[a-z]{60,63}",
    ]
}

const TAILS: &[&str] = &[
    "shop.svc.cluster.local.",
    "shop.pod.cluster.local.",
    "svc.cluster.local.",
    "cluster.local.",
    "local.",
    "example.com.",
];

fn name() -> impl Strategy<Value = String> {
    let tail = proptest::sample::select(TAILS);
    (vec(label(), 0..4), tail, any::<u64>()).prop_map(|(labels, tail, case)| {
        let name = [labels.join("."), tail.to_owned()].join(if labels.is_empty() { "" } else { "." });
        let flip = |(index, letter): (usize, char)| {
            if case >> (index % 64) & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
        };
        name.chars().enumerate().map(flip).collect()
    })
}

#[test]
fn questions_are_logged_whichever_way_they_are_answered() {
    static LINES: Mutex<Vec<Line>> = Mutex::new(vec![]);
    let zone = zone();
    let dns = json!({"queryLog": {"queries": "All"}, "acl": [{"action": "Drop", "zones": ["db.shop.svc.cluster.local"]}]});
    let dns: Dns = serde_json::from_value(dns).unwrap();
    let handler = handler_of(&zone, dns).logging_to(|line| LINES.lock().unwrap().push(line));
    let client = SocketAddr::from(([10, 0, 0, 1], 4000));
    let mut sizes = Vec::new();
    for name in ["WEB.shop.svc.cluster.local.", "ghost.shop.svc.cluster.local."] {
        let (packet, mut reply) = (packet(name, RecordType::A, None), Vec::new());
        handler.quick(&zone, &handler.live(), (&packet, client), (0, Instant::now()), &mut reply).unwrap();
        sizes.push(reply.len());
    }
    let dropped = packet("db.shop.svc.cluster.local.", RecordType::A, None);
    assert!(
        handler
            .quick(&zone, &handler.live(), (&dropped, client), (0, Instant::now()), &mut Vec::new())
            .is_none()
    );
    assert!(matches!(handler.start(&dropped, Transport::Tcp, client), Outcome::Nothing));
    let mut broken = dropped.clone();
    broken.truncate(20);
    let Outcome::Reply(reply) = handler.start(&broken, Transport::Tcp, client) else { panic!("no reply") };
    sizes.extend([0, reply.len()]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while LINES.lock().unwrap().len() < 4 {
        assert!(Instant::now() < deadline, "{:?}", LINES.lock().unwrap());
        std::thread::yield_now();
    }
    let lines = LINES.lock().unwrap();
    let seen = |line: &Line| {
        let asked = line.asked.as_ref().map(|(name, rtype)| format!("{rtype} {}", name.to_ascii()));
        (asked.unwrap_or_default(), line.code, line.transport, line.client)
    };
    let expected = [
        ("A WEB.shop.svc.cluster.local.", Some(ResponseCode::NoError), Transport::Udp),
        ("A ghost.shop.svc.cluster.local.", Some(ResponseCode::NXDomain), Transport::Udp),
        ("A db.shop.svc.cluster.local.", None, Transport::Tcp),
        ("", Some(ResponseCode::FormErr), Transport::Tcp),
    ];
    let expected = expected.map(|(asked, code, transport)| (asked.to_owned(), code, transport, client));
    assert_eq!(lines.iter().map(seen).collect::<Vec<_>>(), expected);
    assert_eq!(lines.iter().map(|line| line.size).collect::<Vec<_>>(), sizes);
}

/// Rules that touch names of the zone above, and rules that do not.
fn rules() -> impl Strategy<Value = Dns> {
    let pool = [
        ("acl", json!({"action": "Allow", "networks": ["10.0.0.0/8"], "zones": ["shop.svc.cluster.local"]})),
        ("acl", json!({"action": "Block", "zones": ["web.shop.svc.cluster.local"]})),
        ("acl", json!({"action": "Filter", "types": ["AAAA"], "networks": ["10.0.0.0/8"]})),
        ("acl", json!({"action": "Drop", "networks": ["192.0.2.0/24"]})),
        ("acl", json!({"action": "Block", "zones": ["corp.example"]})),
        (
            "rewrites",
            json!({"match": {"type": "Exact", "value": "ghost.shop.svc.cluster.local"}, "to": "web.shop.svc.cluster.local"}),
        ),
        (
            "rewrites",
            json!({"match": {"type": "Suffix", "value": ".com.cluster.local"}, "to": ".shop.svc.cluster.local"}),
        ),
        ("rewrites", json!({"match": {"type": "Prefix", "value": "db-0."}, "to": ""})),
        (
            "rewrites",
            json!({"match": {"type": "Regex", "value": "^(dual|idle)[.]"}, "to": "db.shop.svc.cluster.local"}),
        ),
        ("rewrites", json!({"match": {"type": "Suffix", "value": ".corp.example"}, "to": ".example"})),
        ("overrides", json!({"zone": ".", "types": ["AAAA"]})),
        ("overrides", json!({"zone": "many.shop.svc.cluster.local", "responseCode": "Refused"})),
        ("overrides", json!({"zone": "com.cluster.local", "records": [{"type": "A", "value": "192.0.2.1"}]})),
        ("hosts", json!({"ip": "192.0.2.8", "names": ["web.shop.svc.cluster.local", "svc.cluster.local"]})),
        ("hosts", json!({"ip": "192.0.2.9", "names": ["printer.corp.example"]})),
        ("externalZones", json!({"zone": "example.com"})),
    ];
    proptest::sample::subsequence(pool.to_vec(), 0..=4).prop_map(|chosen| {
        let mut dns = json!({});
        for (field, rule) in chosen {
            let rules = dns[field].take();
            dns[field] = rules.as_array().cloned().unwrap_or_default().into_iter().chain([rule]).collect();
        }
        serde_json::from_value(dns).unwrap()
    })
}

#[test]
fn rules_that_are_about_other_names_leave_quick_answers_alone() {
    let zone = zone();
    let dns = json!({"acl": [{"action": "Block", "networks": ["192.0.2.0/24"], "zones": ["svc.cluster.local"]}],
        "overrides": [{"zone": "cluster.local", "types": ["AAAA"]}]});
    let handler = handler_of(&zone, serde_json::from_value(dns).unwrap());
    let quick = |client: [u8; 4], rtype| {
        let packet = packet("web.shop.svc.cluster.local.", rtype, None);
        let client = SocketAddr::from((client, 4000));
        let mut reply = Vec::new();
        handler.quick(&zone, &handler.live(), (&packet, client), (0, Instant::now()), &mut reply).is_some()
    };
    assert!(quick([10, 0, 0, 1], RecordType::A));
    assert!(!quick([10, 0, 0, 1], RecordType::AAAA));
    assert!(!quick([192, 0, 2, 1], RecordType::A));
}

const PODS: &[PodRecords] = &[PodRecords::Disabled, PodRecords::Insecure, PodRecords::Verified];
const EMPTY: &[EmptyServices] = &[EmptyServices::Answer, EmptyServices::NXDomain];

fn settings() -> impl Strategy<Value = (PodRecords, EmptyServices, u32)> {
    (proptest::sample::select(PODS), proptest::sample::select(EMPTY), 0..3601_u32)
}

#[test]
fn every_setting_holds_for_quick_answers_too() {
    for (pods, empty) in PODS.iter().flat_map(|pods| EMPTY.iter().map(move |empty| (*pods, *empty))) {
        for ttl in [0, 30, 3600] {
            let zone = zone_of((pods, empty, ttl));
            let handler = handler(&zone);
            for (label, tail) in KNOWN.iter().flat_map(|label| TAILS.iter().map(move |tail| (label, tail))) {
                for rtype in [RecordType::A, RecordType::AAAA] {
                    same(&zone, &handler, &packet(&format!("{label}.{tail}"), rtype, None), 0);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn quick_answers_are_those_of_the_general_way(
        name in name(),
        rtype in proptest::sample::select([RecordType::A, RecordType::AAAA, RecordType::SRV].as_slice()),
        edns in proptest::option::of((any::<u16>(), any::<bool>())),
        turn in any::<usize>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        settings in settings(),
    ) {
        let zone = zone_of(settings);
        let handler = handler(&zone);
        prop_assume!(Name::from_ascii(&name).is_ok());
        let mut packet = packet(&name, rtype, edns.map(|(size, _)| size));
        if edns.is_some_and(|(_, dnssec)| dnssec) {
            packet = signed(packet);
        }
        same(&zone, &handler, &packet, turn);
        for (at, to) in changes {
            let at = at.index(packet.len());
            packet[at] = to;
        }
        same(&zone, &handler, &packet, turn);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn quick_answers_are_those_of_the_general_way_under_any_rules(
        dns in rules(),
        names in vec((name(), any::<bool>(), any::<bool>()), 1..20),
    ) {
        let zone = zone();
        let handler = handler_of(&zone, dns);
        for (name, is_v4, inside) in names {
            prop_assume!(Name::from_ascii(&name).is_ok());
            let packet = packet(&name, if is_v4 { RecordType::A } else { RecordType::AAAA }, None);
            let client = SocketAddr::from((if inside { [10, 0, 0, 1] } else { [192, 0, 2, 1] }, 4000));
            let mut reply = Vec::new();
            let answered = handler.quick(&zone, &handler.live(), (&packet, client), (0, Instant::now()), &mut reply);
            same_as_start((answered, reply), &handler, &packet, client);
        }
    }
}
