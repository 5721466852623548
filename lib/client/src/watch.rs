//! Watches as a stream of changes. Errors are logged and healed here: who consumes the stream sees only objects.

use std::fmt::Debug;

use futures::{Stream, StreamExt, future::ready, stream};
use kube::{
    Api, Resource,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        watcher::{self, Config},
    },
};
use serde::de::DeserializeOwned;

/// Seconds after which the server ends a watch and it is resumed. A stream that says nothing for 5 s longer is taken for dead,
/// so a silent stall is found within 20 s.
const WATCH_SECONDS: u32 = 15;

/// A change of the watched objects.
#[derive(Clone, Debug)]
pub enum Event<K> {
    /// These are all objects that there are; what is in neither list is gone.
    Reset {
        /// The objects.
        objects: Vec<K>,
        /// Objects that exist but cannot be read: what was known of them stays in force.
        undecodable: Vec<Undecodable>,
    },
    /// An object was made or changed.
    Apply(K),
    /// An object is gone, whether it could be read or not.
    Delete {
        /// Its namespace; none for cluster-scoped kinds.
        namespace: Option<String>,
        /// Its name.
        name: String,
    },
    /// An object was made or changed and cannot be read: what was known of it stays in force.
    Undecodable(Undecodable),
}

/// An object that the API server holds and this program cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// Its namespace; none for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub error: String,
}

/// Watches `api` for ever: lists, watches, resumes, backs off, and notices a connection that went silent.
/// The first event is a `Reset`. An object that cannot be read is named and blocks no other.
pub fn watch<K>(api: Api<DeserializeGuard<K>>, config: Config) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default + Clone + Send,
    DeserializeGuard<K>: Resource<DynamicType = K::DynamicType>,
{
    watch_as(api, config, |object| object)
}

/// The same of what `read` makes of each object. While a list comes in, and until it is taken in, this is kept of its objects and no more.
pub fn watch_as<K, T>(
    api: Api<DeserializeGuard<K>>,
    config: Config,
    read: impl FnMut(K) -> T + Send,
) -> impl Stream<Item = Event<T>> + Send
where
    T: Send,
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default + Clone + Send,
    DeserializeGuard<K>: Resource<DynamicType = K::DynamicType>,
{
    watch_for(api, config.timeout(WATCH_SECONDS), read)
}

/// The same, where `config` says how long a watch lasts.
fn watch_for<K, T>(
    api: Api<DeserializeGuard<K>>,
    config: Config,
    read: impl FnMut(K) -> T + Send,
) -> impl Stream<Item = Event<T>> + Send
where
    T: Send,
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default + Clone + Send,
    DeserializeGuard<K>: Resource<DynamicType = K::DynamicType>,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let mut lists = Lists::default();
    let streamed = watcher::watcher(api.clone(), config.clone().streaming_lists()).default_backoff();
    let streamed = streamed.take_while({
        let kind = kind.clone();
        move |event| {
            let failure = lists.failure(event);
            if let Some(reason) = &failure {
                tracing::info!(
                    kind,
                    reason,
                    "no list is streamed: it is asked for in pages, as those after it"
                );
            }
            ready(failure.is_none())
        }
    });
    let events = streamed.chain(watcher::watcher(api, config).default_backoff());
    let state = Gathered { kind, read, objects: vec![], undecodable: vec![] };
    events
        .scan(state, |state, event| {
            let out = match event {
                Ok(event) => state.take(event),
                Err(error) => {
                    tracing::warn!(
                        kind = state.kind,
                        error = &error as &dyn std::error::Error,
                        "watch failed, trying again"
                    );
                    None
                }
            };
            ready(Some(stream::iter(out)))
        })
        .flatten()
}

/// How far streamed lists have come (KEP-3157). They come out of the API server's cache, object by object; where one cannot be had the watch goes on
/// with lists in pages.
#[derive(Debug, Default)]
enum Lists {
    /// None has begun since there was last one to be had.
    #[default]
    Wanted,
    UnderWay,
    Complete,
}

impl Lists {
    /// Why this event means that a list cannot be streamed; none where it means something else. The API server refuses when it was told not to
    /// stream lists (422), and breaks off when its etcd is older than 3.5.13. While a list is complete errors are the watch's own.
    fn failure<K>(&mut self, event: &watcher::Result<watcher::Event<K>>) -> Option<String> {
        use watcher::Error::{WatchError, WatchStartFailed};
        match event {
            // The next may, too: one that takes longer than a watch lasts never comes to its end.
            Ok(watcher::Event::Init) if matches!(self, Self::UnderWay) => {
                return Some("one ended before its last object".into());
            }
            Ok(watcher::Event::Init) => *self = Self::UnderWay,
            Ok(watcher::Event::InitDone) => *self = Self::Complete,
            Err(WatchError(status)) if status.code == 410 => *self = Self::Wanted,
            Err(WatchStartFailed(kube::Error::Api(status)) | WatchError(status)) => {
                let refused = !matches!(self, Self::Complete) && matches!(status.code, 400 | 422);
                return refused.then(|| status.message.clone());
            }
            _ => {}
        }
        None
    }
}

/// What a list has brought so far.
struct Gathered<T, R> {
    kind: String,
    read: R,
    objects: Vec<T>,
    undecodable: Vec<Undecodable>,
}

impl<T, R> Gathered<T, R> {
    fn take<K>(&mut self, event: watcher::Event<DeserializeGuard<K>>) -> Option<Event<T>>
    where
        K: Resource,
        R: FnMut(K) -> T,
        DeserializeGuard<K>: Resource,
    {
        match event {
            watcher::Event::Init => {
                self.objects.clear();
                self.undecodable.clear();
                None
            }
            watcher::Event::InitApply(object) => {
                match self.decode(object) {
                    Ok(object) => self.objects.push(object),
                    Err(undecodable) => self.undecodable.push(undecodable),
                }
                None
            }
            watcher::Event::InitDone => Some(Event::Reset {
                objects: std::mem::take(&mut self.objects),
                undecodable: std::mem::take(&mut self.undecodable),
            }),
            watcher::Event::Apply(object) => {
                Some(self.decode(object).map_or_else(Event::Undecodable, Event::Apply))
            }
            watcher::Event::Delete(object) => {
                let meta = object.meta().clone();
                Some(Event::Delete { namespace: meta.namespace, name: meta.name.unwrap_or_default() })
            }
        }
    }

    fn decode<K>(&mut self, object: DeserializeGuard<K>) -> Result<T, Undecodable>
    where
        R: FnMut(K) -> T,
    {
        object.0.map(&mut self.read).map_err(|invalid| {
            let undecodable = undecodable(invalid);
            let Undecodable { namespace, name, error } = &undecodable;
            tracing::warn!(
                kind = self.kind,
                namespace,
                name,
                error,
                "object cannot be read, keeping what was known of it"
            );
            undecodable
        })
    }
}

fn undecodable(invalid: kube::core::error_boundary::InvalidObject) -> Undecodable {
    Undecodable {
        namespace: invalid.metadata.namespace,
        name: invalid.metadata.name.unwrap_or_default(),
        error: invalid.error,
    }
}

#[cfg(test)]
mod tests;
