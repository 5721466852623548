//! Packets in, packets out: what is no proper question is turned away here, and replies are made to fit
//! what the client can take. Pure.

mod addresses;

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use crate::cache::{key, quick};
use crate::wire::{HEADER, OPT, TRUNCATED, put_opt};

/// Largest reply over UDP that no network on the way has to cut, in bytes (DNS flag day 2020).
pub(crate) const UDP_LIMIT: u16 = 1232;

/// How a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A length-prefixed message of a stream.
    Tcp,
}

/// A packet that is no question to answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Too short to be answered, or itself a reply: an answer might go round in circles.
    Ignore,
    /// The reply says why.
    Reply(Vec<u8>, ResponseCode),
}

/// A well-formed question of class IN, and how its reply has to look.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) name: Name,
    pub(crate) rtype: RecordType,
    pub(crate) transport: Transport,
    /// Largest reply the client takes, in bytes.
    limit: u16,
    /// The reply so far: header, question and OPT record.
    reply: Message,
}

/// Reads the question of a packet.
pub(crate) fn read(packet: &[u8], transport: Transport) -> Result<Question, Refusal> {
    let Some(header) = packet.get(..HEADER).filter(|header| header[2] & 0x80 == 0) else {
        return Err(Refusal::Ignore);
    };
    if opcode(header) != OpCode::Query {
        return Err(refuse(header, ResponseCode::NotImp));
    }
    // counts are checked before anything is reserved for them; IXFR brings one authority record
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if count(4) != 1 || count(6) != 0 || count(8) > 1 || count(10) > 2 {
        return Err(refuse(header, ResponseCode::FormErr));
    }
    let request = Message::from_vec(packet).map_err(|_| refuse(header, ResponseCode::FormErr))?;
    let Some(query) = request.queries.first() else { return Err(refuse(header, ResponseCode::FormErr)) };
    let reply = skeleton(&request, query);
    let limit = match transport {
        Transport::Udp => request.max_payload().min(UDP_LIMIT),
        Transport::Tcp => u16::MAX,
    };
    let question =
        Question { name: query.name().clone(), rtype: query.query_type(), transport, limit, reply };
    if request.version() > 0 {
        return Err(Refusal::Reply(question.error(ResponseCode::BADVERS), ResponseCode::BADVERS));
    }
    if query.query_class() != DNSClass::IN {
        return Err(Refusal::Reply(question.error(ResponseCode::Refused), ResponseCode::Refused));
    }
    Ok(question)
}

fn opcode(header: &[u8]) -> OpCode {
    OpCode::from_u8(header[2] >> 3 & 0x0f)
}

/// A reply of a header alone, for packets that cannot be read.
fn refuse(header: &[u8], code: ResponseCode) -> Refusal {
    let mut reply = Message::error_msg(u16::from_be_bytes([header[0], header[1]]), opcode(header), code);
    reply.metadata.recursion_desired = header[2] & 1 == 1;
    reply.to_vec().map_or(Refusal::Ignore, |bytes| Refusal::Reply(bytes, code))
}

fn skeleton(request: &Message, query: &Query) -> Message {
    let mut reply = Message::response(request.metadata.id, OpCode::Query);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.checking_disabled = request.metadata.checking_disabled;
    reply.metadata.recursion_available = true;
    reply.add_query(query.clone());
    if let Some(asked) = &request.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_LIMIT).set_dnssec_ok(asked.flags().dnssec_ok);
        reply.set_edns(edns);
    }
    reply
}

impl Question {
    /// A reply that says what went wrong.
    pub(crate) fn error(&self, code: ResponseCode) -> Vec<u8> {
        let mut reply = self.reply.clone();
        reply.metadata.response_code = code;
        encode(reply, self.limit)
    }

