//! What the API server tells, as a stream: of each object only what it means for the zone.

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use kube::{Api, Client};
use netkeel_client::{Event, Signs};
use netkeel_crds::ClusterNetwork;
use netkeel_crds::cluster_network::Dns;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::object;
use crate::pod::SlimPod;
use crate::zone::{self, External, ObjectKey, Pod};

/// Slices that are asked for at once where lists are not streamed: a page of them is held as objects of the API, each a hundred endpoints long.
const PAGE: u32 = 50;

/// Pods that are asked for at once, likewise.
const POD_PAGE: u32 = 200;

/// An event of any kind of object. Of an object only what it means for the zone is kept, also while a list comes in.
#[derive(Clone, Debug)]
pub enum Change {
    /// Of a Service.
    Service(Box<Event<SeenService>>),
    /// Of a slice of endpoints.
    Slice(Box<Event<SeenSlice>>),
    /// Of a namespace.
    Namespace(Box<Event<SeenNamespace>>),
    /// Of the ClusterNetwork.
    Network(Box<Event<SeenNetwork>>),
    /// Of a pod, while pods are followed.
    Pod(Box<Event<SeenPod>>),
}

impl Change {
    /// Whether it brings all objects of a kind.
    pub(super) fn is_list(&self) -> bool {
        match self {
            Self::Service(event) => matches!(**event, Event::Reset { .. }),
            Self::Slice(event) => matches!(**event, Event::Reset { .. }),
            Self::Network(_) | Self::Namespace(_) => false,
            Self::Pod(event) => matches!(**event, Event::Reset { .. }),
        }
    }
}

/// What a pod means for the zone.
#[derive(Clone, Debug)]
pub struct SeenPod(pub(super) Option<Pod>);

impl SeenPod {
    /// Reads a pod.
    #[must_use]
    pub fn read(pod: &SlimPod) -> Self {
        Self(pod.read())
    }
}

/// What a Service means for the zone. One without a key, which the API server never sends, means nothing.
#[derive(Clone, Debug)]
pub struct SeenService {
    pub(super) service: Option<(ObjectKey, zone::Service)>,
    /// Where it is found from outside; most are not.
    pub(super) external: Option<Box<External>>,
}

impl SeenService {
    /// Reads a Service.
    #[must_use]
    pub fn read(service: &Service) -> Self {
        Self {
            service: object::key(&service.metadata).map(|key| (key, object::service(service))),
            external: object::external(service).map(Box::new),
        }
    }
}

/// What a slice means for the zone: its key, its Service and the endpoints, where it has those.
#[derive(Clone, Debug)]
pub struct SeenSlice(pub(super) Option<(ObjectKey, Option<(String, zone::PackedSlice)>)>);

impl SeenSlice {
    /// Reads a slice.
    #[must_use]
    pub fn read(slice: &EndpointSlice) -> Self {
        Self(object::key(&slice.metadata).map(|key| (key, object::slice(slice))))
    }
}

/// The name of a namespace.
#[derive(Clone, Debug)]
pub struct SeenNamespace(pub(super) String);

impl SeenNamespace {
    fn read(namespace: &Namespace) -> Self {
        Self(namespace.metadata.name.clone().unwrap_or_default())
    }
}

/// What the ClusterNetwork says to DNS servers.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct SeenNetwork {
    /// Equal in all servers of a cluster, and in no other cluster.
    pub(super) uid: Option<String>,
    pub(super) dns: Dns,
    /// Ranges of pods.
    pub(super) pods: Vec<IpNet>,
}

impl SeenNetwork {
    pub(crate) fn read(network: &ClusterNetwork) -> Self {
        let pools = &network.spec.pod_network.pools;
        Self {
            uid: network.metadata.uid.clone(),
            dns: network.spec.dns.clone(),
            pods: pools.iter().flat_map(|pool| pool.cidrs.clone()).collect(),
        }
    }
}

