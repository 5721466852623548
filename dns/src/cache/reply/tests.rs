use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, SOA as SoaData, TXT};
use hickory_proto::rr::{Name, RData, Record as Full, RecordType};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::cache::key;

const BOUNDS: Bounds = Bounds { min: 5, max: 3600, negative: 1800 };

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn a(owner: &str, ttl: u32, last: u8) -> Full {
    Full::from_rdata(name(owner), ttl, RData::A(A::new(192, 0, 2, last)))
}

fn cname(owner: &str, ttl: u32, target: &str) -> Full {
    Full::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

fn soa(ttl: u32, minimum: u32) -> Full {
    let data = SoaData::new(name("ns.example."), name("root.example."), 1, 2, 3, 4, minimum);
    Full::from_rdata(name("example."), ttl, RData::SOA(data))
}

fn message(code: ResponseCode, answers: Vec<Full>, authorities: Vec<Full>) -> Message {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.add_query(Query::query(name("Www.Example."), RecordType::A));
    (message.answers, message.authorities) = (answers, authorities);
    message
}

fn asked() -> Vec<u8> {
    key::question(&key::key(&name("www.example."), RecordType::A, 0))
}

fn read_with(message: &Message, bounds: &Bounds) -> Option<Reply> {
    Reply::read(&message.to_vec().unwrap(), &asked(), bounds)
}

fn given(reply: &Reply, told: Told, turn: usize) -> Message {
    let mut bytes = Vec::new();
    reply.put(&mut bytes, told, turn);
    assert_eq!(bytes.len(), reply.size());
    Message::from_vec(&bytes).unwrap()
}

#[test]
fn how_long_a_reply_is_kept_is_what_it_says_within_bounds() {
    use Kind::{Failure, Negative, Other, Positive};
    use ResponseCode::{NXDomain, NoError, Refused, ServFail};
    let www = |ttl| a("www.example.", ttl, 1);
    let cases = [
        ("its time", message(NoError, vec![www(60)], vec![]), (Positive, 60)),
        ("the least of all", message(NoError, vec![www(60), www(30)], vec![]), (Positive, 30)),
        ("at least", message(NoError, vec![www(1)], vec![]), (Positive, 5)),
        ("at most", message(NoError, vec![www(90_000)], vec![]), (Positive, 3600)),
        ("no time: RFC 2181", message(NoError, vec![www(1 << 31)], vec![]), (Positive, 5)),
        (
            "an alias",
            message(NoError, vec![cname("www.example.", 20, "b."), a("b.", 60, 1)], vec![]),
            (Positive, 20),
        ),
        (
            "an alias to nothing",
            message(NoError, vec![cname("www.example.", 20, "b.")], vec![soa(60, 60)]),
            (Negative, 20),
        ),
        ("no record", message(NoError, vec![], vec![soa(300, 60)]), (Negative, 60)),
        ("no name", message(NXDomain, vec![], vec![soa(60, 300)]), (Negative, 60)),
        ("nothing, at most", message(NXDomain, vec![], vec![soa(9000, 9000)]), (Negative, 1800)),
        ("nothing, at least", message(NXDomain, vec![], vec![soa(0, 0)]), (Negative, 5)),
        ("nothing, and nobody to say for how long", message(NXDomain, vec![], vec![]), (Other, 0)),
        ("nothing at all", message(NoError, vec![], vec![]), (Other, 0)),
        ("a failure", message(ServFail, vec![], vec![]), (Failure, 5)),
        ("a refusal", message(Refused, vec![], vec![]), (Other, 0)),
    ];
    for (what, message, expected) in cases {
        let reply = read_with(&message, &BOUNDS).unwrap();
        assert_eq!((reply.kind(), reply.ttl()), expected, "{what}");
    }
    let mut cut = message(NoError, vec![www(60)], vec![]);
    cut.metadata.truncation = true;
    assert_eq!(read_with(&cut, &BOUNDS).unwrap().kind(), Other, "what was cut is nobody else's");
    let none = Bounds { negative: 0, ..BOUNDS };
    assert_eq!(read_with(&message(NXDomain, vec![], vec![soa(60, 60)]), &none).unwrap().ttl(), 0);
}

#[test]
fn a_referral_is_not_kept() {
    let ns = Full::from_rdata(name("example."), 60, RData::NS(NS(name("ns.example."))));
    let reply = read_with(&message(ResponseCode::NoError, vec![], vec![ns]), &BOUNDS).unwrap();
    assert_eq!((reply.kind(), reply.ttl()), (Kind::Other, 0));
}

#[test]
fn times_count_down_and_an_answer_that_is_over_has_one_of_its_own() {
    let answers = vec![a("www.example.", 60, 1), a("www.example.", 9, 1)];
    let reply = read_with(&message(ResponseCode::NoError, answers, vec![]), &BOUNDS).unwrap();
    let times = |told| given(&reply, told, 0).answers.iter().map(|record| record.ttl).collect::<Vec<_>>();
    assert_eq!(times(Told::Aged(0)), [60, 9]);
    assert_eq!(times(Told::Aged(8)), [52, 1]);
    assert_eq!(times(Told::Aged(10)), [50, 0]);
    assert_eq!(times(Told::Stale(30)), [30, 30]);
    let negative = read_with(&message(ResponseCode::NXDomain, vec![], vec![soa(9000, 7)]), &BOUNDS).unwrap();
    assert_eq!(given(&negative, Told::Aged(3), 0).authorities[0].ttl, 4, "RFC 2308 section 5");
}

#[test]
fn another_address_is_first_each_turn() {
    let lower = |answers| {
        let mut message = message(ResponseCode::NoError, answers, vec![]);
        message.queries[0].set_name(name("www.example."));
        read_with(&message, &BOUNDS).unwrap()
    };
    let reply = lower((1..=3).map(|last| a("www.example.", 60, last)).collect());
    let firsts: Vec<String> =
        (0..4).map(|turn| given(&reply, Told::Aged(0), turn).answers[0].data.to_string()).collect();
    assert_eq!(firsts, ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.1"]);
    let alias = vec![cname("www.example.", 60, "b.net."), a("b.net.", 60, 1), a("b.net.", 60, 2)];
    let reply = lower(alias.clone());
    let turned = given(&reply, Told::Aged(0), 1).answers;
    assert_eq!(turned, [alias[0].clone(), alias[2].clone(), alias[1].clone()], "an alias stays first");
}

#[test]
fn what_is_no_reply_to_the_question_is_not_read() {
    let good = message(ResponseCode::NoError, vec![a("www.example.", 60, 1)], vec![]).to_vec().unwrap();
    let read = |packet: &[u8]| Reply::read(packet, &asked(), &BOUNDS).is_some();
    assert!(read(&good));
    for length in 0..good.len() {
        assert!(!read(&good[..length]), "{length} bytes of it");
    }
    let mut other = good.clone();
    other[14] = b'x';
    assert!(!read(&other), "another name");
    let mut looped = good.clone();
    let owner = HEADER + asked().len();
    looped[owner..owner + 2].copy_from_slice(&[0xc0, u8::try_from(owner).unwrap()]);
    assert!(!read(&looped), "a name that points at itself");
    let mut edns = Edns::new();
    edns.set_rcode_high(1);
    let mut odd = message(ResponseCode::NoError, vec![], vec![]);
    odd.set_edns(edns);
    let mut bytes = odd.to_vec().unwrap();
    let at = bytes.len() - 6;
    bytes[at] = 1;
    assert!(!read(&bytes), "BADVERS and the like are no answer");
    let bare = [&[0, 7, 0x80, 0x81, 0, 0, 0, 0, 0, 0, 0, 0][..]].concat();
    let reply = Reply::read(&bare, &asked(), &BOUNDS).unwrap();
    assert_eq!(
        (reply.code(), given(&reply, Told::Aged(0), 0).queries.len()),
        (1, 1),
        "the question is added"
    );
}

fn any_record() -> impl Strategy<Value = Full> {
    let owner = prop::sample::select(vec!["www.example.", "a.www.example.", "b.net.", "example.", "."]);
    let data = prop_oneof![
        any::<[u8; 4]>().prop_map(|address| RData::A(A(address.into()))),
        any::<[u8; 16]>().prop_map(|address| RData::AAAA(AAAA(address.into()))),
        Just(RData::CNAME(CNAME(name("b.www.example.")))),
        Just(RData::MX(MX::new(10, name("mx.example.")))),
        "[a-z]{0,20}".prop_map(|text| RData::TXT(TXT::new(vec![text]))),
    ];
    (owner, 0..10_000_u32, data).prop_map(|(owner, ttl, data)| Full::from_rdata(name(owner), ttl, data))
}

proptest! {
    /// Whatever a resolver says is given as it was said, but for the OPT record, and times that have gone by.
    #[test]
    fn a_reply_is_given_as_it_came(
        answers in vec(any_record(), 0..8), authorities in vec(any_record(), 0..4), additionals in vec(any_record(), 0..4),
        edns: bool, age in 0..20_000_u32,
    ) {
        let mut message = message(ResponseCode::NoError, answers, authorities);
        message.additionals = additionals;
        if edns {
            message.set_edns(Edns::new());
        }
        let reply = read_with(&message, &Bounds::NONE).unwrap();
        let now = given(&reply, Told::Aged(age), 0);
        prop_assert!(now.edns.is_none());
        for (before, after) in [
            (&message.answers, &now.answers), (&message.authorities, &now.authorities),
            (&message.additionals, &now.additionals),
        ] {
            let mut aged = before.clone();
            for record in &mut aged {
                record.ttl = record.ttl.saturating_sub(age);
            }
            prop_assert_eq!(&aged, after);
        }
        let mut turned = given(&reply, Told::Aged(0), 1).answers;
        let mut as_before = message.answers.clone();
        turned.sort_by_key(ToString::to_string);
        as_before.sort_by_key(ToString::to_string);
        prop_assert_eq!(turned, as_before, "a turn changes the order alone");
    }
}
