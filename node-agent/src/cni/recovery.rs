//! What an agent makes up for at its start, and again every now and then: DELs that found none, tables of the pods
//! that exist, leaks.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, PoisonError},
    thread,
    time::{Duration, Instant},
};

use netkeel_core::address::{Address, Addresses};

use super::{
    del,
    failure::{Failure, chain},
    holding::Holding,
    leaks::{Seen, Suspect},
    queues,
    server::{Server, datapath_link},
};
use crate::{
    ipam::record::Record,
    link::{
        self,
        netlink::Rtnetlink,
        shaper,
        veth::{PodVeth, seen},
    },
    sysctl,
};

/// Times between attempts to restore the tables at the start. An ADD waits for the agent for longer than all of them.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(500), Duration::ZERO];

/// How closely pods' links are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// What the kernel lists at once: routes, and whether links are up.
    Routes,
    /// Settings and programs too, link by link.
    Whole,
}

/// Host sides by name.
type Links = HashMap<String, seen::Link>;
/// Routes to pods by address.
type Routes = HashMap<IpAddr, seen::PodRoute>;

impl Server {
    /// DELs that found no agent, then the tables of the pods that still have a link: tried a few times while calls wait,
    /// then left to the sweep, which does pod by pod.
    pub(super) fn restore(self: &Arc<Self>) {
        self.replay();
        for pause in PAUSES {
            match self.restore_tables() {
                Ok(pods) => return tracing::info!(pods, "pods of an earlier agent found"),
                Err(failure) => {
                    let details = &failure.details;
                    tracing::error!(details, "the tables of earlier pods could not be restored: {failure}");
                }
            }
            thread::sleep(pause);
        }
    }

    /// Gives the number of pods that have a link.
    fn restore_tables(&self) -> Result<usize, Failure> {
        let (links, routes) = Rtnetlink::open()
            .and_then(|mut host| Ok((seen::host_links(&mut host)?, seen::pod_routes(&mut host)?)))?;
        self.hold(&routes);
        let records = self.context.pool.records();
        let pods: Vec<_> = Holding::all(&records).iter().filter_map(|held| held.link(&links)).collect();
        self.context.datapath.restore(&pods)?;
        self.mend_ports();
        Ok(pods.len())
    }

    /// Addresses that are in use though no record says so.
    fn hold(&self, routes: &Routes) {
        for address in self.context.pool.hold(routes.keys().copied().map(Address::from)) {
            tracing::error!(%address, "a pod's route leads to an address of which no record is left, nobody is given it");
        }
    }

    /// Does the DELs of the journal; one that fails stays for the next time.
    fn replay(self: &Arc<Self>) {
        let entries = self.journal.entries().unwrap_or_else(|error| {
            tracing::error!(%error, "the journal of DELs could not be read");
            Vec::new()
        });
        for entry in entries {
            let span = tracing::info_span!(
                "cni",
                otel.name = "CNI DEL (journal)",
                container_id = entry.owner.container_id
            );
            netkeel_telemetry::context::set_parent(&span, &entry.traceparent);
            let _inside = span.enter();
            let _one = self.lock(&entry.owner);
            if !self.journal.has(&entry.owner) {
                // An ADD of the same sandbox has done it meanwhile, and its pod lives.
                continue;
            }
            match del::del(self, &entry.owner) {
                Ok(()) => tracing::info!("a DEL of the journal was done"),
                Err(failure) => {
                    tracing::error!(details = failure.details, "a DEL of the journal failed: {failure}");
                }
            }
        }
    }

    /// The regular round: journal, rested addresses, leaks.
    pub(super) fn sweep(self: &Arc<Self>) {
        self.replay();
        if let Err(error) = self.context.pool.wake() {
            tracing::error!(error = chain(&error), "records of rested addresses could not be removed");
        }
        let Some((records, links, routes)) = self.mend_pods(Look::Whole) else { return };
        if !self.context.pool.is_complete() {
            self.hold(&routes);
        }
        let seen = Seen::of(&links, &routes);
        let now = crate::ipam::since_boot();
        let mut leaks = self.leaks.lock().unwrap_or_else(PoisonError::into_inner);
        for suspect in leaks.judge(&records, &seen, now) {
            let done = match &suspect {
                Suspect::Record(owner) => del::del_unlinked(self, owner),
                Suspect::Link(name) => del::remove_stray(self, name),
            };
            tracing::warn!(?suspect, ?done, "a leak was found");
        }
    }

