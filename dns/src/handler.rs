//! From a packet to its reply: names of the cluster are answered at once from the current zone, the others
//! are asked upstream. Knows packets and the zone, no sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use hickory_proto::op::ResponseCode;
use netkeel_crds::cluster_network::SearchPath;

use crate::fast;
use crate::forward::Error;
use crate::limit::{Client, Limits, share::Permit};
use crate::live::Live;
use crate::loops::{Avoid, Loops};
use crate::message::{Question, Refusal, Transport, read};
use crate::metrics::{By, Common, Metrics, Reason, Seen};
use crate::plain;
use crate::querylog::{Line, QueryLog};
use crate::resolve::{Ask, Resolved, conclude, resolve};
use crate::status;
use crate::traced::{Answered, Trace};
use crate::zone::Zone;

/// Failures of upstream resolvers are told once in this time; the metrics count all.
const TELL: Duration = Duration::from_secs(30);

/// Answers packets. Clones share everything.
#[derive(Clone, Debug)]
pub struct Handler {
    zone: Arc<ArcSwap<Zone>>,
    live: Arc<ArcSwap<Live>>,
    metrics: Metrics,
    loops: Loops,
    limits: Arc<Limits>,
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
    ask: Ask,
    /// What is asked, as answers are kept.
    key: Vec<u8>,
    client: SocketAddr,
    since: Instant,
    trace: Option<Trace>,
}

impl Handler {
    /// A handler of the zone and of what is told, as they are at each moment.
    #[must_use]
    pub fn new(zone: Arc<ArcSwap<Zone>>, live: Arc<ArcSwap<Live>>, metrics: Metrics) -> Self {
        let (limits, log) = (Arc::new(Limits::new(metrics.clone())), QueryLog::new(metrics.log_drops()));
        let (loops, told) = (Loops::default(), Arc::new(Seldom::new()));
        Self { zone, live, metrics, loops, limits, told, log, traced: 0.0 }
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

    /// The same with lines of the query log handed to `writer`.
    #[cfg(test)]
    pub(crate) fn logging_to(self, writer: fn(Line)) -> Self {
        Self { log: QueryLog::to(self.metrics.log_drops(), writer), ..self }
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

    /// A place among the questions under way to the resolvers that this one is put to, to be held until its reply is there; `None` where
    /// its client has too many.
    pub(crate) fn place(&self, pending: &Pending) -> Option<Permit> {
        let place = self.live.load().forwarder.place(&pending.key, Client::of(pending.client.ip()));
        if place.is_none() {
            self.limits.count(Reason::UnderWay, 1);
            self.metrics.rejected();
        }
        place
    }

    /// The reply to a question that is not put to a resolver: what is kept and over, as far as that may be given, is better than none.
    pub(crate) fn refuse(&self, pending: &Pending) -> Vec<u8> {
        let Pending { question, ask, key, client, since, .. } = pending;
        let live = self.live.load();
        let (by, (code, reply)) = if let Some(given) = live.forwarder.over(key) {
            let by = if ask.aliases.is_empty() { By::Cache } else { By::Zone };
            (by, conclude(question, ask.clone(), given.bytes(usize::from(rand::random::<u16>()))))
        } else {
            let by = if ask.aliases.is_empty() { By::Upstream } else { By::Zone };
            (by, (ResponseCode::Refused, question.error(ResponseCode::Refused)))
        };
        let (transport, client, since, size) = (question.transport, *client, *since, reply.len());
        let over = Over { question: Some(question), transport, client, since, by, code: Some(code), size };
        self.over(&live, over);
        reply
    }

    /// Upstream resolvers that are this cluster's DNS, or lead to it.
    fn avoid(&self, zone: &Zone) -> Avoid {
        self.loops.avoid(zone.dns_addresses())
    }

    /// Answers a datagram into `reply` where that is quickly done and no rule decides it, and else leaves `reply` empty: see [`Handler::start`].
    /// Replies with several addresses begin with another one each `turn`; it came at `since`. What is answered is not counted yet.
    pub(crate) fn quick(
        &self,
        zone: &Zone,
        live: &Live,
        (packet, client): (&[u8], SocketAddr),
        (turn, since): (usize, Instant),
        reply: &mut Vec<u8>,
    ) -> Option<fast::Answered> {
        reply.clear();
        let mut plain = plain::Question::read(packet)?;
        let done = match plain.below(zone.domain()) {
            Some(apex) => {
                let done = fast::answer(zone, &mut plain, (apex, turn), reply)?;
                let searched = done.code == ResponseCode::NXDomain && searches(live);
                if searched || live.rules.touch(packet, client.ip(), done.rtype) {
                    reply.clear();
                    return None;
                }
                done
            }
            None => live.cached(&plain, (turn, since), || self.avoid(zone), reply)?,
        };
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
        if let Some(reply) = status::answer(packet) {
            return Outcome::Reply(reply.to_vec());
        }
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
        if let Some(answer) = self.loops.answer(&question.name, question.rtype) {
            let reply = question.reply(ResponseCode::NoError, true, [vec![answer], vec![], vec![]]);
            over(Some(&question), By::Zone, Some(ResponseCode::NoError), reply.len());
            return Outcome::Reply(reply);
        }
        let trace = Trace::by_chance(self.traced);
        let zone = self.zone.load();
        match resolve(&zone, &live.rules, &question, (client.ip(), searches(&live))) {
            Resolved::Own(by, code, sections) => {
                let own = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
                let reply = question.reply(code, own, sections);
                over(Some(&question), by, Some(code), reply.len());
                if let Some(trace) = trace {
                    trace.answered(&answered(&question, client, code, since));
                }
                Outcome::Reply(reply)
            }
            Resolved::Ask(ask) => {
                let key = question.key(&ask.name);
                let Some(given) = live.known(&key, since, || self.avoid(&zone)) else {
                    return Outcome::Later(Box::new(Pending { question, ask, key, client, since, trace }));
                };
                let by = if ask.aliases.is_empty() { By::Cache } else { By::Zone };
                let (code, reply) = conclude(&question, ask, given.bytes(usize::from(rand::random::<u16>())));
                over(Some(&question), by, Some(code), reply.len());
                if let Some(trace) = trace {
                    trace.answered(&answered(&question, client, code, since));
                }
                Outcome::Reply(reply)
            }
            Resolved::Nothing => {
                over(Some(&question), By::Acl, None, 0);
                Outcome::Nothing
            }
        }
    }

    /// Asks an upstream resolver. The reply always comes, and in bounded time.
    pub async fn finish(&self, pending: Box<Pending>) -> Vec<u8> {
        let Pending { question, ask, key, client, since, trace } = *pending;
        let avoid = self.avoid(&self.zone.load());
        let by = if ask.aliases.is_empty() { By::Upstream } else { By::Zone };
        let live = self.live.load_full();
        let (code, reply) = match live.forwarder.ask(&key, &avoid, trace.as_ref()).await {
            Ok(given) => conclude(&question, ask, given.bytes(usize::from(rand::random::<u16>()))),
            Err(error) => {
                if self.told.now(TELL) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(name = %ask.name, error, "a name outside the cluster cannot be resolved");
                }
                let code = if matches!(error, Error::Busy(_)) {
                    ResponseCode::Refused
                } else {
                    ResponseCode::ServFail
                };
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

/// Whether the search lists of pods are tried here.
fn searches(live: &Live) -> bool {
    live.dns.search_path == SearchPath::ServerSide
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
