//! Resolvers that are asked for the same names, and how they have been doing. One that has failed twice in a row rests: it is asked after
//! the others, and probed until it answers, so that it is back within a second. When all rest they are asked all the same.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use netkeel_crds::cluster_network::dns::{self, Forwarding, Protocol};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Error;
use super::dial::{Dial, Tls};
use super::exchange::by_datagram;
use super::lines::Lines;
use super::pick;
use super::web::Web;
use crate::cache::key;
use crate::cache::reply::{Bounds, Reply};
use crate::loops::{Avoid, zone};
use crate::metrics::Metrics;
use crate::traced::Trace;
use crate::wire::TRUNCATED;

/// Tries at least, where one resolver fails to answer: a datagram may be lost.
const TRIES: usize = 3;
/// No try begins later than this: clients give up after five seconds.
const PATIENCE: Duration = Duration::from_secs(4);
/// Failures in a row after which a resolver rests.
const FAILURES: u32 = 2;
/// From one probe to the next, and how long a reply to one is waited for: time enough to connect over TLS.
const PROBE: Duration = Duration::from_millis(400);
const PROBE_LASTS: Duration = Duration::from_millis(1200);
/// The question of a probe: `. NS`, which any resolver knows.
const PROBED: [u8; 4] = [0, 0, 2, 0];
const FORMAT_ERROR: u8 = 1;

/// Resolvers, and how they are asked.
#[derive(Debug)]
pub(crate) struct Group {
    /// Whose names it is asked for.
    zone: String,
    addresses: Vec<SocketAddr>,
    forwarding: Forwarding,
    /// The same for groups that give the same answers.
    origin: u64,
    members: Vec<Member>,
    permits: Arc<Semaphore>,
    turn: AtomicUsize,
    metrics: Metrics,
}

#[derive(Debug)]
struct Member {
    address: SocketAddr,
    way: Way,
    failures: AtomicU32,
    rests: AtomicBool,
}

#[derive(Debug)]
enum Way {
    /// Datagrams, and connections for replies that do not fit one.
    Datagrams(Lines),
    Connections(Lines),
    Web(Web),
}

impl Group {
    /// A group of the resolvers of `stub`, or of all names, at `addresses`. With `tls` their certificates are judged.
    pub(crate) fn new(
        (stub, addresses): (Option<&str>, Vec<SocketAddr>),
        forwarding: &Forwarding,
        tls: Option<&Tls>,
        metrics: &Metrics,
    ) -> Self {
        let member = |address: &SocketAddr| {
            let dial = Dial { address: *address, tls: tls.cloned() };
            let name = forwarding.tls_server_name.as_deref().unwrap_or_default();
            let way = match forwarding.protocol {
                Protocol::UDP => Way::Datagrams(Lines::new(dial)),
                Protocol::TCP | Protocol::TLS => Way::Connections(Lines::new(dial)),
                Protocol::HTTPS => Way::Web(Web::new(dial, name, &forwarding.https_path)),
            };
            Member { address: *address, way, failures: AtomicU32::new(0), rests: AtomicBool::new(false) }
        };
        let mut origin = DefaultHasher::new();
        let Forwarding { protocol, tls_server_name, https_path, ca_certificates, .. } = forwarding;
        (&addresses, protocol, tls_server_name, https_path, ca_certificates).hash(&mut origin);
        Self {
            zone: zone(stub),
            members: addresses.iter().map(member).collect(),
            addresses,
            forwarding: forwarding.clone(),
            origin: origin.finish(),
            permits: Arc::new(Semaphore::new(usize::try_from(forwarding.max_concurrent).unwrap_or(1))),
            turn: AtomicUsize::new(0),
            metrics: metrics.clone(),
        }
    }

    /// Whether it is what would be made of these.
    pub(crate) fn is_of(&self, addresses: &[SocketAddr], forwarding: &Forwarding) -> bool {
        self.addresses == addresses && self.forwarding == *forwarding
    }

    pub(crate) fn origin(&self) -> u64 {
        self.origin
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether none of them has answered of late.
    pub(crate) fn is_down(&self) -> bool {
        self.members.iter().all(|member| member.rests.load(Ordering::Relaxed))
    }

    /// Leave to ask one question.
    pub(crate) fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let busy = |_| Error::Busy(self.forwarding.max_concurrent);
        self.permits.clone().try_acquire_owned().map_err(busy)
    }

