//! Odd packets and replies that do not fit.

use hickory_proto::op::MessageType;
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::A;
use proptest::prelude::*;

use super::*;

fn query(name: &str, rtype: RecordType) -> Message {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
    query
}

fn with_edns(mut query: Message, size: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    query.set_edns(edns);
    query
}

fn records(count: u16) -> Vec<Record> {
    let owner = Name::from_ascii("a.example.").unwrap();
    let record = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Record::from_rdata(owner.clone(), 5, RData::A(A::new(10, 0, high, low)))
    };
    (0..count).map(record).collect()
}

fn code(packet: &[u8]) -> Option<ResponseCode> {
    match read(packet, Transport::Udp) {
        Ok(_) => None,
        Err(Refusal::Ignore) => Some(ResponseCode::NoError),
        Err(Refusal::Reply(bytes, code)) => {
            let reply = Message::from_vec(&bytes).unwrap();
            assert_eq!((reply.metadata.id, reply.metadata.message_type), (7, MessageType::Response));
            assert_eq!(u16::from(reply.metadata.response_code), u16::from(code));
            Some(code)
        }
    }
}

#[test]
fn packets_that_are_no_question_are_turned_away() {
    let good = query("a.example.", RecordType::A).to_vec().unwrap();
    let edit = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet
    };
    let mut later = with_edns(query("a.example.", RecordType::A), 1232);
    later.edns.as_mut().unwrap().set_version(1);
    let cases = [
        (good.clone(), None, "a good one"),
        (good[..11].to_vec(), Some(ResponseCode::NoError), "shorter than a header"),
        (edit(2, 0x81), Some(ResponseCode::NoError), "a reply"),
        (edit(2, 0x21), Some(ResponseCode::NotImp), "NOTIFY"),
        (edit(2, 0x29), Some(ResponseCode::NotImp), "UPDATE"),
        (edit(5, 0), Some(ResponseCode::FormErr), "no question"),
        (edit(5, 2), Some(ResponseCode::FormErr), "two questions"),
        (edit(4, 255), Some(ResponseCode::FormErr), "65281 questions"),
        (edit(7, 1), Some(ResponseCode::FormErr), "an answer"),
        (edit(11, 1), Some(ResponseCode::FormErr), "a record that is missing"),
        (edit(12, 0xc0), Some(ResponseCode::FormErr), "a name that points to itself"),
        (good[..good.len() - 3].to_vec(), Some(ResponseCode::FormErr), "a cut question"),
        (edit(good.len() - 1, 3), Some(ResponseCode::Refused), "class CHAOS"),
        (later.to_vec().unwrap(), Some(ResponseCode::BADVERS), "EDNS version 1"),
    ];
    for (packet, expected, what) in cases {
        assert_eq!(code(&packet), expected, "{what}");
    }
}

#[test]
fn replies_fit_what_the_client_takes_and_say_when_they_are_cut() {
    let plain = query("a.example.", RecordType::A);
    let cases = [
        (plain.clone(), Transport::Udp, 10, 10, false, 512),
        (plain.clone(), Transport::Udp, 100, 30, true, 512),
        (with_edns(plain.clone(), 100), Transport::Udp, 100, 29, true, 512),
        (with_edns(plain.clone(), 65_535), Transport::Udp, 200, 74, true, 1232),
        (plain.clone(), Transport::Tcp, 3000, 3000, false, 65_535),
        (with_edns(plain, 512), Transport::Tcp, 6000, 4093, true, 65_535),
    ];
    for (request, transport, given, expected, cut, limit) in cases {
        let question = read(&request.to_vec().unwrap(), transport).unwrap();
        let bytes = question.reply(ResponseCode::NoError, true, [records(given), vec![], vec![]]);
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!((reply.answers.len(), reply.metadata.truncation), (expected, cut), "{given} records");
        assert!(bytes.len() <= limit, "{} bytes", bytes.len());
        assert_eq!(reply.edns.is_some(), request.edns.is_some());
    }
}

#[test]
fn additional_records_are_left_out_before_an_answer_is_cut() {
    let question = read(&query("a.example.", RecordType::A).to_vec().unwrap(), Transport::Udp).unwrap();
    let bytes = question.reply(ResponseCode::NoError, true, [records(20), vec![], records(20)]);
    let reply = Message::from_vec(&bytes).unwrap();
    assert_eq!((reply.answers.len(), reply.additionals.len(), reply.metadata.truncation), (20, 0, false));
}

#[test]
fn an_upstream_reply_gets_the_id_and_the_case_of_the_client() {
    let question = read(&query("A.eXample.", RecordType::A).to_vec().unwrap(), Transport::Udp).unwrap();
    for count in [1, 100] {
        let mut upstream = query("a.example.", RecordType::A);
        upstream.metadata.id = 999;
        upstream.metadata.message_type = MessageType::Response;
        upstream.answers = records(count);
        let reply = Message::from_vec(&question.relay(upstream.to_vec().unwrap())).unwrap();
        assert_eq!(reply.metadata.id, 7);
        assert_eq!(reply.queries[0].name().to_ascii(), "A.eXample.");
        assert_eq!(reply.metadata.truncation, count == 100);
    }
}

proptest! {
    #[test]
    fn no_damaged_question_is_a_reason_to_panic(at in 0..60_usize, byte: u8) {
        let mut packet = with_edns(query("_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV), 1232).to_vec().unwrap();
        if let Some(place) = packet.get_mut(at) {
            *place = byte;
        }
        if let Ok(question) = read(&packet, Transport::Udp) {
            question.relay(packet.clone());
            question.error(ResponseCode::ServFail);
        }
    }
}
