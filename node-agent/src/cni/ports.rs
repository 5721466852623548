//! Host ports of the node's pods, in nftables and in the map of the sockets. The pods' records say what there must be; all
//! changes are made under one lock, so that a look at everything and a call for one pod do not undo each other.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::{MutexGuard, PoisonError, atomic::Ordering},
};

use netkeel_core::ipam::Owner;
use netkeel_dataplane_common::{backends::Backend, host_ports::HostPort as Asked, transport::UDP};

use super::{
    failure::{BROKEN, Failure, IMPOSSIBLE, KERNEL, TRY_AGAIN, chain},
    server::Server,
};
use crate::{
    host_port::{self, Forward, HostPort, Refused, table},
    ipam::record::Record,
    link::{self, netlink::Rtnetlink, veth::seen},
    nftables::conntrack,
};

/// A pod's host ports are closed, and stay so while this lives.
pub(super) type Closed<'a> = MutexGuard<'a, ()>;

impl Server {
    /// Refuses ports that another pod of this node has. Both must have been written down.
    pub(super) fn check_ports(&self, owner: &Owner, pod: &str, ports: &[HostPort]) -> Result<(), Failure> {
        if ports.is_empty() {
            return Ok(());
        }
        let others = self.context.pool.records();
        let clash = others.iter().filter(|record| record.owner != *owner).find_map(|record| {
            let taken = |port: &&HostPort| record.details.ports.iter().any(|other| other.clashes(port));
            ports.iter().find(taken).map(|port| (port, &record.details.pod))
        });
        clash.map_or(Ok(()), |(port, other)| {
            let node = &self.context.node_name;
            Err(Failure {
                code: TRY_AGAIN,
                msg: format!("pod {pod} cannot have host port {port} of node {node}: pod {other} has it"),
                details: "delete that pod, or ask for another hostPort".to_owned(),
            })
        })
    }

    /// Opens the host ports of a pod whose records are written.
    pub(super) fn open_ports(&self, owner: &Owner) -> Result<(), Failure> {
        let forwards = forwards(&self.context.pool.records_of(owner));
        if forwards.is_empty() {
            return Ok(());
        }
        let _one = self.lock_ports();
        self.ports.there.store(true, Ordering::Relaxed);
        let node = node_addresses()?;
        if table::add(&forwards).is_err() {
            let all = self.forwards();
            table::converge(&all).map_err(|error| refused(&error))?;
            begin_anew(&all, &node);
        } else {
            begin_anew(&forwards, &node);
        }
        Ok(self.context.datapath.open_ports(&self.sockets(&forwards, &node))?)
    }

