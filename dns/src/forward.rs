//! Names outside the cluster: what is kept of them, and else the resolvers of the zone that they lie in, asked in bounded time. Equal
//! questions that are under way at a time are one. A question under way goes on as it began when `spec.dns` changes.

mod dial;
mod exchange;
mod group;
mod lines;
mod pick;
pub mod upstreams;
mod web;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::BinEncodable;
use netkeel_crds::cluster_network::dns::{self, Forwarding, StaleMode};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use crate::cache::reply::{Bounds, Kind, Told};
use crate::cache::{Age, Cache, Entry, Given, key};
use crate::loops::Avoid;
use crate::metrics::Metrics;
use crate::traced::Trace;
use dial::Tls;
pub use dial::TlsError;
pub(crate) use exchange::Datagrams;
use group::Group;

/// How long the resolvers are waited for where there is an answer that is over (RFC 8767 section 5).
const STALE: Duration = Duration::from_millis(1800);
const NO_ERROR: u8 = 0;
const NX_DOMAIN: u8 = 3;

/// Why there is no reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No upstream, or only this server itself.
    #[error("no upstream resolver to ask: set spec.dns.upstreams, or name servers in the node's resolv.conf")]
    NoUpstream,
    /// Too much under way.
    #[error(
        "{0} questions to upstream resolvers are under way: spec.dns.forwarding.maxConcurrent allows no more"
    )]
    Busy(u32),
    /// The last try failed.
    #[error("upstream resolver {address} does not answer")]
    Exchange {
        /// Who was asked.
        address: SocketAddr,
        /// What went wrong.
        #[source]
        source: Arc<std::io::Error>,
    },
}

/// Resolvers as they are told: those of a zone, or of all names that no zone has.
#[derive(Clone, Debug)]
pub(crate) struct Upstreams {
    pub(crate) zone: Option<String>,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) forwarding: Forwarding,
}

/// The groups of resolvers, and the cache in front of them.
#[derive(Debug)]
pub(crate) struct Forwarder {
    all: Arc<Group>,
    /// By the zone's name as it is in packets, in lower case.
    zones: HashMap<Box<[u8]>, Arc<Group>>,
    fetcher: Arc<Fetcher>,
}

/// What came of a question.
type Fetched = Option<Result<Arc<Entry>, Error>>;

/// A question under way: its key, and where its group is in memory, which stays there until it is over.
type Flight = (Box<[u8]>, usize);

/// Asks, and keeps what comes.
#[derive(Debug)]
struct Fetcher {
    cache: Option<Arc<Cache>>,
    told: dns::Cache,
    bounds: Bounds,
    /// Questions under way.
    flights: Mutex<HashMap<Flight, watch::Receiver<Fetched>>>,
    /// Where fetches run that a thread of datagrams begins.
    runtime: Option<Handle>,
    metrics: Metrics,
}

impl Forwarder {
    /// A forwarder as it is told. What is `before` is taken over as far as it stays the same: resolvers with their connections, and the cache.
    pub(crate) fn new(
        told: Vec<Upstreams>,
        cache: &dns::Cache,
        before: Option<&Self>,
        metrics: &Metrics,
    ) -> Self {
        let (mut all, mut zones) = (None, HashMap::new());
        for Upstreams { zone, addresses, forwarding } in told {
            let name = zone.as_deref().and_then(wire);
            let old = before.and_then(|before| match &name {
                None => Some(&before.all),
                Some(name) => before.zones.get(name),
            });
            let group = group(zone.as_deref(), addresses, &forwarding, old, metrics);
            match (zone, name) {
                (None, _) => all = Some(group),
                (Some(_), Some(name)) => drop(zones.insert(name, group)),
                (Some(zone), None) => tracing::error!(zone, "no name of a zone: it is passed over"),
            }
        }
        let fetcher = Fetcher {
            cache: Cache::new(
                cache,
                before.and_then(|before| before.fetcher.cache.as_ref()),
                metrics.caching(),
            ),
            told: cache.clone(),
            bounds: Bounds::of(cache),
            flights: Mutex::default(),
            runtime: Handle::try_current().ok(),
            metrics: metrics.clone(),
        };
        let all = all.unwrap_or_else(|| group(None, vec![], &Forwarding::default(), None, metrics));
        Self { all, zones, fetcher: Arc::new(fetcher) }
    }

