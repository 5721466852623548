//! Upstream resolvers that lead back to this cluster's DNS, straight or through others. Each is asked for a name that no other server
//! knows an answer to, as CoreDNS's plugin `loop` does; but any server of the cluster answers it, so that the one that asked learns
//! which way leads back. That resolver is left out while it does; nothing ends.

mod probe;

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::join_all;
use hickory_proto::rr::rdata::HINFO;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use netkeel_crds::cluster_network::Dns;
use netkeel_crds::cluster_network::dns::Protocol;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::live::{Base, Live};
use crate::metrics::Metrics;

/// First label of the names that are asked for.
const LABEL: &str = "netkeel-loop";
/// What a server of the cluster answers: the CPU and system of an HINFO record, which nobody else holds.
const MARK: [&str; 2] = ["netkeel-dns", "loop"];
/// How long an upstream resolver has to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks while no upstream leads back: somebody may change what it asks itself.
const REST: Duration = Duration::from_mins(5);
/// The same while one does.
const AGAIN: Duration = Duration::from_secs(30);

/// What is known of loops. Clones share it.
#[derive(Clone, Debug)]
pub struct Loops {
    /// A label that all servers of the cluster have in common, and no others.
    cluster: Arc<ArcSwap<String>>,
    /// Labels of questions of this server that have not been answered yet.
    asked: Arc<Mutex<HashSet<String>>>,
    /// Those that came back to this server itself.
    returned: Arc<Mutex<HashSet<String>>>,
    out: Arc<ArcSwap<Vec<Target>>>,
}

/// Who no question may be sent to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Avoid {
    /// Addresses of the cluster's own DNS.
    own: Vec<IpAddr>,
    /// Upstream resolvers that lead back.
    out: Arc<Vec<Target>>,
}

impl Avoid {
    /// Whether the resolver at `address` is not asked for names of `zone`, as [`zone`] writes it.
    pub(crate) fn has(&self, zone: &str, address: SocketAddr) -> bool {
        self.own.contains(&address.ip())
            || self.out.iter().any(|out| out.address == address && out.zone == zone)
    }
}

impl Default for Loops {
    fn default() -> Self {
        Self {
            cluster: Arc::new(ArcSwap::from_pointee(label())),
            asked: Arc::default(),
            returned: Arc::default(),
            out: Arc::default(),
        }
    }
}

impl Loops {
    /// Names the cluster: all its servers must do so alike.
    pub(crate) fn identify(&self, cluster: &str) {
        self.cluster.store(Arc::new(cluster.to_ascii_lowercase()));
    }

    /// The answer to a question of a server of this cluster that looks for loops.
    pub(crate) fn answer(&self, name: &Name, rtype: RecordType) -> Option<Record> {
        let mut labels = name.iter();
        let ours = rtype == RecordType::HINFO
            && labels.next()?.eq_ignore_ascii_case(LABEL.as_bytes())
            && labels.next()?.eq_ignore_ascii_case(self.cluster.load().as_bytes());
        if !ours {
            return None;
        }
        let label = String::from_utf8_lossy(labels.next()?).to_ascii_lowercase();
        if locked(&self.asked).contains(&label) {
            locked(&self.returned).insert(label);
        }
        let [cpu, os] = MARK.map(str::to_owned);
        Some(Record::from_rdata(name.clone(), 0, RData::HINFO(HINFO::new(cpu, os))))
    }

    /// Who no question may be sent to: the cluster's DNS at its `own` addresses, and upstream resolvers that lead back.
    pub(crate) fn avoid(&self, own: &[IpAddr]) -> Avoid {
        Avoid { own: own.to_vec(), out: self.out.load_full() }
    }

