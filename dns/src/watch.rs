//! From events of the API server to the published zone. One task owns the zone that is written; readers
//! get a clone of it after each batch of events. The zone stays as it is while the API server is gone.

mod changes;

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::{Stream, StreamExt};
use netkeel_client::{Event, Undecodable, give_back};
use netkeel_crds::cluster_network::Dns;
use tokio::sync::watch;

pub use changes::{Change, SeenNamespace, SeenNetwork, SeenPod, SeenService, SeenSlice, changes};

use crate::live::{Base, Live, follows_pods};
use crate::loops::Loops;
use crate::metrics::Metrics;
use crate::snapshot::Contents;
use crate::zone::{ObjectKey, PodKey, Zone};

/// Events taken at once before the zone is published.
const BATCH: usize = 256;

/// Writes the zone.
#[derive(Debug)]
pub struct Follower {
    zone: Zone,
    published: Arc<ArcSwap<Zone>>,
    metrics: Metrics,
    base: Base,
    live: Arc<ArcSwap<Live>>,
    /// The newest `spec.dns` of the ClusterNetwork, in force or not.
    newest: Option<Dns>,
    /// Whether it is not.
    refused: bool,
    /// Whether all Services, all slices, the ClusterNetwork, and all namespaces have been seen once.
    complete: [bool; 4],
    synced: watch::Sender<bool>,
    /// Whether pods are followed.
    pods: watch::Sender<bool>,
    /// As it was last seen.
    network: Option<SeenNetwork>,
    /// How often that has changed.
    networks: watch::Sender<u64>,
    loops: Loops,
    contents: watch::Sender<Option<Arc<Contents>>>,
}

impl Follower {
    /// A follower that starts from `zone` and from what is told at the start. What it makes of the changes is found at [`Follower::published`]
    /// and [`Follower::live`]. `follows` says whether there will be changes of a ClusterNetwork.
    #[must_use]
    pub fn new(zone: Zone, (base, live): (Base, Live), follows: bool, metrics: Metrics) -> Self {
        let published = Arc::new(ArcSwap::from_pointee(zone.clone()));
        let pods = watch::Sender::new(follows_pods(&live.dns));
        let live = Arc::new(ArcSwap::from_pointee(live));
        let complete = [false, false, !follows, false];
        let (synced, contents) = (watch::Sender::new(false), watch::Sender::new(None));
        let (network, networks, loops) = (None, watch::Sender::new(0), Loops::default());
        Self {
            zone,
            published,
            metrics,
            base,
            live,
            newest: None,
            refused: false,
            complete,
            synced,
            pods,
            network,
            networks,
            loops,
            contents,
        }
    }

    /// Holds to what the last server knew of the ClusterNetwork.
    pub(crate) fn remember(&mut self, network: Option<SeenNetwork>) {
        if let Some(network) = network
            && self.hold(network)
        {
            self.published.store(Arc::new(self.zone.clone()));
        }
        self.metrics.zone(self.zone.services(), self.zone.serial());
    }

    /// The zone as it is at each moment.
    #[must_use]
    pub fn published(&self) -> Arc<ArcSwap<Zone>> {
        self.published.clone()
    }

    /// What is told, as it is at each moment.
    #[must_use]
    pub fn live(&self) -> Arc<ArcSwap<Live>> {
        self.live.clone()
    }

    /// Turns true once the zone holds everything there was, and stays so.
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// Whether changes of pods are wanted, as it is at each moment.
    #[must_use]
    pub fn pods(&self) -> watch::Receiver<bool> {
        self.pods.subscribe()
    }

    /// What is known of loops of questions; the other says when to look for them anew.
    pub(crate) fn loops(&self) -> (Loops, watch::Receiver<u64>) {
        (self.loops.clone(), self.networks.subscribe())
    }

    /// All that is known, for the next server in this pod: nothing before it is complete, and then as it is after each change.
    pub(crate) fn contents(&self) -> watch::Receiver<Option<Arc<Contents>>> {
        self.contents.subscribe()
    }

