//! The real data path of pod links: the programs on each host side, and the pod's entries with its policy.

use std::{collections::HashMap, sync::Arc, time::Duration};

use netkeel_core::address::Address;
use netkeel_dataplane_common::{backends::Backend, host_ports::HostPort};
use netkeel_dataplane_loader::{self as loader, Datapath, Table};

use super::datapath::{Error, PodDatapath, PodLink};
use crate::policy::{Attached, Entered, PodRef, Programmer};

/// How long an ADD waits for the API server to say who the pod is. Nearly always it has said so before.
const POLICY_WAIT: Duration = Duration::from_secs(2);

/// The loaded programs, as the CNI server uses them.
pub struct KernelDatapath {
    datapath: Arc<Datapath>,
    policy: Arc<Programmer>,
    netns: u64,
}

impl KernelDatapath {
    /// Over programs that are loaded. `netns` is the cookie of the node's network namespace.
    #[must_use]
    pub fn new(datapath: Arc<Datapath>, policy: Arc<Programmer>, netns: u64) -> Self {
        Self { datapath, policy, netns }
    }

    fn attach(&self, pod: &PodLink) -> Result<(), Error> {
        let attached = self.datapath.attach_pod(pod.host_ifindex, &pod.host_name);
        attached.map_err(|error| failed(format!("attach the programs to {}", pod.host_name), error))
    }
}

impl PodDatapath for KernelDatapath {
    fn await_policy(&self, pod: &PodRef) -> bool {
        self.policy.await_pod(pod, POLICY_WAIT)
    }

    fn add(&self, pod: &PodLink) -> Result<Entered, Error> {
        self.attach(pod)?;
        let entered = self.policy.enter(&attached(pod));
        entered.map_err(|error| failed(format!("enter {} in the tables", pod.pod_address), error))
    }

    fn remove(&self, pod_address: Address) -> Result<(), Error> {
        let forgotten = self.policy.forget(pod_address);
        forgotten.map_err(|error| failed(format!("take {pod_address} out of the tables"), error))
    }

    fn holds(&self, pod: &PodLink) -> Result<bool, Error> {
        let known = self.policy.holds(&attached(pod));
        let look = |error| failed(format!("look for the programs on {}", pod.host_name), error);
        Ok(known && self.datapath.pod_attached(pod.host_ifindex).map_err(look)?)
    }

    fn netns(&self) -> u64 {
        self.netns
    }

    fn ports(&self) -> Result<HashMap<HostPort, Backend>, Error> {
        let read = || Ok(self.datapath.host_ports()?.dump()?);
        read().map_err(|error: loader::Error| failed("read the host ports of sockets".to_owned(), error))
    }

    fn open_ports(&self, ports: &HashMap<HostPort, Backend>) -> Result<(), Error> {
        let write = || {
            let mut table = self.datapath.host_ports()?;
            ports.iter().try_for_each(|(port, to)| Ok(table.put(port, to)?))
        };
        write().map_err(|error: loader::Error| failed("write the host ports of sockets".to_owned(), error))
    }

    fn close_ports(&self, ports: &[HostPort]) -> Result<(), Error> {
        let write = || {
            let mut table = self.datapath.host_ports()?;
            ports.iter().try_for_each(|port| Ok(table.remove(port)?))
        };
        write().map_err(|error: loader::Error| failed("remove host ports of sockets".to_owned(), error))
    }

    fn restore(&self, pods: &[PodLink]) -> Result<(), Error> {
        // Entries before programs: a pod whose entry is not there yet would be cut off.
        let all: Vec<_> = pods.iter().map(attached).collect();
        let entered = self.policy.take_over(&all);
        let entered = entered.map_err(|error| failed("bring the tables of pods in line".to_owned(), error));
        let attached = pods.iter().map(|pod| self.attach(pod)).fold(Ok(()), Result::and);
        attached.and(entered)
    }
}

fn attached(pod: &PodLink) -> Attached {
    let PodLink { host_ifindex: ifindex, pod_mac: mac, shaped, .. } = *pod;
    let (address, other) = (pod.pod_address, pod.other_address);
    Attached { pod: pod.pod.clone(), address, other, ifindex, mac, shaped }
}

fn failed(what: String, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error { what, source: Box::new(source) }
}
