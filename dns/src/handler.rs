//! From a packet to its reply: names of the cluster are answered at once from the current zone, the others
//! are asked upstream. Knows packets and the zone, no sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use rand::seq::SliceRandom;

use crate::answer::{Answer, answer};
use crate::fast;
use crate::forward::Error;
use crate::limit::{Client, Limits, share::Permit};
use crate::live::Live;
use crate::message::{Question, Refusal, Transport, read};
use crate::metrics::{Common, Metrics, Seen};
use crate::traced::{Answered, Trace};
use crate::zone::Zone;

/// How many aliases are followed within the cluster before a chain counts as endless.
const ALIASES: usize = 8;
/// Failures of upstream resolvers are told once in this time; the metrics count all.
const TELL: Duration = Duration::from_secs(30);

/// Answers packets. Clones share everything.
#[derive(Clone, Debug)]
pub struct Handler {
    zone: Arc<ArcSwap<Zone>>,
    live: Arc<ArcSwap<Live>>,
    metrics: Metrics,
    limits: Arc<Limits>,
    told: Arc<Seldom>,
    /// Share of questions that are traced, 0 to 1.
    traced: f64,
}

/// Says yes once in a while.
#[derive(Debug)]
struct Seldom {
    started: Instant,
    /// Milliseconds after `started` from which on it says yes again.
    next: AtomicU64,
}

impl Seldom {
    fn new() -> Self {
        Self { started: Instant::now(), next: 0.into() }
    }

    /// Whether at least `pause` has gone by since the last yes.
    fn now(&self, pause: Duration) -> bool {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2);
        let (now, next) = (milliseconds(self.started.elapsed()), self.next.load(Ordering::Relaxed));
        let then = now + milliseconds(pause);
        now >= next && self.next.compare_exchange(next, then, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// What becomes of a packet.
#[derive(Debug)]
pub enum Outcome {
    /// Send this.
    Reply(Vec<u8>),
    /// The reply needs an upstream resolver: see [`Handler::finish`].
    Later(Box<Pending>),
    /// Send nothing.
    Nothing,
}

/// A question that needs an upstream resolver.
#[derive(Debug)]
pub struct Pending {
    question: Question,
    /// CNAME records that led to the name to ask for.
    aliases: Vec<Record>,
    name: Name,
    client: SocketAddr,
    since: Instant,
    trace: Option<Trace>,
}

impl Handler {
    /// A handler of the zone and of what is told, as they are at each moment.
    #[must_use]
    pub fn new(zone: Arc<ArcSwap<Zone>>, live: Arc<ArcSwap<Live>>, metrics: Metrics) -> Self {
        let limits = Arc::new(Limits::new(metrics.clone()));
        Self { zone, live, metrics, limits, told: Arc::new(Seldom::new()), traced: 0.0 }
    }

    /// The same, tracing this share of questions, 0 to 1.
    #[must_use]
    pub fn tracing(self, ratio: f64) -> Self {
        Self { traced: ratio, ..self }
    }

    /// The zone as it is now.
    pub(crate) fn zone(&self) -> Guard<Arc<Zone>> {
        self.zone.load()
    }

    /// What is told, as it is now.
    pub(crate) fn live(&self) -> Guard<Arc<Live>> {
        self.live.load()
    }

    /// What clients share.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A place among the questions under way to resolvers, to be held until this one's reply is there; `None` where its client has too many.
    pub(crate) fn place(&self, pending: &Pending) -> Option<Permit> {
        self.limits.ask(Client::of(pending.client.ip()), self.live.load().under_way())
    }

    /// The reply to a question that is not put to a resolver.
    pub(crate) fn refuse(&self, pending: &Pending) -> Vec<u8> {
        let Pending { question, aliases, client, since, .. } = pending;
        let code = ResponseCode::Refused;
        self.seen(question.transport, *client, Some(question.rtype), !aliases.is_empty(), code, *since);
        question.error(code)
    }

    /// Answers a datagram into `reply` where that is quickly done, and else leaves `reply` empty: see [`Handler::start`]. Replies with
    /// several addresses begin with another one each `turn`; it came at `since`. What is answered is not counted yet.
    pub(crate) fn quick(
        &self,
        zone: &Zone,
        (packet, client): (&[u8], SocketAddr),
        (turn, since): (usize, Instant),
        reply: &mut Vec<u8>,
    ) -> Option<fast::Answered> {
        let done = fast::answer(zone, packet, turn, reply)?;
        if let Some(trace) = Trace::by_chance(self.traced)
            && let Ok(question) = read(packet, Transport::Udp)
        {
            trace.answered(&answered(&question, client, done.code, since));
        }
        Some(done)
    }

    /// Counts what is answered quickly.
    pub(crate) fn common(&self) -> Common {
        self.metrics.common()
    }

    /// Answers `packet`, or says what it takes to do so.
    #[must_use]
    pub fn start(&self, packet: &[u8], transport: Transport, client: SocketAddr) -> Outcome {
        let since = Instant::now();
        let question = match read(packet, transport) {
            Ok(question) => question,
            Err(Refusal::Ignore) => {
                self.metrics.ignored();
                return Outcome::Nothing;
            }
            Err(Refusal::Reply(reply, code)) => {
                self.seen(transport, client, None, false, code, since);
                return Outcome::Reply(reply);
            }
        };
        let trace = Trace::by_chance(self.traced);
        match resolve(&self.zone.load(), &question.name, question.rtype) {
            Resolved::Own(code, sections) => {
                self.seen(transport, client, Some(question.rtype), true, code, since);
                if let Some(trace) = trace {
                    trace.answered(&answered(&question, client, code, since));
                }
                Outcome::Reply(question.reply(code, true, sections))
            }
            Resolved::Ask(aliases, name) => {
                Outcome::Later(Box::new(Pending { question, aliases, name, client, since, trace }))
            }
        }
    }

    /// Asks an upstream resolver. The reply always comes, and in bounded time.
    pub async fn finish(&self, pending: Box<Pending>) -> Vec<u8> {
        let Pending { question, aliases, name, client, since, trace } = *pending;
        let query = question.upstream_query(&name, rand::random());
        let avoid = self.zone.load().dns_addresses().to_vec();
        let own = !aliases.is_empty();
        let live = self.live.load_full();
        let (code, reply) = match live.forwarder.ask(&query, &avoid, trace.as_ref()).await {
            Ok(reply) if own => follow(&question, aliases, &reply),
            Ok(reply) => {
                (ResponseCode::from(0, reply.get(3).map_or(2, |byte| byte & 0x0f)), question.relay(reply))
            }
            Err(error) => {
                if self.told.now(TELL) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(%name, error, "a name outside the cluster cannot be resolved");
                }
                let code =
                    if matches!(error, Error::Busy) { ResponseCode::Refused } else { ResponseCode::ServFail };
                (code, question.error(code))
            }
        };
        self.seen(question.transport, client, Some(question.rtype), own, code, since);
        if let Some(trace) = trace {
            trace.answered(&answered(&question, client, code, since));
        }
        reply
    }

    fn seen(
        &self,
        transport: Transport,
        client: SocketAddr,
        rtype: Option<RecordType>,
        own: bool,
        code: ResponseCode,
        since: Instant,
    ) {
        self.metrics.seen(Seen { transport, client, rtype, own, code, took: since.elapsed() });
    }
}

fn answered(question: &Question, client: SocketAddr, code: ResponseCode, since: Instant) -> Answered<'_> {
    let Question { name, rtype, transport, .. } = question;
    Answered { name, rtype: *rtype, code, transport: *transport, client, since }
}

