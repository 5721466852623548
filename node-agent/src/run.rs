//! Wires the agent up: telemetry, the API server, the loop. Ends at SIGTERM, leaving everything in the kernel as it is.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream::BoxStream};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
    networking::v1::NetworkPolicy,
};
use kube::{Api, Client, runtime::watcher};
use netkeel_client::{ApiServers, connect, watch, watch_as};
use netkeel_core::name::ObjectName;
use netkeel_index::{
    SeenSlice,
    convert::{HEADLESS, SERVICE_NAME, SERVICE_PROXY_NAME},
};
use netkeel_telemetry::{
    admin::{self, Health},
    metrics::Registry,
    shutdown,
};
use tokio::{
    sync::watch::Receiver,
    task::block_in_place,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, Change, PolicyChange, Surroundings},
    args::{Args, Command, Config},
    bpffs,
    cleanup::{self, Places, chain},
    complaints::{self, Complaints},
    ipam::{self, Pool},
    memory,
    metrics::Metrics,
    monitor::{Alarm, Monitor},
    own_dns, path,
    pods::{SeenPodReader, SlimPod},
    shortage, status,
};

/// How often the loop looks whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// Events that are taken in before work is done.
const BATCH: usize = 4096;
/// Between attempts to make a client.
const RECONNECT: Duration = Duration::from_secs(5);
/// Slices that are asked for at once.
const SLICES: u32 = 50;
const API_SERVERS: &str = "api-servers.json";