    /// Asks an upstream resolver whether it leads back. `None` where it does not say.
    async fn leads_back(&self, Target { address, zone }: &Target) -> Option<bool> {
        let label = label();
        let name = format!("{LABEL}.{}.{label}.{zone}", self.cluster.load());
        let name = Name::from_ascii(name).ok()?;
        locked(&self.asked).insert(label.clone());
        let answered = probe::ask(*address, &name, PATIENCE).await;
        locked(&self.asked).remove(&label);
        if locked(&self.returned).remove(&label) {
            return Some(true);
        }
        answered.ok().map(|answers| answers.iter().any(is_marked))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One that nobody can guess; never all digits, which some resolvers take for an address.
fn label() -> String {
    format!("x{:016x}", rand::random::<u64>())
}

fn is_marked(record: &Record) -> bool {
    matches!(&record.data, RData::HINFO(info) if [&*info.cpu, &*info.os] == MARK.map(str::as_bytes))
}

/// The zone of a stub domain with a dot at its end; nothing for all names.
pub(crate) fn zone(stub: Option<&str>) -> String {
    stub.map(|stub| format!("{}.", stub.trim_end_matches('.'))).unwrap_or_default()
}

/// A resolver to look at, and the zone that it is asked for, as [`zone`] writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    address: SocketAddr,
    zone: String,
}

/// All resolvers that `dns` asks in the clear. An encrypted way cannot lead back unseen: it ends at a server with a certificate.
fn targets(base: &Base, dns: &Dns) -> Vec<Target> {
    let clear = |protocol| matches!(protocol, Protocol::UDP | Protocol::TCP);
    let of_all = base.upstreams(dns).into_iter().map(|address| Target { address, zone: zone(None) });
    let of_stubs = dns.stub_domains.iter().filter(|stub| clear(stub.forwarding.protocol)).flat_map(|stub| {
        let zone = zone(Some(&stub.zone));
        stub.upstreams.iter().map(move |upstream| Target {
            address: upstream.at(stub.forwarding.protocol.port()),
            zone: zone.clone(),
        })
    });
    of_all.filter(|_| clear(dns.forwarding.protocol)).chain(of_stubs).collect()
}

/// Who is left out after a look: one that does not say stays as it was, and one that is not asked any more is forgotten.
fn judge(before: &[Target], seen: &[(Target, Option<bool>)]) -> Vec<Target> {
    let is_out = |(target, leads_back): &&(Target, Option<bool>)| {
        leads_back.unwrap_or_else(|| before.contains(target))
    };
    seen.iter().filter(is_out).map(|(target, _)| target.clone()).collect()
}

/// Looks for loops for ever: at once, when what the servers are told changes, and now and then.
pub(crate) async fn look(
    loops: Loops,
    base: Base,
    live: Arc<ArcSwap<Live>>,
    mut told: watch::Receiver<u64>,
    metrics: Metrics,
) {
    loop {
        told.borrow_and_update();
        let targets = targets(&base, &live.load().dns);
        let seen = join_all(targets.into_iter().map(async |target| {
            let leads_back = loops.leads_back(&target).await;
            (target, leads_back)
        }));
        let seen = seen.await;
        let out = judge(&loops.out.load(), &seen);
        tell(&loops.out.load(), &out, &seen, &metrics);
        let rest = if out.is_empty() { REST } else { AGAIN };
        loops.out.store(Arc::new(out));
        tokio::select! {
            changed = told.changed() => if changed.is_err() { return },
            () = sleep(rest) => {}
        }
    }
}

/// The metric has one verdict for an address, whatever the zones are.
fn tell(before: &[Target], out: &[Target], seen: &[(Target, Option<bool>)], metrics: &Metrics) {
    let verdicts: BTreeMap<SocketAddr, bool> = seen
        .iter()
        .map(|(Target { address, .. }, _)| (*address, out.iter().any(|out| out.address == *address)))
        .collect();
    metrics.lasting().upstream_loops(verdicts.into_iter());
    for (target, _) in seen {
        let Target { address: upstream, zone } = target;
        match (before.contains(target), out.contains(target)) {
            (false, true) => {
                tracing::error!(
                    %upstream, zone,
                    "an upstream resolver leads back to this cluster's DNS and is left out: take the cluster's DNS out of its \
                     configuration, or name others in spec.dns.upstreams"
                );
            }
            (true, false) => {
                tracing::info!(%upstream, zone, "an upstream resolver does not lead back any more and is asked again");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
