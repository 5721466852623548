//! The agent's end of CNI: a socket that the thin plugin hands every call to, with the pod's descriptors.
//! Calls for different pods run side by side, calls for one pod one after the other. Nothing here needs the API server.

mod add;
mod check;
pub mod config;
pub mod datapath;
mod del;
pub mod failure;
pub mod heartbeat;
mod holding;
pub mod journal;
pub mod kernel;
mod leaks;
pub mod plugin;
mod ports;
pub mod protocol;
mod queues;
mod recovery;
pub mod result;
mod server;
mod traced;
pub mod wire;

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use datapath::PodDatapath;
use recovery::Look;
use server::Server;
use tokio::{
    net::UnixListener,
    task::spawn_blocking,
    time::{interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{ipam::Pool, monitor::Alarm, node::NodeWatch, sysctl::Fights};

/// How long running calls may go on after the agent was told to end.
const DRAIN: Duration = Duration::from_secs(5);

/// What the server works with.
pub struct CniContext {
    /// Name of the Node, for messages.
    pub node_name: String,
    /// `/run/netkeel`.
    pub state_folder: PathBuf,
    /// Where `/proc/sys/net` of the node can be written.
    pub settings: PathBuf,
    /// The node as its `NodeNetwork` says.
    pub node: NodeWatch,
    /// The node's addresses; the server keeps its blocks in step with `node`.
    pub pool: Arc<Pool>,
    /// The kernel programs' side of pod links.
    pub datapath: Arc<dyn PodDatapath>,
    /// Rung when pods' links or routes may have changed.
    pub drift: Alarm,
    /// Told which settings of pods' links others change.
    pub fights: Arc<Fights>,
}

/// Opens the socket in place of one that an earlier agent left. Connections wait until [`serve`] takes them.
///
/// # Errors
/// When the folder or the socket cannot be made.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(new, path)?;
    Ok(listener)
}

/// Serves CNI until `shutdown`: makes up for DELs that found no agent, brings the tables in line with the pods that
/// exist, then answers calls. Returns when the calls under way have ended, or after [`DRAIN`]: then the result holds those
/// that go on.
pub async fn serve(listener: UnixListener, context: CniContext, shutdown: CancellationToken) -> TaskTracker {
    let server = Arc::new(Server::new(context, tokio::runtime::Handle::current()));
    let start = server.clone();
    if let Err(error) = spawn_blocking(move || start.restore()).await {
        tracing::error!(%error, "the state of earlier pods could not be restored");
    }
    let background = shutdown.child_token();
    let tasks = TaskTracker::new();
    tasks.spawn(background.clone().run_until_cancelled_owned(follow_node(server.clone())));
    tasks.spawn(background.clone().run_until_cancelled_owned(show_life(server.clone())));
    tasks.spawn(background.clone().run_until_cancelled_owned(sweep(server.clone())));
    let calls = TaskTracker::new();
    let _ = shutdown.run_until_cancelled(accept(&listener, &server, &calls)).await;
    drop(listener);
    background.cancel();
    tasks.close();
    calls.close();
    tasks.wait().await;
    if timeout(DRAIN, calls.wait()).await.is_err() {
        tracing::warn!(calls = calls.len(), "CNI calls go on after the end of their server");
    }
    calls
}

async fn accept(listener: &UnixListener, server: &Arc<Server>, calls: &TaskTracker) {
    loop {
        match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => {
                let server = server.clone();
                calls.spawn_blocking(move || server.answer(&stream));
            }
            Err(error) => {
                tracing::error!(%error, "a CNI connection could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn follow_node(server: Arc<Server>) {
    let mut node = server.context.node.clone();
    loop {
        let state = node.borrow_and_update().clone();
        server.node_changed(state.as_deref());
        // The node's address may be another one, and with it the source of the routes to pods.
        server.context.drift.routes.notify_one();
        if node.changed().await.is_err() {
            // The agent is ending, or a test keeps its last state; calls go on with what is known.
            return std::future::pending().await;
        }
    }
}

async fn show_life(server: Arc<Server>) {
    let mut tick = interval(heartbeat::PERIOD);
    loop {
        tick.tick().await;
        if let Err(error) = heartbeat::write(&server.context.state_folder, crate::ipam::since_boot()) {
            tracing::error!(%error, "the agent's sign of life could not be written");
        }
    }
}

async fn sweep(server: Arc<Server>) {
    let mut tick = interval(leaks::PERIOD);
    loop {
        let drift = server.context.drift.clone();
        let look = tokio::select! {
            _ = tick.tick() => None,
            () = drift.pods.notified() => Some(Look::Whole),
            () = drift.routes.notified() => Some(Look::Routes),
        };
        let server = server.clone();
        let work = move || match look {
            None => server.sweep(),
            Some(look) => drop(server.mend_pods(look)),
        };
        if let Err(error) = spawn_blocking(work).await {
            tracing::error!(%error, "the sweep over the pods' links broke off");
        }
    }
}
