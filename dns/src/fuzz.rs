//! Everything that reads what others wrote, fed with damaged and random input. Each target is a test of some hundred inputs, and
//! with `NETKEEL_FUZZ_SECONDS` in the environment one of that long (`cargo xtask fuzz`); the inputs are others each time. A failure
//! prints the smallest input that makes it. A new parser gets a target here: its own strategy, and what holds for all of its results.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use netkeel_crds::cluster_network::Dns;
use netkeel_crds::cluster_network::dns::Cache;
use netkeel_telemetry::metrics::Registry;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::cache::reply::{Bounds, Reply, Told};
use crate::cache::{Entry, Given, key};
use crate::handler::{Handler, Outcome};
use crate::live::{Base, Live};
use crate::message::{Transport, UDP_LIMIT, read};
use crate::metrics::Metrics;
use crate::resolve::{Resolved, conclude, resolve};
use crate::snapshot::tests::{bytes_of, contents, refused, with_true_head};
use crate::zone::{ObjectKey, Service, Settings, Slice, Zone};
use crate::{fast, forward::upstreams, name, wire};

/// Inputs of a target within the gate, and at a time otherwise.
const CASES: u32 = 250;
/// Longest datagram that is read, in bytes.
const LONGEST: usize = 4096;

/// Runs a target once, or for as long as told.
fn target<S: Strategy>(inputs: &S, check: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let seconds = std::env::var("NETKEEL_FUZZ_SECONDS").map_or(0, |text| text.parse().expect("seconds"));
    let (end, mut cases) = (Instant::now() + Duration::from_secs(seconds), 0);
    loop {
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        if let Err(error) = TestRunner::new(config).run(inputs, &check) {
            panic!("{error}");
        }
        cases += CASES;
        if Instant::now() >= end {
            break;
        }
    }
    println!("{cases} inputs");
}

/// A change to bytes: one other, some inserted, some cut out, some twice, the end cut off.
#[derive(Clone, Debug)]
enum Damage {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
    Cut(prop::sample::Index),
    /// A compression pointer to anywhere.
    Point(prop::sample::Index, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    use prop::sample::Index;
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, to)| Damage::Set(at, to)),
        1 => (any::<Index>(), vec(any::<u8>(), 1..40)).prop_map(|(at, more)| Damage::Insert(at, more)),
        1 => (any::<Index>(), 1_usize..40).prop_map(|(at, count)| Damage::Remove(at, count)),
        1 => (any::<Index>(), 1_usize..200).prop_map(|(at, count)| Damage::Repeat(at, count)),
        1 => any::<Index>().prop_map(Damage::Cut),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, to)| Damage::Point(at, to)),
    ]
}

