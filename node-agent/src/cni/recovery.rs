//! What an agent makes up for at its start, and again every now and then: DELs that found none, tables of the pods
//! that exist, leaks.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, PoisonError},
    thread,
    time::Duration,
};

use netkeel_core::address::Address;

use super::{
    datapath::PodLink,
    del,
    failure::{Failure, chain},
    leaks::{Seen, Suspect},
    server::{Server, datapath_link},
};
use crate::{
    ipam::record::Record,
    link::{
        netlink::Rtnetlink,
        veth::{PodVeth, seen},
    },
};

/// Times between attempts to restore the tables at the start. An ADD waits for the agent for longer than all of them.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(500), Duration::ZERO];

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
        for address in self.context.pool.hold(routes.into_keys().map(Address::from)) {
            tracing::error!(%address, "a pod's route leads to an address of which no record is left, nobody is given it");
        }
        let records = self.context.pool.records();
        let pods: Vec<_> = records.iter().filter_map(|record| pod_link(record, &links)).collect();
        self.context.datapath.restore(&pods)?;
        Ok(pods.len())
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
        let records = self.context.pool.records();
        let seen = Rtnetlink::open()
            .and_then(|mut host| Ok((seen::host_links(&mut host)?, seen::pod_routes(&mut host)?)));
        let (links, routes) = match seen {
            Ok(seen) => seen,
            Err(error) => return tracing::error!(error = chain(&error), "links could not be listed"),
        };
        for record in &records {
            if let Err(failure) = self.mend(record, &links, &routes) {
                let details = &failure.details;
                tracing::error!(address = %record.address, details, "a pod's link could not be mended: {failure}");
            }
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

    /// Sets up the host side of a pod's link again where somebody took the pod's route, and enters the pod in the tables
    /// again where they lack it.
    fn mend(
        &self,
        record: &Record,
        links: &HashMap<String, seen::Link>,
        routes: &HashMap<Ipv4Addr, u32>,
    ) -> Result<(), Failure> {
        let (Some(pod), Some(address)) = (pod_link(record, links), record.ipv4()) else { return Ok(()) };
        let has_route = routes.get(&address) == Some(&pod.host_ifindex);
        if has_route && self.context.datapath.holds(&pod)? {
            return Ok(());
        }
        // A call may have been under way when one looked.
        let _one = self.lock(&record.owner);
        if self.context.pool.records_of(&record.owner).iter().all(|now| now.address != record.address) {
            return Ok(());
        }
        let veth = PodVeth::new(&record.owner, address, 0);
        let mut host = Rtnetlink::open()?;
        let Some(link) = seen::link(&mut host, &veth.host_name)? else { return Ok(()) };
        if !has_route {
            veth.configure_host(&mut host, link.index, &self.context.settings)?;
            tracing::warn!(%address, link = veth.host_name, "a pod's route was gone and is set anew");
        }
        let pod = datapath_link(&veth, link.index, record.pod());
        if !self.context.datapath.holds(&pod)? {
            self.context.datapath.add(&pod)?;
            tracing::warn!(%address, link = veth.host_name, "the tables lacked a pod and hold it again");
        }
        Ok(())
    }
}

/// The link of a pod that has one.
fn pod_link(record: &Record, links: &HashMap<String, seen::Link>) -> Option<PodLink> {
    let veth = PodVeth::new(&record.owner, record.ipv4()?, 0);
    links.get(&veth.host_name).map(|link| datapath_link(&veth, link.index, record.pod()))
}