/// The changes that the API server tells, for ever; those of the ClusterNetwork `network`, too, where it has a name, and those of pods
/// while `pods` says so. `signs` says when it was last heard.
pub fn changes(
    client: &Client,
    network: Option<&str>,
    pods: watch::Receiver<bool>,
    signs: &Signs,
) -> impl Stream<Item = Change> + Send + use<> {
    let config = watcher::Config::default;
    let read = |service: Service| SeenService::read(&service);
    let services = netkeel_client::watch_as(Api::all(signs.attend(client)), config(), read)
        .map(|event| Change::Service(Box::new(event)));
    let read = |slice: EndpointSlice| SeenSlice::read(&slice);
    let slices = netkeel_client::watch_as(Api::all(signs.attend(client)), config().page_size(PAGE), read)
        .map(|event| Change::Slice(Box::new(event)));
    let network = network.map_or_else(
        || stream::pending().boxed(),
        |name| {
            let config = config().fields(&format!("metadata.name={name}"));
            let read = |network: ClusterNetwork| SeenNetwork::read(&network);
            let events = netkeel_client::watch_as(Api::all(signs.attend(client)), config, read);
            events.map(|event| Change::Network(Box::new(event))).boxed()
        },
    );
    let pods = pod_changes(client.clone(), pods, signs.clone()).boxed();
    let read = |namespace: Namespace| SeenNamespace::read(&namespace);
    let namespaces = netkeel_client::watch_as(Api::all(signs.attend(client)), config(), read)
        .map(|event| Change::Namespace(Box::new(event)));
    let objects = stream::select(services.boxed(), slices.boxed());
    stream::select(stream::select(objects, namespaces.boxed()), stream::select(network, pods))
}

/// Those of pods that have not ended, while `wanted` says so; each time it comes to do so they begin with a list.
fn pod_changes(
    client: Client,
    wanted: watch::Receiver<bool>,
    signs: Signs,
) -> impl Stream<Item = Change> + Send {
    let events = move || {
        let config = watcher::Config::default().page_size(POD_PAGE);
        let config = config.fields("status.phase!=Succeeded,status.phase!=Failed");
        let read = |pod: SlimPod| SeenPod::read(&pod);
        netkeel_client::watch_as(Api::all(signs.attend(&client)), config, read).boxed()
    };
    stream::unfold((wanted, events, None), |(mut wanted, start, running)| async move {
        let mut running: Option<BoxStream<'static, Event<SeenPod>>> = running;
        loop {
            let Some(mut events) = running.take() else {
                wanted.wait_for(|wanted| *wanted).await.ok()?;
                running = Some(start());
                continue;
            };
            let event = tokio::select! {
                ended = wanted.wait_for(|wanted| !wanted) => {
                    ended.ok()?;
                    continue;
                }
                event = events.next() => event?,
            };
            return Some((Change::Pod(Box::new(event)), (wanted, start, Some(events))));
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use netkeel_testkit::api::FakeApi;

    use super::*;

    /// Waits until the age of `signs` is as expected.
    async fn becomes(signs: &Signs, expected: impl Fn(Duration) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !expected(signs.age()) {
            assert!(Instant::now() < deadline, "{:?}", signs.age());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn silence_on_the_watch_of_pods_is_seen_while_they_are_followed() {
        let (api, signs, wanted) =
            (FakeApi::start().await.unwrap(), Signs::default(), watch::Sender::new(true));
        let pods = pod_changes(api.client().unwrap(), wanted.subscribe(), signs.clone());
        let mut pods = std::pin::pin!(pods);
        assert!(pods.next().await.is_some_and(|change| change.is_list()));
        let mut following = async || {
            while pods.next().await.is_some() {}
        };
        tokio::select! {
            () = following() => panic!("it ends"),
            () = async {
                api.set_silent(true);
                becomes(&signs, |age| age > Duration::from_millis(500)).await;
                wanted.send_replace(false);
                becomes(&signs, |age| age == Duration::ZERO).await;
            } => {}
        }
    }
}