fn damaged(mut bytes: Vec<u8>, all: &[Damage]) -> Vec<u8> {
    for damage in all {
        let length = bytes.len();
        let index = |at: &prop::sample::Index| at.index(length + 1);
        match damage {
            Damage::Set(at, to) => {
                if let Some(byte) = bytes.get_mut(index(at)) {
                    *byte = *to;
                }
            }
            Damage::Insert(at, more) => drop(bytes.splice(index(at)..index(at), more.iter().copied())),
            Damage::Remove(at, count) => drop(bytes.drain(index(at)..length.min(index(at) + count))),
            Damage::Repeat(at, count) => bytes.extend_from_within(index(at)..length.min(index(at) + count)),
            Damage::Cut(at) => bytes.truncate(index(at)),
            Damage::Point(at, to) => {
                if let Some(two) = bytes.get_mut(index(at)..index(at) + 2) {
                    two.copy_from_slice(&[0xc0, *to]);
                }
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

/// Text that matches an expression, which a bare one would be read for each input.
fn text(expression: &str) -> impl Strategy<Value = String> + use<> {
    proptest::string::string_regex(expression).unwrap()
}

fn name_text() -> impl Strategy<Value = String> {
    let known = [
        "web", "many", "out", "shop", "svc", "pod", "dns", "ns", "_http", "_tcp", "1", "in-addr", "ip6",
        "arpa",
    ];
    let label = prop_oneof![
        6 => prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => text("[a-zA-Z0-9_*-]{1,63}"),
        1 => (0_u8..=255).prop_map(|number| number.to_string()),
        1 => text("[0-9a-f]"),
    ]
    .boxed();
    let tail = prop::sample::select(vec![
        "shop.svc.cluster.local.",
        "cluster.local.",
        "in-addr.arpa.",
        "ip6.arpa.",
        "example.com.",
        "",
    ]);
    (prop_oneof![3 => vec(label.clone(), 0..6), 1 => vec(label, 0..34)], tail)
        .prop_map(|(labels, tail)| format!("{}.{tail}", labels.join(".")))
}

fn names() -> impl Strategy<Value = Name> {
    // Text that is too long for a name is another one: to look for the next would take most of the time.
    name_text().prop_map(|text| Name::from_ascii(text).unwrap_or_else(|_| Name::root()))
}

fn rtypes() -> impl Strategy<Value = RecordType> {
    use RecordType::{A, AAAA, ANY, AXFR, CNAME, HTTPS, MX, NS, OPT, PTR, SOA, SRV, TXT};
    prop::sample::select(vec![A, AAAA, ANY, AXFR, CNAME, HTTPS, MX, NS, OPT, PTR, SOA, SRV, TXT])
}

/// Questions as clients ask them.
fn questions() -> impl Strategy<Value = Message> {
    let edns = prop::option::of((any::<u16>(), any::<bool>()));
    (any::<u16>(), names(), rtypes(), edns).prop_map(|(id, name, rtype, edns)| {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name, rtype));
        if let Some((size, dnssec)) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size).set_dnssec_ok(dnssec);
            message.set_edns(edns);
        }
        message
    })
}

/// Whole, damaged and random packets.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let of_questions = (questions(), vec(damage(), 0..4))
        .prop_map(|(message, damage)| damaged(message.to_vec().unwrap_or_default(), &damage));
    prop_oneof![8 => of_questions, 1 => vec(any::<u8>(), 0..600)]
}

fn zone() -> Zone {
    let settings = Settings {
        service_ranges: vec!["10.96.0.0/16".parse().unwrap()],
        ..Settings::new(Name::from_ascii("cluster.local.").unwrap())
    };
    let mut zone = Zone::new(settings, 7);
    let web = Service::ClusterIp { addresses: vec![[10, 96, 0, 7].into()], ports: vec![] };
    let out = Service::ExternalName(Some(Name::from_ascii("www.example.com.").unwrap()));
    for (name, service) in [("web", web), ("many", Service::Headless), ("out", out)] {
        zone.put_service(&ObjectKey::new("shop", name), service);
    }
    let endpoints = (0..200).map(|last| (None, vec![IpAddr::from([10, 1, 0, last])])).collect();
    zone.put_slice(&ObjectKey::new("shop", "many-1"), "many", Slice { endpoints, ports: vec![] });
    zone
}

/// A handler of a small cluster.
pub(crate) fn handler() -> Handler {
    let metrics = Metrics::new(&Registry::new("dns", "0"), ([127, 0, 0, 1], 53).into(), "cluster.local.");
    let zone = zone();
    let base = Base { settings: zone.settings().clone(), listen: vec![], of_node: vec![] };
    let live = ArcSwap::from_pointee(Live::new(Dns::default(), &base, &metrics).unwrap());
    Handler::new(Arc::new(ArcSwap::from_pointee(zone)), Arc::new(live), metrics)
}

/// What holds for each reply to `packet`: it is one, to that packet, and not larger than allowed.
fn is_reply(reply: &[u8], packet: &[u8], most: usize) -> Result<(), TestCaseError> {
    prop_assert!(reply.len() >= wire::HEADER && reply.len() <= most, "{} bytes", reply.len());
    prop_assert_eq!(&reply[..2], &packet[..2]);
    prop_assert!(reply[2] & 0x80 != 0 && packet[2] & 0x80 == 0, "a reply, to a question");
    prop_assert!(Message::from_vec(reply).is_ok());
    Ok(())
}

