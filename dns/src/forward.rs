//! Asks the upstream resolvers, in bounded time: UDP first, TCP where the reply was cut, another upstream
//! where one is silent or refuses. Replies are taken only from the address that was asked, with the id
//! and the question that were sent, from a port of its own for each question.

mod exchange;
pub mod upstreams;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use rand::seq::SliceRandom;
use tokio::sync::Semaphore;

use crate::metrics::Metrics;
use crate::traced::Trace;

/// How long each try may last; the sum bounds a question.
const TRIES: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_millis(1500), Duration::from_millis(1500)];
/// Questions under way at most; more are refused.
const CONCURRENT: usize = 1000;
/// An upstream that failed this often in a row is asked last, for `REST`.
const FAILURES: u32 = 2;
const REST: Duration = Duration::from_secs(5);

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No upstream, or only this server itself.
    #[error("no upstream resolver to ask: set spec.dns.upstreams, or name servers in the node's resolv.conf")]
    NoUpstream,
    /// Too much under way.
    #[error("{CONCURRENT} questions to upstream resolvers are under way")]
    Busy,
    /// The last try failed.
    #[error("upstream resolver {address} does not answer")]
    Exchange {
        /// Who was asked.
        address: SocketAddr,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
}

/// The upstream resolvers and how they have been doing.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: Vec<Upstream>,
    permits: Semaphore,
    started: Instant,
    metrics: Metrics,
}

#[derive(Debug)]
struct Upstream {
    address: SocketAddr,
    failures: AtomicU32,
    /// Milliseconds after `started` until which it is asked last.
    rests_until: AtomicU64,
}

impl Forwarder {
    /// A forwarder to `addresses`.
    #[must_use]
    pub fn new(addresses: &[SocketAddr], metrics: Metrics) -> Self {
        let upstream =
            |address: &SocketAddr| Upstream { address: *address, failures: 0.into(), rests_until: 0.into() };
        let upstreams = addresses.iter().map(upstream).collect();
        Self { upstreams, permits: Semaphore::new(CONCURRENT), started: Instant::now(), metrics }
    }

    /// The reply to `query`, as bytes. Upstreams at the addresses in `avoid` are this server itself.
    ///
    /// # Errors
    /// Nobody to ask, too much under way, or no reply in time.
    pub(crate) async fn ask(
        &self,
        query: &Message,
        avoid: &[IpAddr],
        trace: Option<&Trace>,
    ) -> Result<Vec<u8>, Error> {
        let Ok(_permit) = self.permits.try_acquire() else {
            self.metrics.rejected();
            return Err(Error::Busy);
        };
        let order = self.order(avoid);
        let mut result = Err(Error::NoUpstream);
        for (number, (upstream, limit)) in order.iter().cycle().zip(TRIES).enumerate() {
            let others = number + 1 < order.len();
            let began = Instant::now();
            let replied = self.one(upstream, query, limit).await;
            if let Some(trace) = trace {
                trace.asked(upstream.address, began, replied.as_ref().err());
            }
            match replied {
                Ok(reply) if others && is_refusal(&reply) => result = Ok(reply),
                Ok(reply) => return Ok(reply),
                Err(source) if result.is_err() => {
                    result = Err(Error::Exchange { address: upstream.address, source });
                }
                Err(_) => {}
            }
            if result.is_ok() && !others {
                break;
            }
        }
        result
    }

    /// Whom to ask, in this order: in turn by chance, those that failed of late at the end.
    fn order(&self, avoid: &[IpAddr]) -> Vec<&Upstream> {
        let now = self.now();
        let mut order: Vec<&Upstream> =
            self.upstreams.iter().filter(|upstream| !avoid.contains(&upstream.address.ip())).collect();
        order.shuffle(&mut rand::rng());
        order.sort_by_key(|upstream| upstream.rests_until.load(Ordering::Relaxed) > now);
        order
    }

    async fn one(&self, upstream: &Upstream, query: &Message, limit: Duration) -> std::io::Result<Vec<u8>> {
        let started = Instant::now();
        let result = exchange::exchange(upstream.address, query, limit).await;
        if let Ok(reply) = &result {
            upstream.failures.store(0, Ordering::Relaxed);
            upstream.rests_until.store(0, Ordering::Relaxed);
            self.metrics.upstream_reply(upstream.address, code(reply), started.elapsed());
        } else {
            self.metrics.upstream_failure(upstream.address);
            if upstream.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
                let rest = u64::try_from(REST.as_millis()).unwrap_or(0);
                upstream.rests_until.store(self.now() + rest, Ordering::Relaxed);
            }
        }
        result
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }
}

/// The response code of a reply's header.
fn code(reply: &[u8]) -> ResponseCode {
    ResponseCode::from(0, reply.get(3).map_or(2, |byte| byte & 0x0f))
}

/// Whether another upstream may know better.
fn is_refusal(reply: &[u8]) -> bool {
    matches!(code(reply), ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp)
}