    /// The reply to the question that `key` says. Resolvers that `avoid` has are this server itself, or lead back to it.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        key: &[u8],
        avoid: &Avoid,
        trace: Option<&Trace>,
        bounds: &Bounds,
    ) -> Result<Reply, Error> {
        let order = self.order(avoid);
        let (latest, mut result) = (Instant::now() + PATIENCE, Err(Error::NoUpstream));
        let tries = order.len().max(TRIES);
        for (number, index) in order.iter().cycle().take(tries).enumerate() {
            let (member, began) = (&self.members[*index], Instant::now());
            if number > 0 && began >= latest {
                break;
            }
            let end = began + self.limit(number, began, latest);
            let others = number + 1 < order.len();
            let replied = self.one(*index, key, end, bounds).await;
            if let Some(trace) = trace {
                trace.asked(member.address, began.into_std(), replied.as_ref().err());
            }
            match replied {
                Ok(reply) if others && self.fails_over(&reply) => result = Ok(reply),
                Ok(reply) => return Ok(reply),
                Err(source) if result.is_err() => {
                    result = Err(Error::Exchange { address: member.address, source: Arc::new(source) });
                }
                Err(_) => {}
            }
            if result.is_ok() && !others {
                break;
            }
        }
        result
    }

    /// How long a try may last.
    fn limit(&self, number: usize, now: Instant, latest: Instant) -> Duration {
        let whole = Duration::from_millis(self.forwarding.timeout_milliseconds.into());
        if number == 0 { whole } else { whole.min(latest.saturating_duration_since(now)) }
    }

    fn order(&self, avoid: &Avoid) -> Vec<usize> {
        let rests: Vec<bool> =
            self.members.iter().map(|member| member.rests.load(Ordering::Relaxed)).collect();
        if !rests.is_empty() && rests.iter().all(|rests| *rests) {
            self.metrics.all_upstreams_rest();
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut order = pick::order(self.forwarding.policy, &rests, turn, &mut rand::rng());
        order.retain(|index| !avoid.has(&self.zone, self.members[*index].address));
        order
    }

    /// Whether another one may know better.
    fn fails_over(&self, reply: &Reply) -> bool {
        use dns::ResponseCode::{FormErr, NXDomain, NoError, NotImp, Refused, ServFail};
        let number = |code: &dns::ResponseCode| match code {
            NoError => 0,
            FormErr => 1,
            ServFail => 2,
            NXDomain => 3,
            NotImp => 4,
            Refused => 5,
        };
        self.forwarding.failover.iter().any(|code| number(code) == reply.code())
    }

    async fn one(
        self: &Arc<Self>,
        index: usize,
        key: &[u8],
        end: Instant,
        bounds: &Bounds,
    ) -> io::Result<Reply> {
        let (member, began) = (&self.members[index], Instant::now());
        let result = member.ask(key, end, bounds).await;
        if let Ok(reply) = &result {
            member.is_well();
            self.metrics.upstream_reply(member.address, reply.code(), began.elapsed());
        } else {
            self.metrics.upstream_failure(member.address);
            if member.fails() {
                tokio::spawn(probe(Arc::downgrade(self), index));
            }
        }
        result
    }
}

impl Member {
    async fn ask(&self, key: &[u8], end: Instant, bounds: &Bounds) -> io::Result<Reply> {
        let read = |packet: &[u8]| {
            let damaged = || io::Error::new(ErrorKind::InvalidData, "the reply cannot be read");
            Reply::read(packet, &key::question(key), bounds).ok_or_else(damaged)
        };
        let reply = self.exchange(&key::query(key, rand::random(), true), end).await?;
        if reply[3] & 0x0f != FORMAT_ERROR {
            return read(&reply);
        }
        // a resolver that does not know EDNS (RFC 6891 section 7)
        read(&self.exchange(&key::query(key, rand::random(), false), end).await?)
    }

    async fn exchange(&self, query: &[u8], end: Instant) -> io::Result<Vec<u8>> {
        match &self.way {
            Way::Datagrams(lines) => {
                let late = |_| Err(ErrorKind::TimedOut.into());
                let reply = timeout_at(end, by_datagram(self.address, query)).await.unwrap_or_else(late)?;
                if reply[2] & TRUNCATED == 0 {
                    return Ok(reply);
                }
                // a resolver that cuts and takes no connection has still said something
                Ok(lines.ask(query, end).await.unwrap_or(reply))
            }
            Way::Connections(lines) => lines.ask(query, end).await,
            Way::Web(web) => web.ask(query, end).await,
        }
    }

    fn is_well(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.rests.store(false, Ordering::Relaxed);
    }

    /// Notes a failure. True when it rests from now on.
    fn fails(&self) -> bool {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES
            && !self.rests.swap(true, Ordering::Relaxed)
    }
}

/// Asks a resolver that rests until it answers, whatever it says, or its group is gone. A probe does not wait for the one before.
async fn probe(group: Weak<Group>, index: usize) {
    let mut asked = FuturesUnordered::new();
    loop {
        let next = Instant::now() + PROBE;
        match group.upgrade() {
            Some(group) if group.members[index].rests.load(Ordering::Relaxed) => {
                asked.push(answers(group, index));
            }
            _ => return,
        }
        while let Ok(Some(answered)) = timeout_at(next, asked.next()).await {
            if answered {
                return;
            }
        }
        sleep_until(next).await;
    }
}

/// Whether a resolver answers a probe.
async fn answers(group: Arc<Group>, index: usize) -> bool {
    let member = &group.members[index];
    let end = Instant::now() + PROBE_LASTS;
    if member.exchange(&key::query(&PROBED, rand::random(), false), end).await.is_err() {
        group.metrics.probe_failure(member.address);
        return false;
    }
    tracing::info!(upstream = %member.address, "a resolver answers again");
    member.is_well();
    true
}

#[cfg(test)]
mod tests {
    use netkeel_telemetry::metrics::Registry;

    use super::*;
    use crate::loops::Loops;

    #[test]
    fn a_resolver_that_is_this_server_itself_is_not_asked() {
        let addresses = ["10.0.0.1:53", "10.96.0.10:53"].map(|text| text.parse().unwrap());
        let metrics = Metrics::new(&Registry::new("dns", "0"), addresses[0], "cluster.local.");
        let group = |stub| Group::new((stub, addresses.to_vec()), &Forwarding::default(), None, &metrics);
        let own = Loops::default().avoid(&[[10, 96, 0, 10].into()]);
        for _ in 0..10 {
            assert_eq!(group(None).order(&own), [0]);
            assert_eq!(group(Some("corp.example")).order(&own), [0]);
        }
        assert_eq!(group(None).order(&Avoid::default()).len(), 2);
    }
}
