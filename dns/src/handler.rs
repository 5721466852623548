//! From a packet to its reply: names of the cluster are answered at once from the current zone, the others
//! are asked upstream. Knows packets and the zone, no sockets.

use std::net::{IpAddr, SocketAddr};
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
use crate::live::Live;
use crate::message::{Question, Refusal, Transport, read};
use crate::metrics::{By, Common, Metrics, Seen};
use crate::querylog::{Line, QueryLog};
use crate::rules::{Impossible, Rewritten, Rules, Told, Verdict};
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
    told: Arc<Seldom>,
    log: QueryLog,
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
    /// Set where a rewrite made `name` of the one that was asked for: whether answers carry that one.
    back: Option<bool>,
    client: SocketAddr,
    since: Instant,
    trace: Option<Trace>,
}

impl Handler {
    /// A handler of the zone and of what is told, as they are at each moment.
    #[must_use]
    pub fn new(zone: Arc<ArcSwap<Zone>>, live: Arc<ArcSwap<Live>>, metrics: Metrics) -> Self {
        let log = QueryLog::new(metrics.log_drops());
        Self { zone, live, metrics, told: Arc::new(Seldom::new()), log, traced: 0.0 }
    }

    /// The same, tracing this share of questions, 0 to 1.
    #[must_use]
    pub fn tracing(self, ratio: f64) -> Self {
        Self { traced: ratio, ..self }
    }

    /// The same with lines of the query log handed to `writer`.
    #[cfg(test)]
    pub(crate) fn logging_to(self, writer: fn(Line)) -> Self {
        Self { log: QueryLog::to(self.metrics.log_drops(), writer), ..self }
    }

    /// The zone as it is now.
    pub(crate) fn zone(&self) -> Guard<Arc<Zone>> {
        self.zone.load()
    }

