//! From events of the API server to the published zone. One task owns the zone that is written; readers
//! get a clone of it after each batch of events. The zone stays as it is while the API server is gone.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::{Stream, StreamExt, stream};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use kube::{Api, Client};
use netkeel_client::{Event, Undecodable};
use netkeel_crds::ClusterNetwork;
use netkeel_crds::cluster_network::Dns;
use tokio::sync::watch;

use crate::live::{Base, Live};
use crate::metrics::Metrics;
use crate::object;
use crate::zone::{self, ObjectKey, Zone};

/// Events taken at once before the zone is published.
const BATCH: usize = 256;

/// Slices that are asked for at once: a page of them is held as objects of the API, each a hundred endpoints long.
const PAGE: u32 = 50;

/// An event of any kind of object. Of an object only what it means for the zone is kept, also while a list comes in.
#[derive(Clone, Debug)]
pub enum Change {
    /// Of a Service.
    Service(Box<Event<SeenService>>),
    /// Of a slice of endpoints.
    Slice(Box<Event<SeenSlice>>),
    /// Of the ClusterNetwork.
    Network(Box<Event<SeenNetwork>>),
}

/// What a Service means for the zone. One without a key, which the API server never sends, means nothing.
#[derive(Clone, Debug)]
pub struct SeenService(Option<(ObjectKey, zone::Service)>);

impl SeenService {
    fn read(service: &Service) -> Self {
        Self(object::key(&service.metadata).map(|key| (key, object::service(service))))
    }
}

/// What a slice means for the zone: its key, its Service and the endpoints, where it has those.
#[derive(Clone, Debug)]
pub struct SeenSlice(Option<(ObjectKey, Option<(String, zone::Slice)>)>);

impl SeenSlice {
    fn read(slice: &EndpointSlice) -> Self {
        Self(object::key(&slice.metadata).map(|key| (key, object::slice(slice))))
    }
}

/// What the ClusterNetwork says to DNS servers.
#[derive(Clone, Debug)]
pub struct SeenNetwork {
    dns: Dns,
    /// Ranges of pods.
    pods: Vec<IpNet>,
}

impl SeenNetwork {
    fn read(network: &ClusterNetwork) -> Self {
        let pools = &network.spec.pod_network.pools;
        Self {
            dns: network.spec.dns.clone(),
            pods: pools.iter().flat_map(|pool| pool.cidrs.clone()).collect(),
        }
    }
}

/// The changes that the API server tells, for ever; those of the ClusterNetwork `network`, too, where it has a name.
pub fn changes(client: &Client, network: Option<&str>) -> impl Stream<Item = Change> + Send + use<> {
    let config = watcher::Config::default;
    let read = |service: Service| SeenService::read(&service);
    let services = netkeel_client::watch_as(Api::all(client.clone()), config(), read)
        .map(|event| Change::Service(Box::new(event)));
    let read = |slice: EndpointSlice| SeenSlice::read(&slice);
    let slices = netkeel_client::watch_as(Api::all(client.clone()), config().page_size(PAGE), read)
        .map(|event| Change::Slice(Box::new(event)));
    let network = network.map_or_else(
        || stream::pending().boxed(),
        |name| {
            let config = config().fields(&format!("metadata.name={name}"));
            let read = |network: ClusterNetwork| SeenNetwork::read(&network);
            let events = netkeel_client::watch_as(Api::all(client.clone()), config, read);
            events.map(|event| Change::Network(Box::new(event))).boxed()
        },
    );
    stream::select(stream::select(services.boxed(), slices.boxed()), network)
}

/// Writes the zone.
#[derive(Debug)]
pub struct Follower {
    zone: Zone,
    published: Arc<ArcSwap<Zone>>,
    metrics: Metrics,
    base: Base,
    live: Arc<ArcSwap<Live>>,
    /// Whether all Services, all slices, and the ClusterNetwork have been seen once.
    complete: [bool; 3],
    synced: watch::Sender<bool>,
}

impl Follower {
    /// A follower that starts from `zone` and from what is told at the start. What it makes of the changes is found at [`Follower::published`]
    /// and [`Follower::live`]. `follows` says whether there will be changes of a ClusterNetwork.
    #[must_use]
    pub fn new(zone: Zone, (base, live): (Base, Live), follows: bool, metrics: Metrics) -> Self {
        let published = Arc::new(ArcSwap::from_pointee(zone.clone()));
        let live = Arc::new(ArcSwap::from_pointee(live));
        let complete = [false, false, !follows];
        Self { zone, published, metrics, base, live, complete, synced: watch::Sender::new(false) }
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

    /// Follows `changes` to their end.
    pub async fn follow(mut self, changes: impl Stream<Item = Change> + Send) {
        let mut batches = std::pin::pin!(changes.ready_chunks(BATCH));
        while let Some(batch) = batches.next().await {
            let serial = self.zone.serial();
            for change in batch {
                self.apply(change);
            }
            if self.zone.serial() != serial {
                self.published.store(Arc::new(self.zone.clone()));
            }
            self.metrics.zone(self.zone.services(), self.zone.serial());
            if self.complete == [true; 3] && !self.synced.send_replace(true) {
                tracing::info!(services = self.zone.services(), "the zone is complete");
            }
        }
    }

    fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Service(event) => self.service(*event),
            Change::Slice(event) => self.slice(*event),
            Change::Network(event) => self.network(*event),
        }
    }

    fn service(&mut self, event: Event<SeenService>) -> bool {
        self.metrics.event("service", name(&event));
        match event {
            Event::Reset { objects, undecodable } => {
                self.complete[0] = true;
                let all = objects.into_iter().filter_map(|SeenService(service)| service);
                self.zone.reset_services(all.collect(), &keys(&undecodable))
            }
            Event::Apply(SeenService(service)) => {
                service.is_some_and(|(key, service)| self.zone.put_service(&key, service))
            }
            Event::Delete { namespace, name } => namespace
                .is_some_and(|namespace| self.zone.remove_service(&ObjectKey::new(&namespace, &name))),
            Event::Undecodable(object) => {
                key(&object).is_some_and(|key| self.zone.put_unreadable_service(&key))
            }
        }
    }

    /// A network that goes, or cannot be read, leaves in force what it said.
    fn network(&mut self, event: Event<SeenNetwork>) -> bool {
        self.metrics.event("clusternetwork", name(&event));
        let network = match event {
            Event::Reset { objects, .. } => {
                self.complete[2] = true;
                objects.into_iter().next()
            }
            Event::Apply(network) => Some(network),
            Event::Delete { .. } | Event::Undecodable(_) => None,
        };
        let Some(SeenNetwork { dns, pods }) = network else { return false };
        if self.live.load().dns != dns {
            tracing::info!("spec.dns has changed");
            let next = self.live.load().next(dns.clone(), &self.base, &self.metrics);
            self.live.store(Arc::new(next));
        }
        self.zone.set_settings(self.base.settings(&dns, pods))
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
