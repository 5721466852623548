//! Makes the node's kernel hold what is desired, part by part. What is right already is left alone, so that it may run at any time.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Instant};

use netkeel_core::address::Address;
use netkeel_dataplane_common::{
    Config,
    tunnels::{Block, Tunnel},
};
use netkeel_dataplane_loader::{self as loader, Table, TableError, converge};

use crate::{
    desired::{Desired, Paths},
    link::{self, netlink::Rtnetlink},
    masquerade, overlay, route, settings,
    sysctl::Fights,
    trace::part,
};

/// The kernel programs' side of a node.
pub trait NodeDatapath {
    /// Tells the programs about their node and attaches them to the overlay's device and to the interfaces over which other nodes'
    /// packets come, given by index and name.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn attach(&self, config: &Config, carriers: &[(u32, String)]) -> Result<(), loader::Error>;

    /// The table of other nodes' blocks.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn tunnels(&self) -> Result<impl Table<Block, Tunnel>, loader::Error>;
}

impl NodeDatapath for loader::Datapath {
    fn attach(&self, config: &Config, carriers: &[(u32, String)]) -> Result<(), loader::Error> {
        self.attach_overlay(config.vxlan_ifindex, overlay::DEVICE)?;
        self.attach_underlay(carriers)?;
        self.set_config(config)
    }

    fn tunnels(&self) -> Result<impl Table<Block, Tunnel>, loader::Error> {
        loader::Datapath::tunnels(self)
    }
}

/// Which part could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kernel settings.
    #[error(transparent)]
    Settings(#[from] settings::Error),
    /// The overlay's device.
    #[error(transparent)]
    Overlay(#[from] overlay::Error),
    /// The programs.
    #[error("set up the kernel programs for this node")]
    Datapath(#[from] loader::Error),
    /// The table of other nodes.
    #[error("write the blocks of other nodes")]
    Tunnels(#[from] TableError),
    /// Routes.
    #[error("set the routes to other nodes")]
    Routes(#[source] link::Error),
    /// The netlink socket.
    #[error(transparent)]
    Netlink(link::Error),
    /// Masquerading.
    #[error(transparent)]
    Masquerade(#[from] masquerade::Error),
}

impl Error {
    /// One word for a condition and a metric.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Settings(_) | Self::Overlay(overlay::Error::Setting(_)) => "SettingsFailed",
            Self::Overlay(overlay::Error::Conflict { .. }) => "OverlayConflict",
            Self::Overlay(overlay::Error::NoUnderlay { .. }) => "NodeAddressMissing",
            Self::Overlay(_) => "OverlayFailed",
            Self::Datapath(_) => "DatapathFailed",
            Self::Tunnels(_) => "TunnelsFailed",
            Self::Routes(_) | Self::Netlink(_) => "RoutesFailed",
            Self::Masquerade(_) => "MasqueradeFailed",
        }
    }
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The overlay's device.
    pub device: overlay::Wanted,
    /// The interface that carries the overlay's packets.
    pub underlay: overlay::Underlay,
    /// MTU of pods, bytes.
    pub mtu: u32,
    /// Nodes to whose blocks somebody else has to provide routes.
    pub elsewhere: BTreeSet<Arc<str>>,
    /// Nodes that are reached through the tunnel.
    pub tunnelled: BTreeSet<Arc<str>>,
    /// What had to be written.
    pub written: Written,
}

impl Applied {
    /// The largest packets that pods get to another node, bytes. While nodes change over the tunnel may carry less than pods' links.
    #[must_use]
    pub fn mtu_to(&self, node: &str) -> u32 {
        if self.tunnelled.contains(node) { self.mtu.min(self.device.mtu) } else { self.mtu }
    }
}

/// What had to be written to the kernel. Where nothing else was wanted than before, somebody had taken it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The overlay's device was made anew, or other interfaces carry packets.
    pub device: bool,
    /// Routes to blocks.
    pub routes: route::Changes,
    /// The nftables table.
    pub table: bool,
}

/// Brings the node's kernel to what is desired.
#[derive(Debug)]
pub struct Applier {
    settings: PathBuf,
    run_folder: PathBuf,
    fights: Arc<Fights>,
    attached: Option<(Config, Vec<(u32, String)>)>,
}

impl Applier {
    /// `settings` is the folder of the kernel's network settings (`/proc/sys/net`); in `run_folder` is kept what was changed there,
    /// and `fights` is told what others change.
    #[must_use]
    pub fn new(settings: PathBuf, run_folder: PathBuf, fights: Arc<Fights>) -> Self {
        Self { settings, run_folder, fights, attached: None }
    }

    /// Makes all of it so. Tunnels come before the routes that lead into them.
    ///
    /// # Errors
    /// The first part that failed; what was done stays, and the next call goes on.
    pub fn apply(&mut self, desired: &Desired, datapath: &impl NodeDatapath) -> Result<Applied, Error> {
        part!("settings")
            .in_scope(|| settings::forwarding(&self.settings, &self.run_folder, &desired.overlay))?;
        let mut net = Rtnetlink::open().map_err(Error::Netlink)?;
        let interfaces = overlay::Interfaces::read(&mut net)?;
        let underlay = interfaces.underlay(&desired.node)?;
        let mut strayed = settings::underlay(&self.settings, &self.run_folder, &underlay.device)?;
        let device = desired.device(underlay.mtu);
        let converged = part!("device").in_scope(|| overlay::converge(&mut net, &device, &self.settings))?;
        let ifindex = converged.index;
        strayed.extend(converged.strayed);
        self.fights.note(strayed, Instant::now());
        let paths = desired.paths(ifindex, &interfaces.subnets());
        let direct = interfaces.smallest_mtu(&paths.devices);
        let mtu = desired.pod_mtu(underlay.mtu, direct);
        let nodes: Vec<_> = desired.node.iter().map(Address::from).collect();
        let config = Config::new(&nodes, ifindex).with_mtu(device.mtu).with_direct_mtu(direct.unwrap_or(0));
        let attached = (config, interfaces.carriers(&desired.node, &paths.devices));
        let anew = self.attached.as_ref() != Some(&attached);
        if anew {
            part!("programs").in_scope(|| datapath.attach(&attached.0, &attached.1))?;
            self.attached = Some(attached);
        }
        let tunnels = part!("tunnels")
            .in_scope(|| -> Result<_, Error> { Ok(converge(&mut datapath.tunnels()?, &paths.tunnels)?) })?;
        let routes =
            part!("routes").in_scope(|| route::converge(&mut net, &paths.routes)).map_err(Error::Routes)?;
        overlay::tidy(&mut net, ifindex, &device, &desired.former)?;
        let table = part!("masquerade").in_scope(|| masquerade::converge(&desired.masquerade))?;
        tracing::debug!(?tunnels, ?routes, ?table, ifindex, mtu, "applied");
        let written = Written { device: anew, routes, table: table == masquerade::Outcome::Replaced };
        let Paths { elsewhere, tunnelled, .. } = paths;
        Ok(Applied { device, underlay, mtu, elsewhere, tunnelled, written })
    }
}