    /// Answers a datagram into `reply` where that is quickly done and no rule decides it, and else leaves `reply` empty: see [`Handler::start`]. Replies with
    /// several addresses begin with another one each `turn`; it came at `since`. What is answered is not counted yet.
    pub(crate) fn quick(
        &self,
        zone: &Zone,
        (packet, client): (&[u8], SocketAddr),
        (turn, since): (usize, Instant),
        reply: &mut Vec<u8>,
    ) -> Option<fast::Answered> {
        let done = fast::answer(zone, packet, turn, reply)?;
        let live = self.live.load();
        if live.rules.touch(packet, client.ip(), done.rtype) {
            reply.clear();
            return None;
        }
        let (trace, logged) = (Trace::by_chance(self.traced), live.logged.wants(Some(done.code)));
        if (trace.is_some() || logged)
            && let Ok(question) = read(packet, Transport::Udp)
        {
            if let Some(trace) = trace {
                trace.answered(&answered(&question, client, done.code, since));
            }
            if logged {
                self.log.put(line(Some(&question), client, since, (Some(done.code), reply.len())));
            }
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
        let live = self.live.load();
        let over = |question, by, code, size| {
            self.over(&live, Over { question, transport, client, since, by, code, size });
        };
        let question = match read(packet, transport) {
            Ok(question) => question,
            Err(Refusal::Ignore) => {
                self.metrics.ignored();
                return Outcome::Nothing;
            }
            Err(Refusal::Reply(reply, code)) => {
                over(None, By::Upstream, Some(code), reply.len());
                return Outcome::Reply(reply);
            }
        };
        let trace = Trace::by_chance(self.traced);
        match resolve(&self.zone.load(), &live.rules, &question, client.ip()) {
            Resolved::Own(by, code, sections) => {
                let reply = question.reply(code, true, sections);
                over(Some(&question), by, Some(code), reply.len());
                if let Some(trace) = trace {
                    trace.answered(&answered(&question, client, code, since));
                }
                Outcome::Reply(reply)
            }
            Resolved::Ask { aliases, name, back } => {
                Outcome::Later(Box::new(Pending { question, aliases, name, back, client, since, trace }))
            }
            Resolved::Nothing => {
                over(Some(&question), By::Acl, None, 0);
                Outcome::Nothing
            }
        }
    }

    /// Asks an upstream resolver. The reply always comes, and in bounded time.
    pub async fn finish(&self, pending: Box<Pending>) -> Vec<u8> {
        let Pending { question, aliases, name, back, client, since, trace } = *pending;
        let query = question.upstream_query(&name, rand::random());
        let avoid = self.zone.load().dns_addresses().to_vec();
        let by = if aliases.is_empty() { By::Upstream } else { By::Zone };
        let live = self.live.load_full();
        let (code, reply) = match live.forwarder.ask(&query, &avoid, trace.as_ref()).await {
            Ok(reply) => conclude(&question, (aliases, &name, back), reply),
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
        let (transport, size) = (question.transport, reply.len());
        let over = Over { question: Some(&question), transport, client, since, by, code: Some(code), size };
        self.over(&live, over);
        if let Some(trace) = trace {
            trace.answered(&answered(&question, client, code, since));
        }
        reply
    }

    /// Counts and logs a question that is over.
    fn over(&self, live: &Live, over: Over<'_>) {
        let Over { question, transport, client, since, by, code, size } = over;
        if let Some(code) = code {
            let rtype = question.map(|question| question.rtype);
            self.metrics.seen(Seen { transport, client, rtype, by, code, took: since.elapsed() });
        }
        if by == By::Acl {
            self.metrics.denied(match code {
                None => "Drop",
                Some(ResponseCode::Refused) => "Block",
                Some(_) => "Filter",
            });
        }
        if live.logged.wants(code) {
            self.log.put(Line { transport, ..line(question, client, since, (code, size)) });
        }
    }
}

/// A question that is over.
#[derive(Clone, Copy)]
struct Over<'a> {
    /// `None` where it could not be read.
    question: Option<&'a Question>,
    transport: Transport,
    client: SocketAddr,
    since: Instant,
    by: By,
    /// `None` where it got no answer.
    code: Option<ResponseCode>,
    /// Of the answer, in bytes.
    size: usize,
}

fn line(
    question: Option<&Question>,
    client: SocketAddr,
    since: Instant,
    (code, size): (Option<ResponseCode>, usize),
) -> Line {
    let transport = question.map_or(Transport::Udp, |question| question.transport);
    let asked = question.map(|question| (question.name.clone(), question.rtype));
    Line { client, asked, code, transport, took: since.elapsed(), size }
}

fn answered(question: &Question, client: SocketAddr, code: ResponseCode, since: Instant) -> Answered<'_> {
    let Question { name, rtype, transport, .. } = question;
    Answered { name, rtype: *rtype, code, transport: *transport, client, since }
}

/// What rules and zone make of a question.
enum Resolved {
    /// The whole answer: whose it is, its code and its answer, authority and additional records.
    Own(By, ResponseCode, [Vec<Record>; 3]),
    /// These aliases, and what an upstream resolver says of the name they lead to.
    Ask { aliases: Vec<Record>, name: Name, back: Option<bool> },
    /// No answer.
    Nothing,
}

impl Resolved {
    /// The same after a rewrite of `asked`: where answers carry that name, it takes the place of the other one.
    fn rewritten(self, to: &Rewritten, asked: &Name) -> Self {
        let restored = |mut records: Vec<Record>| {
            if to.back {
                restore(&mut records, &to.name, asked);
            }
            records
        };
        match self {
            Self::Own(by, code, sections) => Self::Own(by, code, sections.map(restored)),
            Self::Ask { aliases, name, .. } => {
                Self::Ask { aliases: restored(aliases), name, back: Some(to.back) }
            }
            Self::Nothing => Self::Nothing,
        }
    }
}

/// Puts the name that was asked for in the place of the one that was asked for instead.
fn restore(records: &mut [Record], from: &Name, to: &Name) {
    records.iter_mut().filter(|record| record.name == *from).for_each(|record| record.name.clone_from(to));
}