#[test]
fn packets_get_a_reply_within_bounds_or_none() {
    let handler = handler();
    let client = SocketAddr::from(([10, 0, 0, 1], 4000));
    target(&packets(), |packet| {
        for (transport, most) in [(Transport::Udp, usize::from(UDP_LIMIT)), (Transport::Tcp, 65_535)] {
            match handler.start(&packet, transport, client) {
                Outcome::Reply(reply) => is_reply(&reply, &packet, most)?,
                Outcome::Later(pending) => {
                    is_reply(&handler.refuse(&pending), &packet, packet.len().max(300))?;
                }
                Outcome::Nothing => prop_assert!(packet.len() < wire::HEADER || packet[2] & 0x80 != 0),
            }
        }
        Ok(())
    });
}

#[test]
fn quick_and_cut_replies_are_within_bounds() {
    let zone = zone();
    target(&(packets(), any::<usize>()), |(packet, turn)| {
        let mut reply = vec![1];
        if fast::answer_packet(&zone, &packet, turn, &mut reply).is_some() {
            is_reply(&reply, &packet, UDP_LIMIT.into())?;
        } else {
            prop_assert!(reply.is_empty());
        }
        wire::put_cut(&packet, UDP_LIMIT, &mut reply);
        if !reply.is_empty() {
            is_reply(&reply, &packet, packet.len())?;
        }
        Ok(())
    });
}

/// Records as resolvers send them.
fn records() -> impl Strategy<Value = Vec<Record>> {
    let record = |(owner, ttl, kind, name): (Name, u32, u8, Name)| {
        let data = match kind {
            0 => RData::A(A::new(192, 0, 2, 1)),
            1 => RData::CNAME(CNAME(name)),
            2 => RData::TXT(TXT::new(vec!["x".repeat(200)])),
            _ => RData::SOA(SOA::new(name.clone(), name, 1, 2, 3, 4, 5)),
        };
        Record::from_rdata(owner, ttl, data)
    };
    vec((names(), any::<u32>(), 0_u8..4, names()).prop_map(record), 0..20)
}

/// What a resolver says, if it is asked for this name.
#[derive(Clone, Debug)]
enum Said {
    /// A reply to that question or another one: answers, authorities and damage.
    Reply(Option<Name>, u8, Vec<Record>, Vec<Record>, Vec<Damage>),
    Bytes(Vec<u8>),
}

fn said() -> impl Strategy<Value = Said> {
    let other = prop::option::weighted(0.1, names());
    let reply = (other, 0_u8..6, records(), records(), vec(damage(), 0..4)).prop_map(
        |(other, code, answers, authorities, damage)| Said::Reply(other, code, answers, authorities, damage),
    );
    prop_oneof![8 => reply, 1 => vec(any::<u8>(), 0..600).prop_map(Said::Bytes)]
}

impl Said {
    fn to(self, name: &Name, rtype: RecordType) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Reply(other, code, answers, authorities, damage) => {
                let mut reply = Message::response(7, OpCode::Query);
                reply.metadata.response_code = ResponseCode::from(0, code);
                reply.add_query(Query::query(other.unwrap_or_else(|| name.clone()), rtype));
                (reply.answers, reply.authorities) = (answers, authorities);
                damaged(reply.to_vec().unwrap_or_default(), &damage)
            }
        }
    }
}

#[test]
fn whatever_a_resolver_says_is_passed_over_or_fitted_to_the_client() {
    let (handler, bounds) = (handler(), Bounds::of(&Cache::default()));
    let (zone, live, client) = (handler.zone(), handler.live(), IpAddr::from([10, 0, 0, 1]));
    let inputs = (questions(), said(), any::<u32>(), any::<usize>());
    target(&inputs, |(message, said, age, turn)| {
        let packet = message.to_vec().unwrap_or_default();
        for (transport, most) in [(Transport::Udp, usize::from(UDP_LIMIT)), (Transport::Tcp, 65_535)] {
            let Ok(question) = read(&packet, transport) else { continue };
            let Resolved::Ask(ask) = resolve(&zone, &live.rules, &question, (client, false)) else {
                continue;
            };
            let (key, upstream) = (question.key(&ask.name), said.clone().to(&ask.name, question.rtype));
            let Some(reply) = Reply::read(&upstream, &key::question(&key), &bounds) else { continue };
            let entry = Arc::new(Entry::new(&key, 0, reply, 0));
            for told in [Told::Aged(age), Told::Stale(30)] {
                let bytes = Given { entry: entry.clone(), told }.bytes(turn);
                prop_assert_eq!(bytes.len(), entry.reply.size());
                let (_, reply) = conclude(&question, ask.clone(), bytes);
                prop_assert!(reply.len() >= wire::HEADER && reply.len() <= most, "{} bytes", reply.len());
                prop_assert_eq!(&reply[..2], &packet[..2]);
                prop_assert!(reply[2] & 0x80 != 0);
            }
        }
        Ok(())
    });
}

