//! The agent's state and its work, step by step. Events change values; `work` then does what is due, and never waits.

mod dns;
pub(crate) mod events;
mod installation;
mod policy;
mod program;
mod removal;
mod report;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use netkeel_core::{ipam::Releasing, name::ObjectName};
use netkeel_crds::node_network::{Datapath as DatapathFacts, Overlay};
use netkeel_dataplane_loader::netns_cookie;
use netkeel_index::{Nodes, Services};
use netkeel_telemetry::{Guard, admin::Check, context};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::events::{Change, PolicyChange};
use self::policy::Policing;
use crate::{
    apply::{Applied, Applier, Written},
    args::Config,
    cleanup::chain,
    cni::{self, CniContext, kernel::KernelDatapath},
    complaints::Complaints,
    desired::{Desired, desired},
    due::Due,
    ipam::Pool,
    kernel::Kernel,
    last_known,
    metrics::Metrics,
    monitor::Alarm,
    node::{NodeState, NodeWatch},
    overlay,
    path::{Peer, Proof, Targets},
    settings,
    status::{Part, Report},
    sysctl::Fights,
};

/// How often the node's kernel is compared with what it should hold.
const REPAIR: Duration = Duration::from_secs(30);
/// How often the maps of services are compared with what they should hold.
const REPAIR_SERVICES: Duration = Duration::from_mins(5);
/// How often the runtime's CNI folders are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often figures are read.
const MEASURE: Duration = Duration::from_secs(5);
/// How often free memory is given back to the kernel.
const TIDY: Duration = Duration::from_secs(30);

/// What the agent works with.
pub struct Surroundings {
    /// Where things are.
    pub config: Config,
    /// The node's addresses.
    pub pool: Arc<Pool>,
    /// Figures.
    pub metrics: Metrics,
    /// Whether the agent is ready, for `/readyz`.
    pub ready: Check,
    /// The exporter of traces.
    pub telemetry: Option<Guard>,
}

/// One node's agent.
pub struct Agent {
    with: Surroundings,
    nodes: Nodes,
    services: Services,
    /// Services whose meaning changed since they were written.
    changed: BTreeSet<ObjectName>,
    policing: Policing,
    synced: Synced,
    /// The kernel has Services: all that are known, or those of an earlier agent.
    programmed: bool,
    kernel: Option<Kernel>,
    applier: Applier,
    applied: Option<(Desired, Applied)>,
    cni: Option<(CancellationToken, JoinHandle<TaskTracker>)>,
    /// Calls that went on when their server had ended.
    calls: TaskTracker,
    load: Due,
    apply: Due,
    repair: Due,
    install: Due,
    removal: Due,
    measure: Due,
    tidy: Due,
    save: Due,
    counted: HashMap<&'static str, u64>,
    /// Nodes changed since they were written to disk.
    unsaved: bool,
    /// What the disk says of the blocks that this node gives back.
    kept: Vec<Releasing>,
    report: Report,
    reports: watch::Sender<Report>,
    complaints: watch::Sender<Complaints>,
    node: watch::Sender<Option<Arc<NodeState>>>,
    alarm: Alarm,
    fights: Arc<Fights>,
    targets: watch::Sender<Targets>,
    proof: watch::Sender<Proof>,
    dns: dns::OwnDns,
}

/// Which kinds have been listed once.
#[derive(Clone, Copy, Debug, Default)]
struct Synced {
    nodes: bool,
    services: bool,
    slices: bool,
}

impl Agent {
    /// An agent that knows what its predecessor knew last.
    #[must_use]
    pub fn new(with: Surroundings) -> Self {
        let mut nodes = Nodes::default();
        match last_known::read(&with.config.state_folder) {
            Ok(objects) => drop(nodes.reset(&objects, &[])),
            Err(error) => tracing::warn!(error = chain(&error), "starting without what was known before"),
        }
        let (settings, fights) = (settings::folder(&with.config.host_prefix), Arc::<Fights>::default());
        let applier = Applier::new(settings, with.config.run_folder.clone(), fights.clone());
        let mut this = Self {
            policing: Policing::restore(&with.config),
            with,
            nodes,
            services: Services::default(),
            changed: BTreeSet::new(),
            synced: Synced::default(),
            programmed: false,
            kernel: None,
            applier,
            applied: None,
            cni: None,
            calls: TaskTracker::new(),
            load: Due::now(REPAIR),
            apply: Due::now(REPAIR),
            repair: Due::now(REPAIR_SERVICES),
            install: Due::now(LOOK),
            removal: Due::now(REPAIR),
            measure: Due::now(MEASURE),
            tidy: Due::now(TIDY),
            save: Due::now(Duration::ZERO),
            counted: HashMap::new(),
            unsaved: false,
            kept: Vec::new(),
            report: Report::default(),
            reports: watch::Sender::new(Report::default()),
            complaints: watch::Sender::default(),
            node: watch::Sender::new(None),
            alarm: Alarm::default(),
            fights,
            targets: watch::Sender::default(),
            proof: watch::Sender::default(),
            dns: dns::OwnDns::default(),
        };
        this.kept = this.releasing();
        this.nodes_known();
        this
    }