    /// What is kept of the question under `key` and can be given at once; [`Forwarder::gives`] is to be told if it is.
    pub(crate) fn known(&self, key: &[u8], now: Instant) -> Option<Given> {
        let Fetcher { cache, told, .. } = &*self.fetcher;
        let (cache, group) = (cache.as_ref()?, self.group(key));
        let (entry, time) = (cache.get(key, group.origin())?, cache.time(now));
        match entry.age(time, crate::cache::stale(told)) {
            Age::Fresh(age) => Some(Given { entry, told: Told::Aged(age) }),
            Age::Stale => {
                let waits = told.serve_stale.mode == StaleMode::Verify && !group.is_down();
                (entry.rests(time) || !waits).then(|| self.fetcher.stale(entry))
            }
            Age::Dead => None,
        }
    }

    /// Counts what is given of the question under `key`, and fetches it anew for the next time where that is due, not from those who `avoid`
    /// names.
    pub(crate) fn gives(&self, key: &[u8], given: &Given, now: Instant, avoid: impl FnOnce() -> Avoid) {
        let Fetcher { cache, told, metrics, .. } = &*self.fetcher;
        let (Some(cache), Given { entry, told: as_what }) = (cache, given) else { return };
        let (group, time) = (self.group(key), cache.time(now));
        metrics.caching().looked_up(Some(entry.reply.kind() != Kind::Positive));
        match as_what {
            Told::Aged(_) if told.prefetch && entry.hit(time) => {
                if self.fetcher.refresh(key, group, avoid) {
                    metrics.caching().prefetched();
                } else {
                    entry.not_fetched();
                }
            }
            Told::Aged(_) => {}
            Told::Stale(_) => {
                metrics.caching().stale();
                if !entry.rests(time) {
                    self.fetcher.refresh(key, group, avoid);
                }
            }
        }
    }

    /// What is kept of the question under `key` and over, where no resolver can be asked.
    pub(crate) fn over(&self, key: &[u8]) -> Option<Given> {
        let over = self.fetcher.over(key, self.group(key).origin())?;
        self.fetcher.metrics.caching().stale();
        Some(self.fetcher.stale(over))
    }

    /// What a resolver says to the question under `key`.
    ///
    /// # Errors
    /// Nobody to ask, too much under way, or no reply in time.
    pub(crate) async fn ask(&self, key: &[u8], avoid: &Avoid, trace: Option<&Trace>) -> Result<Given, Error> {
        let (fetcher, group) = (&self.fetcher, self.group(key));
        let over = fetcher.over(key, group.origin());
        let fetch = async {
            let (mut flight, _permit) = fetcher.join(key, group, avoid, trace.cloned())?;
            let landed = flight.wait_for(Option::is_some).await.map_err(|_| Error::NoUpstream)?;
            landed.clone().unwrap_or(Err(Error::NoUpstream))
        };
        let told = match &over {
            None => fetch.await.map(Some),
            Some(_) => timeout(STALE, fetch).await.map_or(Ok(None), |told| told.map(Some)),
        };
        match (told, over) {
            (Ok(Some(entry)), None) => Ok(Given { entry, told: Told::Aged(0) }),
            (Ok(Some(entry)), Some(_)) if says(&entry) => Ok(Given { entry, told: Told::Aged(0) }),
            (_, Some(over)) => {
                fetcher.metrics.caching().stale();
                Ok(fetcher.stale(over))
            }
            (Err(error), None) => {
                if matches!(error, Error::Busy(_)) {
                    fetcher.metrics.rejected();
                }
                Err(error)
            }
            (Ok(None), None) => Err(Error::NoUpstream),
        }
    }

    /// Counts that the cache was asked and had no answer.
    pub(crate) fn misses(&self) {
        if let Some(cache) = &self.fetcher.cache {
            cache.metrics().looked_up(None);
        }
    }

    /// Keeps a reply as if it had come from a resolver at `now`.
    #[cfg(test)]
    pub(crate) fn keep(&self, key: &[u8], packet: &[u8], now: Instant) {
        use crate::cache::reply::Reply;
        let Fetcher { cache: Some(cache), told, bounds, .. } = &*self.fetcher else { return };
        let reply = Reply::read(packet, &key::question(key), bounds).unwrap();
        let time = cache.time(now);
        let entry = Entry::new(key, self.group(key).origin(), reply, time);
        cache.put(Arc::new(entry), time, crate::cache::stale(told));
    }

    /// Whether names in no zone can be asked for.
    pub(crate) fn has_upstreams(&self) -> bool {
        !self.all.is_empty()
    }

