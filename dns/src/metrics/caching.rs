//! What the cache tells, under the names of CoreDNS.

use netkeel_telemetry::metrics::{Counter, Gauge, Labels, Registry};

/// CoreDNS's names of answers that there is something, and that there is nothing.
const TYPES: [&str; 2] = ["success", "denial"];

/// What is counted of the cache: by the two types where it is an array. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Caching {
    entries: [Gauge; 2],
    hits: [Counter; 2],
    evictions: [Counter; 2],
    requests: Counter,
    misses: Counter,
    stale: Counter,
    prefetches: Counter,
}

impl Caching {
    pub(super) fn new(registry: &Registry, server: &str) -> Self {
        const COMMON: [&str; 3] = ["server", "zones", "view"];
        const TYPED: [&str; 4] = ["server", "type", "zones", "view"];
        let common = || -> Labels {
            vec![("server", server.to_owned()), ("zones", ".".to_owned()), ("view", String::new())]
        };
        let typed = |kind: &str| -> Labels {
            let rest = common().into_iter().skip(1);
            [("server", server.to_owned()), ("type", kind.to_owned())].into_iter().chain(rest).collect()
        };
        let counter = |name: &str, help: &str| {
            let family = registry.counters(&format!("coredns_cache_{name}"), help, &COMMON);
            family.get_or_create(&common()).clone()
        };
        let counters = |name: &str, help: &str| {
            let family = registry.counters(&format!("coredns_cache_{name}"), help, &TYPED);
            TYPES.map(|kind| family.get_or_create(&typed(kind)).clone())
        };
        let entries = registry.gauges("coredns_cache_entries", "Answers of resolvers that are kept", &TYPED);
        Self {
            entries: TYPES.map(|kind| entries.get_or_create(&typed(kind)).clone()),
            hits: counters("hits", "Questions answered from the cache"),
            evictions: counters("evictions", "Answers dropped from the cache for want of room"),
            requests: counter(
                "requests",
                "Questions for names outside the cluster that the cache was asked for",
            ),
            misses: counter("misses", "Questions that the cache had no answer to"),
            stale: counter("served_stale", "Answers given after their end: the resolvers had none"),
            prefetches: counter("prefetch", "Answers fetched anew before their end"),
        }
    }

    /// So many answers came, less those that went, and so many of those for want of room.
    pub(crate) fn moved(&self, added: [i64; 2], evicted: [u64; 2]) {
        for (gauge, added) in self.entries.iter().zip(added).filter(|(_, added)| *added != 0) {
            gauge.inc_by(added);
        }
        for (counter, evicted) in self.evictions.iter().zip(evicted).filter(|(_, evicted)| *evicted > 0) {
            counter.inc_by(evicted);
        }
    }

    /// The cache was asked. `found` says whether the answer was that there is nothing.
    pub(crate) fn looked_up(&self, found: Option<bool>) {
        self.requests.inc();
        match found {
            Some(denial) => self.hits[usize::from(denial)].inc(),
            None => self.misses.inc(),
        };
    }

    pub(crate) fn stale(&self) {
        self.stale.inc();
    }

    pub(crate) fn prefetched(&self) {
        self.prefetches.inc();
    }
}