    /// What the agent reports, as it changes.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Report> {
        self.reports.subscribe()
    }

    /// What is wrong with policies, as it changes.
    #[must_use]
    pub fn complaints(&self) -> watch::Receiver<Complaints> {
        self.complaints.subscribe()
    }

    /// Rung when a pod got its link or lost it: then there is work.
    #[must_use]
    pub fn pods_moved(&self) -> Arc<Notify> {
        self.policing.moved()
    }

    /// What is rung when something of ours in the kernel may have changed. The CNI server listens to the pods' part by itself.
    #[must_use]
    pub fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }

    /// Who is to be asked whether full-size packets arrive, and where the answers go.
    #[must_use]
    pub fn paths(&self) -> (watch::Receiver<Targets>, watch::Sender<Proof>) {
        (self.targets.subscribe(), self.proof.clone())
    }

    /// Something of the node's network may have changed: the next [`Self::work`] looks.
    pub fn network_stirred(&mut self) {
        self.apply.hurry();
    }

    /// The node's addresses.
    #[must_use]
    pub fn pool(&self) -> Arc<Pool> {
        self.with.pool.clone()
    }

    /// The blocks, or what is wanted of them, are others than before: the next [`Agent::work`] reports it.
    pub fn blocks_changed(&mut self) {
        self.measure_blocks();
    }

    /// Does what is due.
    pub fn work(&mut self, now: Instant) {
        if self.own().is_some_and(|node| node.removing) {
            self.remove(now);
        } else if !self.report.removed {
            self.load(now);
            self.police(now);
            self.serve_cni(now);
            self.apply(now);
            self.program(now);
            self.follow_dns();
            self.tell_node();
            self.install(now);
            self.save(now);
            self.save_policy(now);
            self.measure(now);
        }
        self.publish();
        self.tidy(now);
    }

    /// What CNI calls know of the node, as it changes.
    #[must_use]
    pub fn node(&self) -> NodeWatch {
        self.node.subscribe()
    }

    /// Ends the CNI server and waits, for a few seconds, until the calls under way have ended.
    pub async fn stop(&mut self) {
        if let Some((stop, server)) = self.cni.take() {
            stop.cancel();
            match server.await {
                Ok(calls) => self.calls = calls,
                Err(error) => tracing::error!(%error, "the CNI server broke off"),
            }
        }
    }

    /// Gives back what lists and loads have left free.
    fn tidy(&mut self, now: Instant) {
        if self.tidy.is(now) {
            netkeel_client::give_back();
            self.tidy.done(now);
        }
    }

    fn own(&self) -> Option<&netkeel_core::node::Node> {
        self.nodes.get(&self.with.config.node_name)
    }

    /// Loads the programs.
    fn load(&mut self, now: Instant) {
        if self.kernel.is_some() || !self.load.is(now) {
            return;
        }
        let config = &self.with.config;
        match Kernel::load(&config.bpffs, &config.cgroups(), self.policing.moved()) {
            Ok(kernel) => {
                self.policing.take_over(&kernel.policy);
                tracing::info!(kernel = kernel.release, "kernel programs run");
                self.solve(Part::Datapath);
                self.programmed |= kernel.tables.frontends() > 0;
                self.kernel = Some(kernel);
            }
            Err(error) => {
                self.load.failed(now);
                self.fail(Part::Datapath, error.reason(), chain(&error));
            }
        }
    }

    /// Begins to serve CNI calls, as soon as the programs run.
    fn serve_cni(&mut self, now: Instant) {
        let waiting = self.cni.is_none() && self.load.is(now);
        let Some(kernel) = self.kernel.as_ref().filter(|_| waiting) else { return };
        let config = &self.with.config;
        let bound = cni::bind(&config.run_folder.join("agent.sock"))
            .map_err(|error| format!("open the CNI socket in {}: {error}", config.run_folder.display()));
        let opened = bound.and_then(|listener| {
            let netns = netns_cookie().map_err(|error| format!("ask for the node's namespace: {error}"))?;
            Ok((listener, netns))
        });
        let (listener, netns) = match opened {
            Ok(opened) => opened,
            Err(message) => {
                self.load.failed(now);
                return self.fail(Part::Cni, "SocketFailed", message);
            }
        };
        let context = CniContext {
            node_name: config.node_name.clone(),
            state_folder: config.run_folder.clone(),
            settings: settings::folder(&config.host_prefix),
            node: self.node.subscribe(),
            pool: self.with.pool.clone(),
            datapath: Arc::new(KernelDatapath::new(kernel.datapath.clone(), kernel.policy.clone(), netns)),
            drift: self.alarm.clone(),
            fights: self.fights.clone(),
        };
        let stop = CancellationToken::new();
        let server = tokio::spawn(cni::serve(listener, context, stop.clone()));
        self.cni = Some((stop, server));
        self.solve(Part::Cni);
    }

    /// Brings device, tunnels, routes and masquerading to what the nodes' objects say.
    fn apply(&mut self, now: Instant) {
        let Some(kernel) = self.kernel.as_ref().filter(|_| self.apply.is(now)) else { return };
        let wanted = match desired(&self.with.config.node_name, self.nodes.iter()) {
            Ok(wanted) => wanted,
            Err(waiting) => {
                self.apply.failed(now);
                return self.fail(Part::NodeNetwork, report::WAITING, waiting.to_string());
            }
        };
        let datapath = kernel.datapath.clone();
        self.solve(Part::NodeNetwork);
        let span = self.span(&wanted.revision);
        match span.in_scope(|| self.applier.apply(&wanted, &*datapath)) {
            Ok(applied) => {
                self.apply.done(now);
                self.solve(Part::Network);
                self.report.traceparent = context::traceparent(&span).or(self.report.traceparent.take());
                self.in_force(wanted, applied);
            }
            Err(error) => {
                self.apply.failed(now);
                self.fail(Part::Network, error.reason(), chain(&error));
            }
        }
    }

    /// The span of a new revision hangs on the change that led to it; repairs have none.
    fn span(&self, revision: &str) -> tracing::Span {
        if self.report.revision.as_deref() == Some(revision) {
            return tracing::Span::none();
        }
        let span = tracing::info_span!("apply", netkeel.revision = revision);
        if let Some(parent) = self.own().and_then(|node| node.traceparent.as_deref()) {
            context::set_parent(&span, parent);
        }
        span
    }

    fn in_force(&mut self, wanted: Desired, applied: Applied) {
        let same = self
            .applied
            .as_ref()
            .is_some_and(|(before, with)| *before == wanted && with.device == applied.device);
        if same && applied.written != Written::default() {
            tracing::warn!(written = ?applied.written, "something of the node's network was taken by somebody and is back");
        }
        if self.report.revision.as_deref() != Some(&*wanted.revision) {
            tracing::info!(revision = wanted.revision, mtu = applied.mtu, "the node's network is in force");
        }
        self.report.revision = Some(wanted.revision.clone());
        self.report.datapath = Some(self.facts(&applied));
        let others = self.nodes.overlay_of_others(&self.with.config.node_name).into_iter();
        let peers = others.map(|(name, addresses)| {
            let mtu = applied.mtu_to(&name);
            (name, Peer { addresses, mtu })
        });
        let now = Targets { own: wanted.overlay, mtu: applied.mtu, peers: peers.collect() };
        self.targets.send_if_modified(|targets| {
            let new = *targets != now;
            *targets = now;
            new
        });
        self.applied = Some((wanted, applied));
    }

    /// Tells CNI calls what is in force, and whether pods may be added.
    fn tell_node(&mut self) {
        let Some((wanted, applied)) = &self.applied else { return };
        let state = NodeState {
            ready: self.programmed,
            layout: wanted.layout.clone(),
            addresses: wanted.node,
            mtu: applied.mtu,
            revision: wanted.revision.clone(),
        };
        self.node.send_if_modified(|node| {
            let new = node.as_deref() != Some(&state);
            *node = Some(Arc::new(state));
            new
        });
    }

    fn facts(&self, applied: &Applied) -> DatapathFacts {
        let device = &applied.device;
        DatapathFacts {
            kernel: self.kernel.as_ref().map(|kernel| kernel.release.clone()).unwrap_or_default(),
            mtu: u16::try_from(applied.mtu).unwrap_or(u16::MAX),
            programs: self.kernel.as_ref().map(Kernel::programs).unwrap_or_default(),
            vxlan: Some(Overlay {
                device: overlay::DEVICE.to_owned(),
                port: device.port,
                address: device.addresses.first(),
            }),
        }
    }

    /// Keeps the nodes for a start without the API server.
    fn save(&mut self, now: Instant) {
        if !self.unsaved || self.applied.is_none() || !self.save.is(now) {
            return;
        }
        match last_known::write(&self.with.config.state_folder, &self.nodes.objects()) {
            Ok(()) => {
                self.unsaved = false;
                self.save.done(now);
                self.report.unkept = None;
                self.kept = self.releasing();
                self.measure_blocks();
            }
            Err(error) => {
                self.save.failed(now);
                let error = chain(&error);
                tracing::warn!(error, "the nodes are not kept, trying again");
                self.report.unkept = Some(error);
            }
        }
    }

    /// The blocks that this node gives back.
    fn releasing(&self) -> Vec<Releasing> {
        self.own().map(|node| node.layout.releasing.clone()).unwrap_or_default()
    }
}