    /// Follows `changes` to their end.
    pub async fn follow(mut self, changes: impl Stream<Item = Change> + Send) {
        let mut batches = std::pin::pin!(changes.ready_chunks(BATCH));
        while let Some(batch) = batches.next().await {
            let (serial, networks) = (self.zone.serial(), *self.networks.borrow());
            let has_list = batch.iter().any(Change::is_list);
            for change in batch {
                self.apply(change);
            }
            let edited = self.zone.serial() != serial;
            if edited {
                self.published.store(Arc::new(self.zone.clone()));
            }
            if has_list {
                give_back();
            }
            self.metrics.zone(self.zone.services(), self.zone.serial());
            if self.complete != [true; 4] {
                continue;
            }
            let first = !self.synced.send_replace(true);
            if first {
                self.metrics.lasting().serving_from_snapshot(false);
                tracing::info!(services = self.zone.services(), "the zone is complete");
            }
            if first || edited || *self.networks.borrow() != networks {
                let contents = Contents { zone: self.zone.clone(), network: self.network.clone() };
                self.contents.send_replace(Some(Arc::new(contents)));
            }
        }
    }

    fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Service(event) => self.service(*event),
            Change::Slice(event) => self.slice(*event),
            Change::Namespace(event) => self.namespace(*event),
            Change::Network(event) => self.network(*event),
            Change::Pod(event) => self.pod(*event),
        }
    }

    fn service(&mut self, event: Event<SeenService>) -> bool {
        self.metrics.event("service", name(&event));
        match event {
            Event::Reset { objects, undecodable } => {
                self.complete[0] = true;
                let external = |SeenService { service, external }: &SeenService| {
                    Some((service.as_ref()?.0.clone(), *external.clone()?))
                };
                self.zone.reset_externals(objects.iter().filter_map(external).collect(), &keys(&undecodable));
                let all = objects.into_iter().filter_map(|seen| seen.service);
                self.zone.reset_services(all.collect(), &keys(&undecodable))
            }
            Event::Apply(SeenService { service, external }) => service.is_some_and(|(key, service)| {
                let outside = self.zone.put_external(&key, external.map(|external| *external));
                self.zone.put_service(&key, service) || outside
            }),
            Event::Delete { namespace, name } => namespace.is_some_and(|namespace| {
                let key = ObjectKey::new(&namespace, &name);
                let outside = self.zone.put_external(&key, None);
                self.zone.remove_service(&key) || outside
            }),
            Event::Undecodable(object) => {
                key(&object).is_some_and(|key| self.zone.put_unreadable_service(&key))
            }
        }
    }

    fn namespace(&mut self, event: Event<SeenNamespace>) -> bool {
        self.metrics.event("namespace", name(&event));
        match event {
            Event::Reset { objects, undecodable } => {
                self.complete[3] = true;
                let unread = undecodable.into_iter().map(|object| object.name);
                let all: BTreeSet<String> =
                    objects.into_iter().map(|SeenNamespace(name)| name).chain(unread).collect();
                self.zone.reset_namespaces(&all)
            }
            Event::Apply(SeenNamespace(name)) | Event::Undecodable(Undecodable { name, .. }) => {
                self.zone.put_namespace(&name)
            }
            Event::Delete { name, .. } => self.zone.remove_namespace(&name),
        }
    }

    /// A network that goes, or cannot be read, leaves in force what it said.
    fn network(&mut self, event: Event<SeenNetwork>) -> bool {
        self.metrics.event("clusternetwork", name(&event));
        let network = match event {
            Event::Reset { objects, undecodable } => {
                self.complete[2] = true;
                if !undecodable.is_empty() {
                    self.metrics.config_rejected(true);
                }
                objects.into_iter().next()
            }
            Event::Apply(network) => Some(network),
            Event::Undecodable(_) => {
                self.metrics.config_rejected(true);
                None
            }
            Event::Delete { .. } => None,
        };
        let taken = network.is_some_and(|network| self.hold(network));
        self.metrics.config_rejected(self.refused);
        taken
    }

    fn hold(&mut self, network: SeenNetwork) -> bool {
        if self.network.as_ref() == Some(&network) {
            return false;
        }
        self.network = Some(network.clone());
        let SeenNetwork { uid, dns, pods } = network;
        if let Some(uid) = uid {
            self.loops.identify(&uid);
        }
        if self.newest.as_ref() != Some(&dns) {
            self.refused = !self.take(dns.clone());
            self.newest = Some(dns);
        }
        self.networks.send_modify(|count| *count += 1);
        let dns = self.live.load().dns.clone();
        self.follow_pods(follows_pods(&dns));
        self.zone.set_settings(self.base.settings(&dns, pods))
    }

    /// Puts `dns` in force and returns true. Where it cannot be used, the last good one stays; where there is none yet, what can be used
    /// of it is.
    fn take(&self, dns: Dns) -> bool {
        if self.live.load().dns == dns {
            return true;
        }
        let before = self.live.load();
        match before.next(dns.clone(), &self.base, &self.metrics) {
            Ok(live) => {
                tracing::info!("spec.dns has changed");
                self.live.store(Arc::new(live));
                return true;
            }
            Err(mistake) if self.newest.is_none() => {
                tracing::error!(%mistake, "spec.dns cannot be used as it is: what is wrong is left out");
                if let Ok(live) = before.rest(dns, &self.base, &self.metrics) {
                    self.live.store(Arc::new(live));
                }
            }
            Err(mistake) => {
                tracing::error!(%mistake, "spec.dns cannot be used: the last good one stays in force");
            }
        }
        false
    }

    fn follow_pods(&mut self, wanted: bool) {
        if self.pods.send_replace(wanted) && !wanted {
            self.zone.forget_pods();
            give_back();
        }
    }

    fn pod(&mut self, event: Event<SeenPod>) -> bool {
        if !*self.pods.borrow() {
            return false; // it was under way when they ceased to be followed
        }
        self.metrics.event("pod", name(&event));
        let key = |object: &Undecodable| Some(PodKey::new(object.namespace.as_deref()?, &object.name));
        match event {
            Event::Reset { objects, undecodable } => {
                let all = objects.into_iter().filter_map(|SeenPod(pod)| pod);
                let unreadable: Vec<PodKey> = undecodable.iter().filter_map(key).collect();
                self.zone.reset_pods(all, &unreadable)
            }
            Event::Apply(SeenPod(pod)) => pod.is_some_and(|pod| self.zone.put_pod(&pod)),
            Event::Delete { namespace, name } => {
                namespace.is_some_and(|namespace| self.zone.remove_pod(PodKey::new(&namespace, &name)))
            }
            Event::Undecodable(_) => false, // what was known of it stays in force
        }
    }

    fn slice(&mut self, event: Event<SeenSlice>) -> bool {
        self.metrics.event("endpointslice", name(&event));
        match event {
            Event::Reset { objects, undecodable } => {
                self.complete[1] = true;
                let all = objects.into_iter().filter_map(|SeenSlice(slice)| {
                    let (key, slice) = slice?;
                    let (service, endpoints) = slice?;
                    Some((key, service, endpoints))
                });
                self.zone.reset_slices(all.collect(), &keys(&undecodable))
            }
            Event::Apply(SeenSlice(slice)) => slice.is_some_and(|(key, slice)| match slice {
                Some((service, endpoints)) => self.zone.put_slice(&key, &service, endpoints),
                None => self.zone.remove_slice(&key),
            }),
            Event::Delete { namespace, name } => {
                namespace.is_some_and(|namespace| self.zone.remove_slice(&ObjectKey::new(&namespace, &name)))
            }
            Event::Undecodable(_) => false, // what was known of it stays in force
        }
    }
}

fn key(object: &Undecodable) -> Option<ObjectKey> {
    Some(ObjectKey::new(object.namespace.as_deref()?, &object.name))
}

fn keys(objects: &[Undecodable]) -> Vec<ObjectKey> {
    objects.iter().filter_map(key).collect()
}

/// The `event` label.
fn name<K>(event: &Event<K>) -> &'static str {
    match event {
        Event::Reset { .. } => "reset",
        Event::Apply(_) => "apply",
        Event::Delete { .. } => "delete",
        Event::Undecodable(_) => "undecodable",
    }
}
