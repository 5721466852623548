//! From a packet to its reply: names of the cluster are answered at once from the current zone, the others
//! are asked upstream. Knows packets and the zone, no sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use netkeel_crds::cluster_network::SearchPath;
use rand::seq::SliceRandom;

use crate::answer::{self, Answer, answer};
use crate::fast;
use crate::forward::Error;
use crate::live::Live;
use crate::loops::Loops;
use crate::message::{Question, Refusal, Transport, read};
use crate::metrics::{Common, Metrics, Seen};
use crate::search;
use crate::traced::{Answered, Trace};
use crate::zone::Zone;

/// How many aliases are followed within the cluster before a chain counts as endless.
const ALIASES: usize = 12; // CoreDNS gives up at as many
/// Failures of upstream resolvers are told once in this time; the metrics count all.
const TELL: Duration = Duration::from_secs(30);

/// Answers packets. Clones share everything.
#[derive(Clone, Debug)]
pub struct Handler {
    zone: Arc<ArcSwap<Zone>>,
    live: Arc<ArcSwap<Live>>,
    metrics: Metrics,
    loops: Loops,
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
    /// What is said if `name`, which the client did not ask for, does not exist.
    denied: Option<Denied>,
    client: SocketAddr,
    since: Instant,
    trace: Option<Trace>,
}

impl Handler {
    /// A handler of the zone and of what is told, as they are at each moment.
    #[must_use]
    pub fn new(zone: Arc<ArcSwap<Zone>>, live: Arc<ArcSwap<Live>>, metrics: Metrics) -> Self {
        Self { zone, live, metrics, loops: Loops::default(), told: Arc::new(Seldom::new()), traced: 0.0 }
    }

    /// The same, tracing this share of questions, 0 to 1.
    #[must_use]
    pub fn tracing(self, ratio: f64) -> Self {
        Self { traced: ratio, ..self }
    }

    /// The same, leaving out upstream resolvers that lead back here, and answering questions that look for those.
    #[must_use]
    pub fn heeding(self, loops: Loops) -> Self {
        Self { loops, ..self }
    }

    /// The zone as it is now.
    pub(crate) fn zone(&self) -> Guard<Arc<Zone>> {
        self.zone.load()
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
        if done.code == ResponseCode::NXDomain && self.searches() {
            reply.clear();
            return None;
        }
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
        if let Some(answer) = self.loops.answer(&question.name, question.rtype) {
            self.seen(transport, client, Some(question.rtype), true, ResponseCode::NoError, since);
            return Outcome::Reply(question.reply(
                ResponseCode::NoError,
                true,
                [vec![answer], vec![], vec![]],
            ));
        }
        let trace = Trace::by_chance(self.traced);
        let zone = self.zone.load();
        let (resolved, denied) = match resolve(&zone, &question.name, question.rtype) {
            Resolved::Own(ResponseCode::NXDomain, denied) if self.searches() => {
                search(&zone, client, &question, denied)
            }
            resolved => (resolved, None),
        };
        match resolved {
            Resolved::Own(code, sections) => {
                self.seen(transport, client, Some(question.rtype), true, code, since);
                if let Some(trace) = trace {
                    trace.answered(&answered(&question, client, code, since));
                }
                let own = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
                Outcome::Reply(question.reply(code, own, sections))
            }
            Resolved::Ask(aliases, name) => {
                Outcome::Later(Box::new(Pending { question, aliases, name, denied, client, since, trace }))
            }
        }
    }

    /// Asks an upstream resolver. The reply always comes, and in bounded time.
    pub async fn finish(&self, pending: Box<Pending>) -> Vec<u8> {
        let Pending { question, aliases, name, denied, client, since, trace } = *pending;
        let query = question.upstream_query(&name, rand::random());
        let avoid = self.loops.avoid(self.zone.load().dns_addresses());
        let own = !aliases.is_empty();
        let live = self.live.load_full();
        let (code, reply) = match live.forwarder.ask(&query, &avoid, trace.as_ref()).await {
            Ok(reply) if own => follow(&question, (aliases, denied), &reply),
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

    /// Whether the search lists of pods are tried here.
    fn searches(&self) -> bool {
        self.live.load().dns.search_path == SearchPath::ServerSide
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

/// The records of an answer that there is no such name.
type Denied = [Vec<Record>; 3];

/// Answers a question for a name that there is not, `denied` so, with the next name of the client's search list that there is. It is an alias
/// then, as in CoreDNS. The last name is not the zone's to know: if it turns out not to exist, `denied` is the answer.
fn search(
    zone: &Zone,
    client: SocketAddr,
    question: &Question,
    denied: Denied,
) -> (Resolved, Option<Denied>) {
    if !denied[0].is_empty() {
        return (Resolved::Own(ResponseCode::NXDomain, denied), None); // an alias that leads nowhere is there
    }
    for name in search::names(zone, client.ip(), &question.name) {
        let alias = answer::alias(zone, &question.name, &name);
        match resolve(zone, &name, question.rtype) {
            Resolved::Own(ResponseCode::NXDomain, [answers, ..]) if answers.is_empty() => {}
            Resolved::Own(code, [answers, authorities, additionals]) => {
                let answers =
                    if code == ResponseCode::ServFail { vec![] } else { [vec![alias], answers].concat() };
                return (Resolved::Own(code, [answers, authorities, additionals]), None);
            }
            Resolved::Ask(aliases, target) => {
                let denied = aliases.is_empty().then_some(denied);
                return (Resolved::Ask([vec![alias], aliases].concat(), target), denied);
            }
        }
    }
    (Resolved::Own(ResponseCode::NXDomain, denied), None)
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

/// The answer to a question whose `aliases` lead to a name that an upstream resolver has answered for; `denied` if there is no such name.
fn follow(
    question: &Question,
    (mut aliases, denied): (Vec<Record>, Option<Denied>),
    reply: &[u8],
) -> (ResponseCode, Vec<u8>) {
    let Ok(reply) = Message::from_vec(reply) else {
        return (ResponseCode::ServFail, question.error(ResponseCode::ServFail));
    };
    let code = reply.metadata.response_code;
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return (ResponseCode::ServFail, question.error(ResponseCode::ServFail));
    }
    if let Some(denied) = denied.filter(|_| code == ResponseCode::NXDomain && reply.answers.is_empty()) {
        return (code, question.reply(code, true, denied));
    }
    aliases.extend(reply.answers);
    // Authoritative for the first owner name, which is the alias (RFC 1035 section 4.1.1).
    (code, question.reply(code, true, [aliases, reply.authorities, vec![]]))
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