    /// The resolvers of the longest zone that the name lies in.
    fn group(&self, key: &[u8]) -> &Arc<Group> {
        let mut name = key::name(key);
        while !self.zones.is_empty() && !name.is_empty() {
            if let Some(group) = self.zones.get(name) {
                return group;
            }
            name = name.get(usize::from(name[0]) + 1..).unwrap_or_default();
        }
        &self.all
    }
}

/// The group as it is told; the old one where it is the same. One that cannot speak TLS as it is told has nobody to ask: its names must
/// not be asked in another way.
fn group(
    zone: Option<&str>,
    addresses: Vec<SocketAddr>,
    forwarding: &Forwarding,
    old: Option<&Arc<Group>>,
    metrics: &Metrics,
) -> Arc<Group> {
    if let Some(old) = old.filter(|old| old.is_of(&addresses, forwarding)) {
        return old.clone();
    }
    match Tls::new(forwarding) {
        Ok(tls) => Arc::new(Group::new((zone, addresses), forwarding, tls.as_ref(), metrics)),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(zone, error, "resolvers cannot be asked over TLS: their names are not resolved");
            Arc::new(Group::new((zone, vec![]), &Forwarding::default(), None, metrics))
        }
    }
}

/// The name of a zone as it is in packets.
fn wire(zone: &str) -> Option<Box<[u8]>> {
    let mut name = Name::from_ascii(zone).ok()?.to_lowercase();
    name.set_fqdn(true);
    name.to_bytes().ok().map(Vec::into)
}

/// Whether a reply says something of the name.
fn says(entry: &Entry) -> bool {
    matches!(entry.reply.code(), NO_ERROR | NX_DOMAIN)
}

impl Fetcher {
    /// Begins to fetch anew. False where that cannot be now.
    fn refresh(self: &Arc<Self>, key: &[u8], group: &Arc<Group>, avoid: impl FnOnce() -> Avoid) -> bool {
        let Some(runtime) = &self.runtime else { return false };
        let _entered = runtime.enter();
        self.join(key, group, &avoid(), None).is_ok()
    }

    /// Asks, or waits for the same question that is under way. The permit is to be held as long as it is waited for.
    fn join(
        self: &Arc<Self>,
        key: &[u8],
        group: &Arc<Group>,
        avoid: &Avoid,
        trace: Option<Trace>,
    ) -> Result<(watch::Receiver<Fetched>, Option<OwnedSemaphorePermit>), Error> {
        let permit = group.permit()?;
        let id = (Box::from(key), Arc::as_ptr(group).addr());
        let (told, flight) = watch::channel(None);
        {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(flight) = flights.get(&id) {
                return Ok((flight.clone(), Some(permit)));
            }
            flights.insert(id.clone(), flight.clone());
        }
        let (fetcher, group, avoid) = (self.clone(), group.clone(), avoid.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let result = fetcher.fetch(&id.0, &group, &avoid, trace.as_ref()).await;
            fetcher.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            told.send_replace(Some(result));
        });
        Ok((flight, None))
    }

    /// Asks, and keeps the answer. A failure takes no place of an answer that can still be given.
    async fn fetch(
        &self,
        key: &[u8],
        group: &Arc<Group>,
        avoid: &Avoid,
        trace: Option<&Trace>,
    ) -> Result<Arc<Entry>, Error> {
        let reply = group.ask(key, avoid, trace, &self.bounds).await;
        let now = self.cache.as_ref().map_or(0, |cache| cache.time(Instant::now()));
        let entry = reply.map(|reply| Arc::new(Entry::new(key, group.origin(), reply, now)));
        let Some(cache) = &self.cache else { return entry };
        let stale = crate::cache::stale(&self.told);
        match &entry {
            Ok(entry) if says(entry) && entry.lasts() => cache.put(entry.clone(), now, stale),
            Ok(entry) if says(entry) => {}
            _ => match (cache.get(key, group.origin()), &entry) {
                (Some(old), _) if old.age(now, stale) != Age::Dead => old.failed(now),
                (_, Ok(failure)) if failure.lasts() => cache.put(failure.clone(), now, stale),
                _ => {}
            },
        }
        entry
    }

    /// The answer under `key` that is over and can be given all the same.
    fn over(&self, key: &[u8], origin: u64) -> Option<Arc<Entry>> {
        let cache = self.cache.as_ref()?;
        let entry = cache.get(key, origin)?;
        (entry.age(cache.time(Instant::now()), crate::cache::stale(&self.told)) == Age::Stale)
            .then_some(entry)
    }

    fn stale(&self, entry: Arc<Entry>) -> Given {
        Given { entry, told: Told::Stale(self.told.serve_stale.response_ttl_seconds) }
    }
}
