//! What an agent makes up for at its start, and again every now and then: DELs that found none, tables of the pods
//! that exist, leaks.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, PoisonError},
};

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

impl Server {
    /// DELs that found no agent, then the tables of the pods that still have a link.
    pub(super) fn restore(self: &Arc<Self>) {
        self.replay();
        let pods = Rtnetlink::open().and_then(|mut host| seen::host_links(&mut host)).map(|links| {
            let records = self.context.pool.records();
            records.iter().filter_map(|record| pod_link(record, &links)).collect::<Vec<_>>()
        });
        match pods {
            Err(error) => {
                tracing::error!(error = chain(&error), "the links of earlier pods could not be listed");
            }
            Ok(pods) => {
                tracing::info!(pods = pods.len(), "pods of an earlier agent found");
                if let Err(error) = self.context.datapath.restore(&pods) {
                    tracing::error!(
                        error = chain(&error),
                        "the tables of earlier pods could not be restored"
                    );
                }
            }
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
        let records = self.context.pool.records();
        let seen = Rtnetlink::open()
            .and_then(|mut host| Ok((seen::host_links(&mut host)?, seen::pod_routes(&mut host)?)));
        let (links, routes) = match seen {
            Ok(seen) => seen,
            Err(error) => return tracing::error!(error = chain(&error), "links could not be listed"),
        };
        for record in &records {
            if let Err(failure) = self.mend(record, &links, &routes) {
                let details = failure.details;
                tracing::error!(address = %record.address, details, "a pod's route could not be set anew");
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

    /// Sets up the host side of a pod's link again where somebody took the pod's route.
    fn mend(
        &self,
        record: &Record,
        links: &HashMap<String, seen::Link>,
        routes: &HashMap<Ipv4Addr, u32>,
    ) -> Result<(), Failure> {
        let Some(address) = record.ipv4() else { return Ok(()) };
        let veth = PodVeth::new(&record.owner, address, 0);
        let whole = |link: &seen::Link| routes.get(&address) == Some(&link.index);
        if links.get(&veth.host_name).is_none_or(whole) {
            return Ok(());
        }
        // A call may have been under way when one looked.
        let _one = self.lock(&record.owner);
        if self.context.pool.record(&record.owner).is_none_or(|now| now.address != record.address) {
            return Ok(());
        }
        let mut host = Rtnetlink::open()?;
        let Some(link) = seen::link(&mut host, &veth.host_name)? else { return Ok(()) };
        veth.configure_host(&mut host, link.index, &self.context.settings)?;
        tracing::warn!(%address, link = veth.host_name, "a pod's route was gone and is set anew");
        Ok(())
    }
}

/// The link of a pod that has one.
fn pod_link(record: &Record, links: &HashMap<String, seen::Link>) -> Option<PodLink> {
    let veth = PodVeth::new(&record.owner, record.ipv4()?, 0);
    links.get(&veth.host_name).map(|link| datapath_link(&veth, link.index))
}