    /// Closes the host ports that these records of one pod say. `None` where there are none.
    pub(super) fn close_ports(&self, records: &[Record]) -> Result<Option<Closed<'_>>, Failure> {
        let forwards = forwards(records);
        if forwards.is_empty() {
            return Ok(None);
        }
        let closed = self.lock_ports();
        // Where another pod has the port its flows go on.
        let taken = table::take(&forwards).map_err(|error| refused(&error))?;
        begin_anew(&taken, &node_addresses()?);
        let held = self.context.datapath.ports()?;
        let to: BTreeSet<Backend> = forwards.iter().map(backend).collect();
        let gone = held.into_iter().filter(|(_, backend)| to.contains(backend)).map(|(asked, _)| asked);
        self.context.datapath.close_ports(&gone.collect::<Vec<_>>())?;
        Ok(Some(closed))
    }

    /// Makes nftables and the map hold the ports of all pods, and no others.
    pub(super) fn mend_ports(&self) {
        if let Err(failure) = self.converge_ports() {
            let details = &failure.details;
            tracing::error!(details, "the host ports of pods could not be brought in line: {failure}");
        }
    }

    fn converge_ports(&self) -> Result<(), Failure> {
        let _one = self.lock_ports();
        let forwards = self.forwards();
        if forwards.is_empty() && !self.ports.there.load(Ordering::Relaxed) {
            return Ok(());
        }
        let written = table::converge(&forwards).map_err(|error| refused(&error))?;
        let node = node_addresses()?;
        if written {
            begin_anew(&forwards, &node);
        }
        let wanted = self.sockets(&forwards, &node);
        let datapath = &self.context.datapath;
        let held = datapath.ports()?;
        let new: HashMap<_, _> =
            wanted.iter().filter(|(asked, to)| held.get(asked) != Some(to)).map(|(a, b)| (*a, *b)).collect();
        let gone: Vec<_> = held.into_keys().filter(|asked| !wanted.contains_key(asked)).collect();
        // The room of those that go may be what the new ones need.
        datapath.close_ports(&gone)?;
        datapath.open_ports(&new)?;
        self.ports.there.store(!forwards.is_empty(), Ordering::Relaxed);
        if written || !new.is_empty() || !gone.is_empty() {
            tracing::warn!(
                ports = forwards.len(),
                nftables = written,
                "host ports of pods were not as they must be and are"
            );
        }
        Ok(())
    }

    /// Whether the host ports of a pod lead to it.
    pub(super) fn holds_ports(&self, records: &[Record]) -> Result<(), Failure> {
        let forwards = forwards(records);
        if forwards.is_empty() {
            return Ok(());
        }
        let wanted = self.sockets(&forwards, &node_addresses()?);
        let held = self.context.datapath.ports()?;
        let sockets = wanted.iter().all(|(asked, to)| held.get(asked) == Some(to));
        if sockets && table::holds(&forwards).map_err(|error| refused(&error))? {
            return Ok(());
        }
        let ports = records.first().map(|record| record.details.ports.as_slice()).unwrap_or_default();
        let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
        Err(Failure::new(BROKEN, format!("host ports {} do not lead to the pod", ports.join(", "))))
    }

    fn lock_ports(&self) -> MutexGuard<'_, ()> {
        self.ports.one.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all records say.
    fn forwards(&self) -> BTreeSet<Forward> {
        forwards(&self.context.pool.records()).into_iter().collect()
    }

    fn sockets<'a>(
        &self,
        forwards: impl IntoIterator<Item = &'a Forward>,
        node: &[IpAddr],
    ) -> HashMap<Asked, Backend> {
        host_port::sockets(forwards, node, self.context.datapath.netns())
    }
}

/// All addresses by which the node can be reached.
fn node_addresses() -> Result<Vec<IpAddr>, link::Error> {
    let mut all = seen::all_addresses(&mut Rtnetlink::open()?)?;
    all.retain(|ip| !ip.is_loopback());
    Ok(all)
}

/// Flows of UDP to these ports must find another way than the one by which they began. What cannot be forgotten ends when
/// nobody has sent for two minutes, unless the node's settings say otherwise.
fn begin_anew<'a>(forwards: impl IntoIterator<Item = &'a Forward>, node: &[IpAddr]) {
    let ports: HashSet<_> =
        forwards.into_iter().filter(|forward| forward.protocol == UDP).map(|forward| forward.port).collect();
    if ports.is_empty() {
        return;
    }
    match conntrack::forget(&ports, node) {
        Ok(flows) => tracing::debug!(flows, "flows to host ports begin anew"),
        Err(error) => tracing::warn!(error = chain(&error), "flows to host ports go on as they began"),
    }
}

/// What records say; each of them has one address.
fn forwards(records: &[Record]) -> Vec<Forward> {
    let of = |record: &Record| {
        let pod = [record.address.ip()];
        record.details.ports.iter().flat_map(move |port| port.forwards(&pod)).collect::<Vec<_>>()
    };
    records.iter().flat_map(of).collect()
}

fn backend(forward: &Forward) -> Backend {
    Backend::new(forward.to.ip().into(), forward.to.port())
}

fn refused(error: &crate::nftables::Error) -> Failure {
    Failure { code: KERNEL, msg: "the kernel refused a host port".to_owned(), details: chain(error) }
}

/// What a pod is told that asks for impossible ports.
pub(super) fn impossible(pod: &str, refused: &Refused) -> Failure {
    let details = "correct the hostPort of the pod's containers".to_owned();
    Failure { code: IMPOSSIBLE, msg: format!("pod {pod} cannot have its host ports: {refused}"), details }
}
