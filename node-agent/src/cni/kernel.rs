//! The real data path of pod links: the programs on each host side, and the pod's entries with its policy.

use std::{sync::Arc, time::Duration};

use netkeel_core::address::Address;
use netkeel_dataplane_loader::Datapath;

use super::datapath::{Error, PodDatapath, PodLink};
use crate::policy::{Attached, Entered, PodRef, Programmer};

/// How long an ADD waits for the API server to say who the pod is. Nearly always it has said so before.
const POLICY_WAIT: Duration = Duration::from_secs(2);

/// The loaded programs, as the CNI server uses them.
pub struct KernelDatapath {
    datapath: Arc<Datapath>,
    policy: Arc<Programmer>,
}

impl KernelDatapath {
    /// Over programs that are loaded.
    #[must_use]
    pub fn new(datapath: Arc<Datapath>, policy: Arc<Programmer>) -> Self {
        Self { datapath, policy }
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
    let PodLink { pod_address: address, other_address: other, host_ifindex: ifindex, pod_mac: mac, .. } =
        *pod;
    Attached { pod: pod.pod.clone(), address, other, ifindex, mac }
}

fn failed(what: String, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error { what, source: Box::new(source) }
}
