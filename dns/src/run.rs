//! Puts the parts together: telemetry, the watches, and, once the zone is complete, the sockets.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use kube::Client;
use netkeel_client::{ApiServers, ConnectError, ServersError};
use netkeel_telemetry::admin::{self, Health};
use netkeel_telemetry::metrics::Registry;
use netkeel_telemetry::{Options, shutdown};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::{Args, Config};
use crate::forward::upstreams;
use crate::handler::Handler;
use crate::live::Live;
use crate::loops;
use crate::metrics::Metrics;
use crate::server::{self, Sockets};
use crate::snapshot;
use crate::watch::{Follower, changes};
use crate::zone::Zone;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Open files that are enough for all that is bounded elsewhere.
const FILES: u64 = 65_536;
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What systemd-resolved asks; in a pod only where somebody has mounted it.
const SYSTEMD: &str = "/run/systemd/resolve/resolv.conf";

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Logs or traces.
    #[error("telemetry cannot be set up")]
    Telemetry(#[from] netkeel_telemetry::Error),
    /// The port of metrics and health.
    #[error("the admin port cannot be opened")]
    Admin(#[from] admin::Error),
    /// `NETKEEL_API_SERVERS` cannot be read.
    #[error("the API server's addresses are not known")]
    Servers(#[from] ServersError),
    /// No client of the API server can be made.
    #[error("the API server cannot be reached")]
    Connect(#[from] ConnectError),
    /// The port of DNS.
    #[error("DNS cannot be served")]
    Listen(#[from] server::Error),
    /// What the arguments say of DNS.
    #[error("DNS cannot be set up")]
    Mistake(#[from] netkeel_index::dns::Mistake),
    /// Signals or addresses.
    #[error("the operating system refuses")]
    System(#[from] std::io::Error),
}

/// Runs until SIGTERM or SIGINT, and a little longer: see `--lame-duck`.
///
/// # Errors
/// Something that is needed at the start cannot be had.
pub async fn run(args: Args) -> Result<(), Error> {
    let (resolv_conf, systemd) =
        (std::fs::read_to_string(RESOLV_CONF), std::fs::read_to_string(SYSTEMD).ok());
    let of_node = upstreams::of_node(resolv_conf.as_deref().unwrap_or_default(), systemd.as_deref());
    let config = args.config(of_node);
    let telemetry = netkeel_telemetry::init("netkeel-dns", &Options::from_env(VERSION))?;
    if let Err(error) = telemetry.set_traces_endpoint(config.traces_endpoint.as_deref()) {
        tracing::warn!(error = &error as &dyn std::error::Error, "no traces are sent");
    }
    let signal = shutdown::signal()?;
    allow_files();
    let servers = ApiServers::from_env()?;
    let client = netkeel_client::connect(&servers)?;
    tokio::spawn(servers.follow(client.clone()));
    let (registry, health, stop) =
        (Registry::new("dns", VERSION), Health::default(), CancellationToken::new());
    admin::serve(config.admin, registry.clone(), health.clone(), stop.clone()).await?;
    let duty = health.readiness("shutdown");
    duty.pass();
    let serving = async {
        let running = start(&config, &client, &registry, &health, &stop).await?;
        running.end().await;
        Ok(())
    };
    let ending = async {
        let signal = signal.await;
        tracing::info!(signal, lame_duck = ?config.lame_duck, "ending: still answering for a while");
        duty.fail("shutting down");
        tokio::time::sleep(config.lame_duck).await;
        stop.cancel();
    };
    let result = tokio::select! {
        result = serving => result,
        () = async { ending.await; tokio::time::sleep(server::SLOW).await } => Ok(()),
    };
    telemetry.shutdown().await;
    result
}

/// Connections and questions to resolvers have a file each; some container runtimes leave a program 1024 until it asks for more.
fn allow_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(FILES)), hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// A server that answers.
#[derive(Debug)]
pub struct Running {
    /// Where it answers, as bound.
    pub addresses: Vec<SocketAddr>,
    tasks: JoinSet<()>,
}

impl Running {
    /// Ends when the sockets are closed, after the token given to [`start`] is cancelled.
    pub async fn end(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Follows the API server, and answers at once where the last server in this pod has left what it knew, else from the moment the zone is
/// complete; until then, however long that takes, the ports are not bound, so that nobody takes ignorance for absence.
///
/// # Errors
/// The ports cannot be bound.
pub async fn start(
    config: &Config,
    client: &Client,
    registry: &Registry,
    health: &Health,
    stop: &CancellationToken,
) -> Result<Running, Error> {
    let ready = health.readiness("zone");
    let listen = config.base.listen.first().copied().unwrap_or_else(|| ([0, 0, 0, 0], 53).into());
    let metrics = Metrics::new(registry, listen, &config.base.settings.domain.to_ascii());
    let serial = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs());
    let empty = Zone::new(config.base.settings(&config.dns, vec![]), u32::try_from(serial).unwrap_or(1));
    let kept = config.state.as_deref().and_then(|folder| snapshot::load(folder, &empty, &metrics));
    let from_snapshot = kept.is_some();
    let (zone, seen) = kept.map_or((empty, None), |kept| (kept.zone, kept.network));
    let live = Live::new(config.dns.clone(), &config.base, &metrics)?;
    let network = config.cluster_network.as_deref();
    let mut follower = Follower::new(zone, (config.base.clone(), live), network.is_some(), metrics.clone());
    follower.remember(seen);
    let (zone, live, mut synced) = (follower.published(), follower.live(), follower.synced());
    let (loops, told) = follower.loops();
    let mut tasks = JoinSet::new();
    let pods = follower.pods();
    if let Some(folder) = config.state.clone() {
        let keep = snapshot::keep(folder, follower.contents(), snapshot::PAUSE, metrics.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(keep).map(drop));
    }
    let follow = follower.follow(changes(client, network, pods, metrics.lasting().signs()));
    tasks.spawn(stop.clone().run_until_cancelled_owned(follow).map(drop));
    ready.fail("the Services and EndpointSlices are not all known yet");
    tokio::select! {
        _ = synced.wait_for(|synced| *synced || from_snapshot) => {}
        () = stop.cancelled() => return Ok(Running { addresses: vec![], tasks }),
    }
    let look = loops::look(loops.clone(), config.base.clone(), live.clone(), told, metrics.clone());
    let handler =
        Handler::new(zone, live, metrics.clone()).tracing(config.traces_sampling_ratio).heeding(loops);
    let mut addresses = vec![];
    for address in &config.base.listen {
        let sockets = Sockets::bind(*address).await?;
        addresses.push(sockets.address()?);
        tasks.spawn(sockets.serve(handler.clone(), stop.clone()));
    }
    tasks.spawn(stop.clone().run_until_cancelled_owned(look).map(drop));
    if let Some((folder, port)) = config.tls.clone() {
        let at = config.base.listen.iter().map(|address| SocketAddr::new(address.ip(), port)).collect();
        tasks.spawn(server::tls::serve(folder, at, (handler, metrics), stop.clone()));
    }
    tracing::info!(?addresses, "answering");
    ready.pass();
    Ok(Running { addresses, tasks })
}
