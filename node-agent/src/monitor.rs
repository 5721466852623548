//! Notices of the kernel wake the repair at once: whoever deletes a device, an address, a route or the nftables table of
//! ours gets it back in less than a second, where the regular look comes every 30 s only.
//!
//! Our own writes come back as notices too. They cause one more look, which finds nothing to write and so ends it.

mod judge;
mod notice;
mod pace;

use std::{io, sync::Arc, time::Instant};

use rtnetlink::{
    packet_route::{
        RouteNetlinkMessage,
        address::AddressMessage,
        link::LinkMessage,
        route::{RouteMessage, RouteProtocol},
    },
    sys::{
        AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket,
        protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
    },
};
use tokio::{sync::Notify, task::spawn_blocking, time::sleep};

pub use self::{
    judge::{Judge, Stir},
    notice::Notice,
    pace::Pace,
};
use crate::link::{self, netlink::Rtnetlink, veth::PROTOCOL};

/// Groups of the kernel's `rtnetlink.h` (Linux 6.6): links, filters, addresses and routes of both families, IPv4 settings.
const ROUTE_GROUPS: [u32; 7] = [1, 4, 5, 7, 9, 11, 24];
/// `NFNLGRP_NFTABLES` of `nfnetlink.h`.
const NFTABLES_GROUP: u32 = 7;
/// Room for notices that come faster than they are read, bytes, where `net.core.rmem_max` allows it. More is told as lost,
/// and then everything is looked at.
const ROOM: usize = 1 << 20;

/// Rung when something may have to be repaired.
#[derive(Clone, Debug, Default)]
pub struct Alarm {
    /// Device, addresses, routes to blocks, settings, masquerading.
    pub network: Arc<Notify>,
    /// Routes to pods, and whether their links are up.
    pub routes: Arc<Notify>,
    /// All of pods' links.
    pub pods: Arc<Notify>,
}

impl Alarm {
    fn ring(&self, stir: Stir) {
        if stir.network {
            self.network.notify_one();
        }
        if stir.routes {
            self.routes.notify_one();
        }
        if stir.pods {
            self.pods.notify_one();
        }
    }
}

/// Sockets that hear the kernel's notices of one network namespace.
pub struct Monitor {
    route: TokioSocket,
    /// `None` where the kernel has no nftables, or lets nobody listen.
    nftables: Option<TokioSocket>,
    judge: Judge,
}

impl Monitor {
    /// Listens in the calling thread's namespace. Needs a runtime with I/O.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> io::Result<Self> {
        let nftables = listen(NETLINK_NETFILTER, &[NFTABLES_GROUP]).inspect_err(
            |error| tracing::warn!(%error, "changes of nftables are found by the regular look only"),
        );
        Ok(Self {
            route: listen(NETLINK_ROUTE, &ROUTE_GROUPS)?,
            nftables: nftables.ok(),
            judge: Judge::default(),
        })
    }

    /// Rings the alarm, for ever.
    pub async fn run(mut self, alarm: Alarm) {
        let mut pace = Pace::default();
        // What exists is known before the first notice is judged.
        let mut stir = self.take_stock().await;
        loop {
            alarm.ring(stir);
            stir = self.stirred().await;
            let gathered = sleep(pace.wait(Instant::now()));
            tokio::pin!(gathered);
            loop {
                tokio::select! {
                    () = &mut gathered => break,
                    more = self.stirred() => stir |= more,
                }
            }
        }
    }

    /// Waits for a notice that matters.
    async fn stirred(&mut self) -> Stir {
        loop {
            let heard = tokio::select! {
                heard = hear(&self.route, notice::of_route) => heard,
                heard = hear_some(self.nftables.as_ref()) => heard,
            };
            let stir = match heard {
                Ok(notices) => {
                    notices.iter().map(|notice| self.judge.judge(notice)).fold(Stir::NONE, |a, b| a | b)
                }
                Err(error) => {
                    tracing::warn!(%error, "notices of the kernel were lost: everything is looked at");
                    self.take_stock().await
                }
            };
            if stir != Stir::NONE {
                return stir;
            }
        }
    }

    /// Learns what there is, and asks for a look at all of it.
    async fn take_stock(&mut self) -> Stir {
        match spawn_blocking(stock).await {
            Ok(Ok(notices)) => self.judge = Judge::of(&notices),
            Ok(Err(error)) => {
                tracing::warn!(
                    error = crate::cleanup::chain(&error),
                    "what the node has could not be listed"
                );
            }
            Err(error) => tracing::error!(%error, "the list of what the node has broke off"),
        }
        Stir::ALL
    }
}

/// Everything that notices could have told.
fn stock() -> Result<Vec<Notice>, link::Error> {
    let mut net = Rtnetlink::open()?;
    let mut found = net.dump("list links", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    found.extend(net.dump("list addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default()))?);
    let routes = net.dump("list routes", RouteNetlinkMessage::GetRoute(RouteMessage::default()))?;
    let ours = |route: &RouteNetlinkMessage| matches!(route, RouteNetlinkMessage::NewRoute(route) if route.header.protocol == RouteProtocol::Other(PROTOCOL));
    found.extend(routes.into_iter().filter(ours));
    Ok(found
        .into_iter()
        .map(|message| Notice::Route { message: Box::new(message), replaces: false })
        .collect())
}

fn listen(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    let inner = socket.socket_mut();
    inner.bind(&SocketAddr::new(0, 0))?;
    inner.set_rx_buf_sz(ROOM)?;
    groups.iter().try_for_each(|group| inner.add_membership(*group))?;
    Ok(socket)
}

async fn hear_some(socket: Option<&TokioSocket>) -> io::Result<Vec<Notice>> {
    match socket {
        Some(socket) => hear(socket, notice::of_nftables).await,
        None => std::future::pending().await,
    }
}

/// One datagram, decoded; an error means that notices were lost.
async fn hear(socket: &TokioSocket, decode: fn(&[u8]) -> Vec<Notice>) -> io::Result<Vec<Notice>> {
    let (datagram, _) = socket.recv_from_full().await?;
    Ok(decode(&datagram))
}