    /// Looks at all pods' links, as closely as that, and mends those that are not as they must be. Gives what was seen.
    pub(super) fn mend_pods(&self, look: Look) -> Option<(Vec<Record>, Links, Routes)> {
        let records = self.context.pool.records();
        let seen = Rtnetlink::open().and_then(|mut host| {
            let source = self.source(&mut host)?;
            Ok((seen::host_links(&mut host)?, seen::pod_routes(&mut host)?, source))
        });
        let (links, routes, source) = match seen {
            Ok(seen) => seen,
            Err(error) => {
                tracing::error!(error = chain(&error), "links could not be listed");
                return None;
            }
        };
        self.mend_ports();
        for held in Holding::all(&records) {
            if let Err(failure) = self.mend(&held, (&links, &routes, source), look) {
                let details = &failure.details;
                tracing::error!(address = %held.addresses, details, "a pod's link could not be mended: {failure}");
            }
        }
        Some((records, links, routes))
    }

    /// Those of the node's addresses that an interface has: Linux takes no route with another source.
    fn source(&self, host: &mut Rtnetlink) -> Result<Addresses, link::Error> {
        let node = self.context.node.borrow().as_ref().map(|node| node.addresses).unwrap_or_default();
        let held = seen::all_addresses(host)?;
        Ok(Addresses::of(node.iter().filter(|address| held.contains(address))))
    }

    /// Sets up the host side of a pod's link again where somebody took the pod's route, the link down, or a setting, and enters
    /// the pod in the tables again where they lack it.
    fn mend(
        &self,
        held: &Holding,
        (links, routes, source): (&Links, &Routes, Addresses),
        look: Look,
    ) -> Result<(), Failure> {
        let veth = PodVeth { source, ..held.veth() };
        let Some(link) = links.get(&veth.host_name) else { return Ok(()) };
        let veth = PodVeth { mtu: link.mtu, ..veth };
        let pod = datapath_link(&veth, link.index, held.pod.clone());
        let (settings, datapath) = (&self.context.settings, &self.context.datapath);
        if is_whole(&veth, link, routes)
            && (look == Look::Routes
                || !sysctl::strays(settings, &veth.host_name, sysctl::POD)
                    && queues::is_right(&veth, link)?
                    && datapath.holds(&pod)?)
        {
            return Ok(());
        }
        // A call may have been under way when one looked: look again when it is over.
        let _one = self.lock(&held.owner);
        if Holding::of(&self.context.pool.records_of(&held.owner)).as_ref() != Some(held) {
            return Ok(());
        }
        let address = held.addresses;
        let mut host = Rtnetlink::open()?;
        let Some(link) = seen::link(&mut host, &veth.host_name)? else { return Ok(()) };
        let strayed = sysctl::converge(settings, &veth.host_name, sysctl::POD).map_err(link::Error::from)?;
        self.context.fights.note(strayed, Instant::now());
        if !is_whole(&veth, &link, &seen::pod_routes(&mut host)?) || !queues::is_right(&veth, &link)? {
            veth.configure_host(&mut host, link.index, settings)?;
            tracing::warn!(%address, link = veth.host_name, "the host's side of a pod's link was not whole and is set up anew");
        }
        let pod = datapath_link(&veth, link.index, held.pod.clone());
        if !datapath.holds(&pod)? {
            datapath.add(&pod)?;
            tracing::warn!(%address, link = veth.host_name, "the tables lacked a pod and hold it again");
        }
        Ok(())
    }
}

/// Whether the host's side of a pod's link is as it must be.
fn is_whole(veth: &PodVeth, link: &seen::Link, routes: &Routes) -> bool {
    let has_route = |address| {
        let route = seen::PodRoute { link: link.index, source: veth.source.like(address) };
        routes.get(&address) == Some(&route)
    };
    let has_queue = veth.bandwidth.ingress.is_none() || link.queue == shaper::KIND;
    link.up && has_queue && veth.addresses.iter().all(has_route)
}