#[test]
fn no_packet_is_a_reason_to_panic() {
    let asked = key::question(&key::key(&Name::from_ascii("www.example.").unwrap(), RecordType::A, 0));
    target(&(packets(), packets()), |(packet, other)| {
        for transport in [Transport::Udp, Transport::Tcp] {
            if let Ok(question) = read(&packet, transport) {
                question.relay(packet.clone());
                question.relay(other.clone());
                question.error(ResponseCode::ServFail);
            }
        }
        if let Some(reply) = Reply::read(&other, &asked, &Bounds::of(&Cache::default())) {
            reply.put(&mut Vec::new(), Told::Aged(1), 1);
        }
        Ok(())
    });
}

#[test]
fn no_snapshot_that_another_one_wrote_does_harm() {
    let whole = bytes_of(&contents(), env!("CARGO_PKG_VERSION"));
    let head = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let lines: Vec<&[u8]> = whole[head..].split_inclusive(|byte| *byte == b'\n').collect();
    let objects = text(
        "(\\{\"(Service|External|Namespace|Slice|Network)\":|\\[|\\]|\\{|\\}|\"[a-z.]{0,9}\"|null|,|:|[0-9]{1,20}|\n){0,60}",
    );
    let one = (any::<prop::sample::Index>(), vec(damage(), 0..3));
    target(&(vec(one, 0..5), objects, vec(damage(), 0..4)), |(some, objects, damage)| {
        let some = some.iter().flat_map(|(line, damage)| damaged(line.get(&lines).to_vec(), damage));
        for body in [some.collect(), objects.into_bytes()] {
            let result = refused(&with_true_head(&body));
            prop_assert!(matches!(result, "read" | "undecodable"), "{}", result);
        }
        let other = damaged(whole.clone(), &damage);
        prop_assert!(other == whole || refused(&other) != "read");
        Ok(())
    });
}

#[test]
fn any_name_has_its_place_and_reverse_names_are_addresses() {
    let domain = Name::from_ascii("cluster.local.").unwrap();
    target(&(names(), any::<[u8; 16]>()), |(name, bytes)| {
        if let name::Place::Inside(labels) = name::place(&name, &domain) {
            prop_assert!(labels.iter().all(|label| *label == label.to_lowercase() && label.len() < 64));
        }
        let [a, b, c, d, ..] = bytes;
        for address in [IpAddr::from(bytes), IpAddr::from([a, b, c, d])] {
            prop_assert_eq!(name::address(&Name::from(address)), Some(address));
        }
        Ok(())
    });
}

#[test]
fn any_resolv_conf_names_some_resolvers_or_none() {
    let line = prop_oneof![
        3 => (text("(nameserver|search|options|;|#)?[ \t]*"), text("[0-9a-f.:%\\[\\]]{0,40}")).prop_map(|(word, rest)| word + &rest),
        1 => any::<std::net::IpAddr>().prop_map(|address| format!("nameserver {address}")),
        1 => text("\\PC{0,80}"),
    ];
    target(&vec(line, 0..20), |lines| {
        let found = upstreams::from_resolv_conf(&lines.join("\n"));
        prop_assert!(found.len() <= lines.len());
        for line in &lines {
            if let Ok(address) = upstreams::parse(line) {
                prop_assert_eq!(upstreams::parse(&address.to_string()), Ok(address));
            }
        }
        Ok(())
    });
}