/// Answers from rules and zone, for the name that a rewrite makes of the one that is asked for.
fn resolve(zone: &Zone, rules: &Rules, question: &Question, client: IpAddr) -> Resolved {
    let Question { name, rtype, .. } = question;
    if let Some(denied) = denied(rules.verdict(client, name, *rtype), vec![]) {
        return denied;
    }
    match rules.rewrite(name) {
        None => follow_aliases(zone, rules, name.clone(), (*rtype, client)),
        Some(Ok(to)) => follow_aliases(zone, rules, to.name.clone(), (*rtype, client)).rewritten(&to, name),
        Some(Err(Impossible)) => failure(By::Rewrite, ResponseCode::ServFail),
    }
}

/// What the ACL makes of a question that it does not allow, with the aliases up to there.
fn denied(verdict: Verdict, aliases: Vec<Record>) -> Option<Resolved> {
    match verdict {
        Verdict::Allow => None,
        Verdict::Block => Some(failure(By::Acl, ResponseCode::Refused)),
        Verdict::Filter => Some(Resolved::Own(By::Acl, ResponseCode::NoError, [aliases, vec![], vec![]])),
        Verdict::Drop => Some(Resolved::Nothing),
    }
}

fn failure(by: By, code: ResponseCode) -> Resolved {
    Resolved::Own(by, code, [vec![], vec![], vec![]])
}

/// Answers from rules and zone, following aliases as far as they stay in them. Who may not ask for a name is not led to it by an alias.
fn follow_aliases(
    zone: &Zone,
    rules: &Rules,
    mut name: Name,
    (rtype, client): (RecordType, IpAddr),
) -> Resolved {
    let mut aliases = vec![];
    while aliases.len() < ALIASES {
        let (by, answer) = match rules.answer(zone, &name, rtype) {
            Some(Told { by, answer: Ok(answer) }) => (by, answer),
            Some(Told { by, answer: Err(code) }) => return failure(by, code),
            None => (By::Zone, answer(zone, &name, rtype)),
        };
        match answer {
            Answer::Records { mut answers, additionals } => {
                if matches!(rtype, RecordType::A | RecordType::AAAA) {
                    answers.shuffle(&mut rand::rng()); // clients tend to take the first
                }
                aliases.extend(answers);
                return Resolved::Own(by, ResponseCode::NoError, [aliases, vec![], additionals]);
            }
            Answer::Alias { cname, target } => {
                aliases.push(cname);
                if matches!(rtype, RecordType::CNAME | RecordType::ANY) {
                    return Resolved::Own(by, ResponseCode::NoError, [aliases, vec![], vec![]]);
                }
                name = target;
                if let Some(denied) = denied(rules.verdict(client, &name, rtype), aliases.clone()) {
                    return denied;
                }
            }
            Answer::NoData(soa) => {
                return Resolved::Own(by, ResponseCode::NoError, [aliases, vec![soa], vec![]]);
            }
            Answer::NxDomain(soa) => {
                return Resolved::Own(by, ResponseCode::NXDomain, [aliases, vec![soa], vec![]]);
            }
            Answer::Refused => return failure(by, ResponseCode::Refused),
            Answer::Failure => return failure(by, ResponseCode::ServFail),
            Answer::Forward => return Resolved::Ask { aliases, name, back: None },
        }
    }
    failure(By::Zone, ResponseCode::ServFail)
}

/// The client's reply, made of that of an upstream resolver for `name`; see [`Pending`].
fn conclude(
    question: &Question,
    (aliases, name, back): (Vec<Record>, &Name, Option<bool>),
    reply: Vec<u8>,
) -> (ResponseCode, Vec<u8>) {
    match back {
        _ if !aliases.is_empty() => follow(question, aliases, &reply),
        None => (ResponseCode::from(0, reply.get(3).map_or(2, |byte| byte & 0x0f)), question.relay(reply)),
        Some(back) => {
            let Ok(mut reply) = Message::from_vec(&reply) else {
                return (ResponseCode::ServFail, question.error(ResponseCode::ServFail));
            };
            if back {
                restore(&mut reply.answers, name, &question.name);
                restore(&mut reply.authorities, name, &question.name);
            }
            let code = reply.metadata.response_code;
            (code, question.reply(code, false, [reply.answers, reply.authorities, reply.additionals]))
        }
    }
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
