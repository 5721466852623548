//! A small API server on loopback, for programs that list and watch: the objects are what the test puts
//! there, of whatever kind and however malformed. Lists, gets and watches (plain or with initial events,
//! bookmarks, 410 for versions too old), creations, replacements and merge patches; no authentication, no schemas.

mod http;
mod store;
mod write;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use store::Store;

/// A running API server. Dropping it closes its port and its connections.
#[derive(Debug)]
pub struct FakeApi {
    address: SocketAddr,
    state: State,
    task: AbortHandle,
}

/// What requests share.
#[derive(Clone, Debug)]
pub(crate) struct State {
    store: Arc<Mutex<Store>>,
    /// Wakes watches: the latest version, and whether the server plays dead.
    signal: watch::Sender<Signal>,
    /// How many were asked for.
    lists: Arc<AtomicU64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Signal {
    version: u64,
    down: bool,
    /// Grows when open watches have to end.
    cut: u64,
    /// Whether the server takes requests and says nothing.
    silent: bool,
    /// Grows when all requests so far are never answered any more.
    silenced: u64,
    streams: Streams,
}

/// What comes of watches that ask for initial events.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Streams {
    /// All objects, then the changes.
    #[default]
    Whole,
    /// An error, as of an API server without the feature `WatchList`.
    Refused,
    /// An error in the place of the first event, as of an API server whose etcd is older than 3.5.13.
    Failing,
    /// All objects, and before the word that it was all the stream ends.
    Cut,
}

impl FakeApi {
    /// Starts a server without objects on a free port of loopback.
    ///
    /// # Errors
    /// No port is to be had.
    pub async fn start() -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = State { store: Arc::default(), signal: watch::Sender::default(), lists: Arc::default() };
        let router = http::router(state.clone());
        let task = tokio::spawn(async move {
            // ends with the test; a failure shows there as requests that fail
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, state, task: task.abort_handle() })
    }

    /// Where it listens, plain HTTP.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of this server.
    ///
    /// # Errors
    /// The client cannot be built.
    pub fn client(&self) -> anyhow::Result<kube::Client> {
        let config = kube::Config::new(format!("http://{}", self.address).parse()?);
        Ok(kube::Client::try_from(config)?)
    }

    /// Adds or replaces an object, by its apiVersion, kind, namespace and name; the rest may be anything.
    pub fn put(&self, object: Value) {
        self.change(|store| store.put(object));
    }

    /// Removes an object, if it is there.
    pub fn delete(&self, api_version: &str, kind: &str, namespace: Option<&str>, name: &str) {
        self.change(|store| {
            store.delete(&store::plural(api_version, kind), namespace.unwrap_or_default(), name);
        });
    }

    /// Plays dead, or comes back: requests fail with 503 and open watches end.
    pub fn set_down(&self, down: bool) {
        self.state.signal.send_modify(|signal| {
            signal.down = down;
            signal.cut += 1;
        });
    }

    /// Freezes, or thaws: while frozen it takes connections and requests and says nothing. What was under way when it froze, open
    /// watches too, stays open and without a word for ever, as when packets are lost on the way.
    pub fn set_silent(&self, silent: bool) {
        self.state.signal.send_modify(|signal| {
            signal.silent = silent;
            signal.silenced += u64::from(silent);
        });
    }

    /// Says what comes of watches that ask for initial events from now on.
    pub fn set_streams(&self, streams: Streams) {
        self.state.signal.send_modify(|signal| signal.streams = streams);
    }

    /// How many lists were asked for.
    #[must_use]
    pub fn lists(&self) -> u64 {
        self.state.lists.load(Ordering::Relaxed)
    }

    /// Forgets its history: open watches end, and those that resume from before get 410 Gone.
    pub fn compact(&self) {
        self.state.lock().compact();
        self.state.signal.send_modify(|signal| signal.cut += 1);
    }

    fn change(&self, edit: impl FnOnce(&mut Store)) {
        self.state.change(edit);
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.set_down(true);
        self.task.abort();
    }
}

impl State {
    /// Adds or replaces an object, and wakes watches.
    pub(crate) fn put(&self, object: Value) {
        self.change(|store| store.put(object));
    }

    fn change(&self, edit: impl FnOnce(&mut Store)) {
        let version = {
            let mut store = self.lock();
            edit(&mut store);
            store.version()
        };
        self.signal.send_modify(|signal| signal.version = version);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
