//! Wiring: telemetry, the client, leadership, watches that wake the passes.

mod wake;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{Api, Client};
use netkeel_client::{ApiServers, ConnectError, ServersError, connect};
use netkeel_telemetry::{
    Guard, Options,
    admin::{self, Health},
    chain,
    metrics::Registry,
    shutdown,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Args, Command, Config},
    cluster::api::ApiCluster,
    install,
    leader::Candidate,
    metrics::Metrics,
    probe,
    reconcile::{Next, pass},
    story::{Story, Traces},
    uninstall,
};

/// A pass is done at least this often, whatever the watches say.
const RESYNC: Duration = Duration::from_secs(30);
/// Changes that come together are handled together.
const GATHER: Duration = Duration::from_millis(100);
/// Time from the begin of a pass to one that a watch wakes: a pass reads the whole cluster.
const APART: Duration = Duration::from_secs(1);
/// Time before the next pass after one that failed, or that waits for what no watch tells.
const RETRY: Duration = Duration::from_secs(2);
/// Version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What stopped the program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Logs and traces.
    #[error(transparent)]
    Telemetry(#[from] netkeel_telemetry::Error),
    /// Signals of the system.
    #[error("waiting for signals")]
    Signals(#[source] io::Error),
    /// Metrics and health.
    #[error(transparent)]
    Admin(#[from] admin::Error),
    /// The file of the probes.
    #[error("writing {file}: mount an emptyDir there")]
    AdminFile {
        /// The file.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The environment.
    #[error(transparent)]
    Servers(#[from] ServersError),
    /// The service account.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The answer of a probe.
    #[error(transparent)]
    Probe(#[from] probe::Error),
    /// The removal.
    #[error(transparent)]
    Uninstall(#[from] uninstall::Error),
}

/// Does what the command line says.
///
/// # Errors
/// What stopped the program.
pub async fn run(args: Args) -> Result<(), Error> {
    match args.command {
        Some(Command::Probe { what }) => Ok(probe::ask(&args.config.admin_file, what).await?),
        Some(Command::Uninstall { timeout }) => {
            let telemetry = netkeel_telemetry::init("netkeel-uninstall", &Options::from_env(VERSION))?;
            let client = connect(&ApiServers::from_env()?)?;
            let removed = uninstall::run(client, &args.config.image, timeout).await;
            telemetry.shutdown().await;
            Ok(removed?)
        }
        None => Box::pin(operate(args.config)).await,
    }
}

async fn operate(config: Config) -> Result<(), Error> {
    let telemetry = netkeel_telemetry::init("netkeel-operator", &Options::from_env(VERSION))?;
    let stop = CancellationToken::new();
    let ended = shutdown::signal().map_err(Error::Signals)?;
    let registry = Registry::new("operator", VERSION);
    let health = Health::default();
    let reached = health.readiness("api-server");
    serve(&config, registry.clone(), health, stop.clone()).await?;
    let servers = ApiServers::from_env()?;
    let client = connect(&servers)?;
    tracing::info!(addresses = ?servers.addresses(), "starting");
    // One that does not lead makes no passes, and must still find the API server to become leader.
    tokio::spawn(servers.clone().follow(client.clone()));
    let leases = Api::namespaced(client.clone(), &config.namespace);
    let (leading, leads) = watch::channel(false);
    let candidate = tokio::spawn(Candidate::new(leases, config.pod_name.clone()).run(leading, stop.clone()));
    let operator = Operator {
        cluster: ApiCluster::new(client.clone(), config.settings()),
        metrics: Metrics::new(&registry),
        story: Story::default(),
        config,
        servers,
        client,
        telemetry,
    };
    let work = async {
        operator.install(false).await;
        reached.pass();
        let wake = Arc::new(Notify::new());
        tokio::join!(wake::watch_all(&operator.client, &wake), operator.lead(leads, &wake));
    };
    tokio::select! {
        () = work => {}
        signal = ended => tracing::info!(signal, "stopping"),
    }
    stop.cancel();
    if tokio::time::timeout(RETRY, candidate).await.is_err() {
        tracing::warn!("the lease could not be given back, it runs out");
    }
    operator.telemetry.shutdown().await;
    Ok(())
}

/// Metrics and health, at any free port when another operator of this node has the usual one.
async fn serve(
    config: &Config,
    registry: Registry,
    health: Health,
    stop: CancellationToken,
) -> Result<(), Error> {
    let any = SocketAddr::new(config.admin_address.ip(), 0);
    let bound = match admin::serve(config.admin_address, registry.clone(), health.clone(), stop.clone()).await
    {
        Ok(bound) => bound,
        Err(error) => {
            tracing::info!(error = &error as &dyn std::error::Error, "taking another port");
            admin::serve(any, registry, health, stop).await?
        }
    };
    let file = &config.admin_file;
    probe::publish(file, bound)
        .map_err(|source| Error::AdminFile { file: file.display().to_string(), source })
}

/// Time to wait after a watch has told of a change, `elapsed` after the last pass began.
fn gather(elapsed: Duration) -> Duration {
    APART.saturating_sub(elapsed).max(GATHER)
}

struct Operator {
    config: Config,
    servers: ApiServers,
    client: Client,
    telemetry: Guard,
    cluster: ApiCluster,
    metrics: Metrics,
    story: Story,
}

impl Operator {
    /// What must be there before anything else, tried until it is.
    async fn install(&self, leads: bool) {
        while let Err(error) = install::install(&self.client, &self.config.namespace, leads).await {
            tracing::warn!(error = chain(&error), "CRDs are not up to date, trying again");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Passes, while this operator leads. The first time it brings the CRDs up to its own before them.
    async fn lead(&self, mut leads: watch::Receiver<bool>, wake: &Notify) {
        let mut installed = false;
        while leads.wait_for(|leads| *leads).await.is_ok() {
            self.metrics.leading.set(1);
            tokio::select! {
                () = self.act(wake, &mut installed) => {}
                _ = leads.wait_for(|leads| !*leads) => {}
            }
            self.metrics.rests();
        }
    }

    async fn act(&self, wake: &Notify, installed: &mut bool) {
        if !*installed {
            self.install(true).await;
            *installed = true;
        }
        loop {
            let began = Instant::now();
            let pause = self.once().await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = wake.notified(), if pause == RESYNC => tokio::time::sleep(gather(began.elapsed())).await,
            }
        }
    }

    /// One pass, with a new look at where the API server is; gives the time until the next.
    async fn once(&self) -> Duration {
        if let Err(error) = self.servers.refresh(&self.client).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "addresses of the API server are as before"
            );
        }
        let mut settings = self.config.settings();
        settings.api_servers = self.servers.addresses();
        let send_to = |endpoint: Option<&str>| self.send_traces_to(endpoint);
        let traces = Traces { story: &self.story, send_to: &send_to };
        let began = Instant::now();
        let passed = pass(&self.cluster, &settings, Timestamp::now(), traces).await;
        self.metrics.passed(passed.as_ref().ok(), began.elapsed());
        match passed {
            Ok(done) => match done.next {
                Next::AtOnce => GATHER,
                Next::Soon => RETRY,
                Next::OnChange => RESYNC,
            },
            Err(error) => {
                tracing::warn!(error = chain(&error), "pass failed, trying again");
                RETRY
            }
        }
    }

    fn send_traces_to(&self, endpoint: Option<&str>) {
        if let Err(error) = self.telemetry.set_traces_endpoint(endpoint) {
            tracing::warn!(error = &error as &dyn std::error::Error, "traces go where they went");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn woken_passes_are_a_second_apart() {
        for (elapsed, wait) in [(0, 1000), (300, 700), (950, 100), (5000, 100)] {
            assert_eq!(gather(Duration::from_millis(elapsed)), Duration::from_millis(wait), "{elapsed}");
        }
    }
}