/// What the zone alone makes of a question.
enum Resolved {
    /// The whole answer: its code and its answer, authority and additional records.
    Own(ResponseCode, [Vec<Record>; 3]),
    /// These aliases, and what an upstream resolver says of the name they lead to.
    Ask(Vec<Record>, Name),
}

/// Answers from the zone, following aliases as far as they stay in it.
fn resolve(zone: &Zone, name: &Name, rtype: RecordType) -> Resolved {
    let (mut name, mut aliases) = (name.clone(), vec![]);
    let failure = |code| Resolved::Own(code, [vec![], vec![], vec![]]);
    while aliases.len() < ALIASES {
        match answer(zone, &name, rtype) {
            Answer::Records { mut answers, additionals } => {
                if matches!(rtype, RecordType::A | RecordType::AAAA) {
                    answers.shuffle(&mut rand::rng()); // clients tend to take the first
                }
                aliases.extend(answers);
                return Resolved::Own(ResponseCode::NoError, [aliases, vec![], additionals]);
            }
            Answer::Alias { cname, target } => {
                aliases.push(cname);
                if matches!(rtype, RecordType::CNAME | RecordType::ANY) {
                    return Resolved::Own(ResponseCode::NoError, [aliases, vec![], vec![]]);
                }
                name = target;
            }
            Answer::NoData(soa) => return Resolved::Own(ResponseCode::NoError, [aliases, vec![soa], vec![]]),
            Answer::NxDomain(soa) => {
                return Resolved::Own(ResponseCode::NXDomain, [aliases, vec![soa], vec![]]);
            }
            Answer::Refused => return failure(ResponseCode::Refused),
            Answer::Failure => return failure(ResponseCode::ServFail),
            Answer::Forward => return Resolved::Ask(aliases, name),
        }
    }
    failure(ResponseCode::ServFail)
}

/// The answer to a question whose `aliases` lead to a name that an upstream resolver has answered for.
fn follow(question: &Question, mut aliases: Vec<Record>, reply: &[u8]) -> (ResponseCode, Vec<u8>) {
    let Ok(reply) = Message::from_vec(reply) else {
        return (ResponseCode::ServFail, question.error(ResponseCode::ServFail));
    };
    let code = reply.metadata.response_code;
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return (ResponseCode::ServFail, question.error(ResponseCode::ServFail));
    }
    aliases.extend(reply.answers);
    (code, question.reply(code, false, [aliases, reply.authorities, vec![]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seldom_told_is_told_at_once_and_then_not_for_a_while() {
        let told = Seldom::new();
        assert_eq!([told.now(TELL), told.now(TELL)], [true, false]);
        let again = Seldom::new();
        assert_eq!([again.now(Duration::ZERO), again.now(Duration::ZERO)], [true, true]);
    }
}