/// Why the agent does not start at all. All other trouble is reported and healed while it runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This program was built without the kernel programs.
    #[error(transparent)]
    Stub(netkeel_dataplane_loader::Error),
    /// Nobody said which node this is.
    #[error("NODE_NAME is not set: name the Node object that this process serves")]
    NoNodeName,
    /// Telemetry.
    #[error(transparent)]
    Telemetry(#[from] netkeel_telemetry::Error),
    /// The port of metrics and health.
    #[error(transparent)]
    Admin(#[from] admin::Error),
    /// The addresses of the API server.
    #[error(transparent)]
    Servers(#[from] netkeel_client::ServersError),
    /// The node's addresses.
    #[error(transparent)]
    Pool(#[from] ipam::Error),
    /// Threads.
    #[error("start the runtime's threads")]
    Runtime(#[source] std::io::Error),
    /// Signals.
    #[error("listen for SIGTERM")]
    Signal(#[source] std::io::Error),
}

/// Does what the command line says; `version` is what telemetry calls this program. An error is one line on stderr.
#[must_use]
pub fn main(args: Args, version: &'static str) -> ExitCode {
    let outcome = match args.command {
        Some(Command::MountBpffs) => mount(&args.config).map_err(|error| chain(&error)),
        Some(Command::Clean) => cleanup::clean(&Places::of(&args.config)).map_err(|error| chain(&error)),
        None => start(args.config, version).map_err(|error| chain(&error)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netkeel-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn mount(config: &Config) -> Result<(), bpffs::Error> {
    let mounted = bpffs::mount_missing(&config.bpffs)?;
    eprintln!(
        "{} {}",
        config.bpffs.display(),
        if mounted { "is mounted now" } else { "was mounted already" }
    );
    Ok(())
}

fn start(config: Config, version: &'static str) -> Result<(), Error> {
    memory::share_one_heap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(Error::Runtime)?.block_on(run(config, version))
}

/// Runs the agent until it is told to end.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config, version: &'static str) -> Result<(), Error> {
    netkeel_dataplane_loader::built().map_err(Error::Stub)?;
    let signal = shutdown::signal().map_err(Error::Signal)?;
    let telemetry = netkeel_telemetry::init("netkeel-agent", &netkeel_telemetry::Options::from_env(version))?;
    if config.node_name.is_empty() {
        return Err(Error::NoNodeName);
    }
    let (registry, health, stop) =
        (Registry::new("agent", version), Health::default(), CancellationToken::new());
    let ready = health.readiness("agent");
    let metrics = Metrics::new(&registry);
    admin::serve(config.admin_address, registry, health, stop.clone()).await?;
    let servers = known_servers(&config)?;
    let pool = Arc::new(Pool::open(&config.run_folder.join("ipam"))?);
    let node_name = config.node_name.clone();
    let kept = config.state_folder.join(API_SERVERS);
    let agent = Agent::new(Surroundings { config, pool, metrics, ready, telemetry: Some(telemetry.clone()) });

    let client = client(servers.clone());
    let said = (agent.reports(), agent.complaints());
    let connected = Connected { servers, kept, node_name };
    let changes =
        futures::stream::once(client).flat_map(move |client| connected.changes(client, said.clone()));
    tokio::spawn({
        let stop = stop.clone();
        async move {
            let signal = signal.await;
            tracing::info!(signal, "ending; the data path stays as it is");
            stop.cancel();
        }
    });
    work(agent, changes.boxed(), stop).await;
    telemetry.shutdown().await;
    Ok(())
}

/// The loop: events and the kernel's notices in, work out, until `stop`.
pub async fn work(mut agent: Agent, changes: BoxStream<'static, Change>, stop: CancellationToken) {
    // Boxed, since room is made for a whole batch each time.
    let mut changes = changes.map(Box::new).ready_chunks(BATCH);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (moved, pool, alarm) = (agent.pods_moved(), agent.pool(), agent.alarm());
    watch_kernel(alarm.clone(), &stop);
    let (targets, proof) = agent.paths();
    tokio::spawn(path::prove(targets, proof, path::Pace::default(), stop.clone()));
    let (silent, mut heard) = tokio::sync::watch::channel(own_dns::Servers::new());
    tokio::spawn(own_dns::watch_over(agent.dns_servers(), silent, own_dns::Pace::default(), stop.clone()));
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(batch) = changes.next() => batch.into_iter().for_each(|change| agent.take(*change)),
            () = moved.notified() => {}
            () = alarm.network.notified() => agent.network_stirred(),
            () = pool.changed.notified() => agent.blocks_changed(),
            Ok(()) = heard.changed() => agent.dns_silent(&heard.borrow_and_update()),
            _ = tick.tick() => {}
        }
        block_in_place(|| agent.work(Instant::now()));
        if agent.is_wanted_again() {
            tracing::info!("the node is wanted again, starting over");
            break;
        }
    }
    agent.stop().await;
}

/// Rings the alarm when something in the kernel changes. Without it the regular look has to do.
fn watch_kernel(alarm: Alarm, stop: &CancellationToken) {
    match Monitor::open() {
        Ok(monitor) => drop(tokio::spawn(stop.clone().run_until_cancelled_owned(monitor.run(alarm)))),
        Err(error) => tracing::error!(%error, "changes in the kernel are found by the regular look only"),
    }
}

/// The API server's addresses: those given, then those kept from before.
fn known_servers(config: &Config) -> Result<ApiServers, Error> {
    let servers = ApiServers::parse(&config.api_servers.join(","))?;
    if let Err(error) = servers.load(&config.state_folder.join(API_SERVERS)) {
        tracing::warn!(error = chain(&error), "starting without the API server's former addresses");
    }
    Ok(servers)
}

/// A client, as soon as there can be one. The API server need not answer.
async fn client(servers: ApiServers) -> Client {
    loop {
        match connect(&servers) {
            Ok(client) => return client,
            Err(error) => {
                tracing::error!(error = chain(&error), "no way to the API server, trying again");
                sleep(RECONNECT).await;
            }
        }
    }
}

/// What hangs on the client.
#[derive(Clone)]
struct Connected {
    servers: ApiServers,
    kept: PathBuf,
    node_name: String,
}

impl Connected {
    /// Begins to report, and gives the changes of everything that is watched.
    fn changes(
        &self,
        client: Client,
        (reports, complaints): (Receiver<status::Report>, Receiver<Complaints>),
    ) -> impl Stream<Item = Change> + Send + use<> {
        tokio::spawn(complaints::publish(client.clone(), self.node_name.clone(), complaints));
        tokio::spawn(shortage::publish(client.clone(), self.node_name.clone(), reports.clone()));
        tokio::spawn(status::publish(client.clone(), self.node_name.clone(), reports));
        let nodes = watch(Api::all(client.clone()), watcher::Config::default()).map(Change::Node);
        let proxied = watcher::Config::default().labels(&format!("!{HEADLESS},!{SERVICE_PROXY_NAME}"));
        let services = watch::<Service>(Api::all(client.clone()), proxied).map(Change::Service);
        // Where lists come in pages: a slice has up to a thousand endpoints, and a page of the usual 500 would be most of what the agent ever holds.
        let joined =
            watcher::Config::default().labels(&format!("{SERVICE_NAME},!{HEADLESS}")).page_size(SLICES);
        let (this, to_refresh) = (self.clone(), client.clone());
        let own_node = self.node_name.clone();
        let read = move |slice: EndpointSlice| SeenSlice::read(&slice, &own_node);
        let slices = watch_as(Api::all(client.clone()), joined, read).map(move |event| {
            if concerns_api_server(&event) {
                tokio::spawn(this.clone().refresh(to_refresh.clone()));
            }
            Change::Slice(event)
        });
        let policies = policy_changes(client, &self.node_name).map(Change::Policy);
        futures::stream::select_all([nodes.boxed(), services.boxed(), slices.boxed(), policies.boxed()])
    }

    /// Learns the API server's present addresses and keeps them for a start without it.
    async fn refresh(self, client: Client) {
        let kept = match self.servers.refresh(&client).await {
            Ok(true) => self.servers.save(&self.kept),
            Ok(false) if self.kept.exists() => Ok(()),
            Ok(false) => self.servers.save(&self.kept),
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::warn!(error = chain(&error), "the API server's addresses are not kept");
        }
    }
}

/// Changes of everything that policy depends on.
fn policy_changes(client: Client, own_node: &str) -> impl Stream<Item = PolicyChange> + Send + use<> {
    let all = watcher::Config::default;
    let mut reader = SeenPodReader::new(own_node);
    let read = move |pod: SlimPod| reader.read(pod);
    let pods = watch_as(Api::all(client.clone()), all(), read).map(PolicyChange::Pod);
    let namespaces = watch::<Namespace>(Api::all(client.clone()), all()).map(PolicyChange::Namespace);
    let policies = watch::<NetworkPolicy>(Api::all(client), all()).map(PolicyChange::Policy);
    futures::stream::select_all([pods.boxed(), namespaces.boxed(), policies.boxed()])
}

/// Whether an event may change where the API server is.
fn concerns_api_server(event: &netkeel_client::Event<SeenSlice>) -> bool {
    use netkeel_client::Event;
    let kubernetes = ObjectName::new("default", "kubernetes");
    match event {
        Event::Reset { .. } => true,
        Event::Apply(SeenSlice { slice: Ok(slice), .. }) => {
            slice.as_ref().is_some_and(|slice| slice.service == kubernetes)
        }
        // One that cannot be read may be its.
        Event::Apply(SeenSlice { name, slice: Err(_) }) => name.namespace == kubernetes.namespace,
        Event::Delete { .. } | Event::Undecodable(_) => false,
    }
}