    /// A reply of these records; `authoritative` when they are the cluster's own.
    pub(crate) fn reply(
        &self,
        code: ResponseCode,
        authoritative: bool,
        [answers, authorities, additionals]: [Vec<Record>; 3],
    ) -> Vec<u8> {
        let mut reply = self.reply.clone();
        reply.metadata.response_code = code;
        reply.metadata.authoritative = authoritative;
        (reply.answers, reply.authorities, reply.additionals) = (answers, authorities, additionals);
        addresses::encode(&mut reply, self.limit).unwrap_or_else(|| encode(reply, self.limit))
    }

    /// More answers than a reply has room for, of 16 bytes each at least, and than 100: see [`crate::answer::answer_within`].
    pub(crate) fn most(&self) -> usize {
        100 + usize::from(self.limit) / 16
    }

    /// What an answer about `name` to this question is kept under.
    pub(crate) fn key(&self, name: &Name) -> Vec<u8> {
        let dnssec = self.reply.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        let flags = if dnssec { key::DNSSEC } else { 0 }
            | if self.reply.metadata.checking_disabled { key::UNCHECKED } else { 0 };
        key::key(name, self.rtype, flags)
    }

    /// A resolver's reply to this very question, as the client gets it: unchanged where it fits, but for the id, the flags and the case of the
    /// name, which are the client's, and the OPT record, which is ours. It comes without one.
    pub(crate) fn relay(&self, mut upstream: Vec<u8>) -> Vec<u8> {
        let mut asked = self.reply.clone();
        asked.edns = None;
        let (asked, _) = emit(&asked, u16::MAX);
        if upstream.len() < asked.len() {
            return self.error(ResponseCode::ServFail);
        }
        quick::finish(&mut upstream, &asked);
        let opt = if self.reply.edns.is_some() { usize::from(OPT) } else { 0 };
        if upstream.len() + opt > usize::from(self.limit) {
            let Ok(mut message) = Message::from_vec(&upstream) else {
                return self.error(ResponseCode::ServFail);
            };
            message.edns.clone_from(&self.reply.edns);
            return encode(message, self.limit);
        }
        if let Some(edns) = &self.reply.edns {
            let additionals = u16::from_be_bytes([upstream[10], upstream[11]]).saturating_add(1);
            upstream[10..12].copy_from_slice(&additionals.to_be_bytes());
            put_opt(&mut upstream, UDP_LIMIT, 0, edns.flags().dnssec_ok);
        }
        upstream
    }
}

/// The message in at most `limit` bytes: additional records are left out first, and only an answer that
/// still does not fit is cut and marked so.
fn encode(mut message: Message, limit: u16) -> Vec<u8> {
    if let (bytes, true) = emit(&message, limit) {
        return bytes;
    }
    message.additionals.clear();
    if let (bytes, true) = emit(&message, limit) {
        return bytes;
    }
    message.authorities.clear();
    let edns = message.edns.take();
    let (bytes, _) = emit(&message, limit.saturating_sub(if edns.is_some() { OPT } else { 0 }));
    let answers = bytes.get(6..8).map_or(0, |count| u16::from_be_bytes([count[0], count[1]]));
    message.answers.truncate(usize::from(answers));
    message.metadata.truncation = true;
    message.edns = edns;
    match emit(&message, limit) {
        (bytes, true) => bytes,
        _ => failure(&message), // a record that cannot be written
    }
}

fn failure(message: &Message) -> Vec<u8> {
    let failure = Message::error_msg(message.metadata.id, OpCode::Query, ResponseCode::ServFail);
    failure.to_vec().unwrap_or_default()
}

/// The bytes of as much as fits into `limit`, and whether that is everything.
fn emit(message: &Message, limit: u16) -> (Vec<u8>, bool) {
    let mut bytes = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    let done = message.emit(&mut encoder).is_ok();
    let cut = bytes.get(2).is_some_and(|flags| flags & TRUNCATED != 0);
    (bytes, done && cut == message.metadata.truncation)
}

#[cfg(test)]
mod tests;
