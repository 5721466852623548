//! DEL: the data path forgets the pod at once, its address rests, its link goes with the pod's namespace. Whatever is
//! gone already is fine.

use std::{collections::HashSet, sync::Arc, time::Duration};

use netkeel_core::ipam::Owner;

use super::{
    failure::{Failure, INVALID_CONFIG, IO, chain},
    server::{Call, Server},
};
use crate::{
    ipam::{self, record::Record},
    link::{
        name,
        netlink::Rtnetlink,
        veth::{self, seen},
    },
    trace::part,
};

/// How long the end of the pod's namespace has for taking the link along: removing it here costs an RCU wait each.
const REAP_AFTER: Duration = Duration::from_secs(2);

/// Takes everything of `owner` away; the caller holds its lock.
pub(super) fn del(server: &Arc<Server>, owner: &Owner) -> Result<(), Failure> {
    let context = &server.context;
    let name = name::host_side(owner);
    let mut host = Rtnetlink::open()?;
    let link = seen::link(&mut host, &name)?;
    let mut records = context.pool.records_of(owner);
    if let (true, Some(link)) = (records.is_empty(), &link) {
        records = unrecorded(server, &mut host, link.index)?;
    }
    let _closed = server.close_ports(&records)?;
    for record in &records {
        part!("datapath.remove").in_scope(|| context.datapath.remove(record.address))?;
        if let Some(link) = &link {
            let address = record.address.ip();
            part!("route.remove").in_scope(|| veth::delete_route(&mut host, link.index, address))?;
        }
    }
    let mut owners: Vec<_> = records.into_iter().map(|record| record.owner).collect();
    owners.dedup();
    for owner in &owners {
        part!("release").in_scope(|| context.pool.release(owner))?;
    }
    if let Some(link) = link {
        reap_later(server.clone(), owner.clone(), link.index);
    }
    let done = server.journal.remove(owner);
    done.map_err(|error| Failure::caused(IO, "the journal of DELs could not be written", &error))
}

/// What is held for a pod whose records were lost: the addresses that the host's routes lead to over its link.
fn unrecorded(server: &Server, host: &mut Rtnetlink, link: u32) -> Result<Vec<Record>, Failure> {
    let routes = seen::pod_routes(host)?;
    let addresses = routes.into_iter().filter(|(_, route)| route.link == link);
    let owners = addresses.map(|(address, _)| ipam::unrecorded(address.into()));
    Ok(owners.flat_map(|owner| server.context.pool.records_of(&owner)).collect())
}

/// Takes away what a pod without a link holds; one that has got its link by now is left alone.
pub(super) fn del_unlinked(server: &Arc<Server>, owner: &Owner) -> Result<(), Failure> {
    let _one = server.lock(owner);
    match seen::link(&mut Rtnetlink::open()?, &name::host_side(owner))? {
        Some(_) => Ok(()),
        None => del(server, owner),
    }
}

/// GC: takes away whatever this network holds for interfaces that the runtime does not know any more.
pub(super) fn collect(server: &Arc<Server>, call: &Call) -> Result<(), Failure> {
    let valid = call.config.valid_attachments.clone().ok_or_else(|| {
        Failure::new(
            INVALID_CONFIG,
            "cni.dev/valid-attachments is missing, so GC cannot tell what is still in use",
        )
    })?;
    let valid: HashSet<Owner> = valid.into_iter().map(Owner::from).collect();
    let mut failed = Ok(());
    for record in server.context.pool.records() {
        if record.details.network != call.config.name || valid.contains(&record.owner) {
            continue;
        }
        let _one = server.lock(&record.owner);
        let collected = del(server, &record.owner);
        tracing::info!(address = %record.address, pod = record.details.pod, ?collected, "GC took back an address");
        failed = failed.and(collected);
    }
    failed
}

/// Removes a host side that belongs to nobody, unless it has got an owner by now.
pub(super) fn remove_stray(server: &Server, name: &str) -> Result<(), Failure> {
    if server.context.pool.records().iter().any(|record| name::host_side(&record.owner) == name) {
        return Ok(());
    }
    let mut host = Rtnetlink::open()?;
    if let Some(link) = seen::link(&mut host, name)? {
        veth::delete(&mut host, link.index)?;
    }
    Ok(())
}

fn reap_later(server: Arc<Server>, owner: Owner, index: u32) {
    let runtime = server.runtime.clone();
    runtime.spawn(async move {
        tokio::time::sleep(REAP_AFTER).await;
        let reaped = tokio::task::spawn_blocking(move || reap(&server, &owner, index)).await;
        if let Ok(Err(failure)) = reaped {
            tracing::error!(
                error = chain(&failure),
                details = failure.details,
                "a pod's link could not be removed"
            );
        }
    });
}

/// Removes the link of this index, unless a new ADD has made another one under its name.
fn reap(server: &Server, owner: &Owner, index: u32) -> Result<(), Failure> {
    let _one = server.lock(owner);
    if server.context.pool.record(owner).is_some() {
        return Ok(());
    }
    let name = name::host_side(owner);
    let mut host = Rtnetlink::open()?;
    if seen::link(&mut host, &name)?.is_some_and(|link| link.index == index) {
        veth::delete(&mut host, index)?;
    }
    Ok(())
}
